"""The monitor as a Faust app; the only file that imports faust.

::

    1 take     a batch of outcomes, not yet acknowledged
    2 decode   what is not outcomes goes to dead-letters
    3 insert   one batch per cube, again and again until ClickHouse has it; nothing is taken meanwhile
    4 ack      only now: a crash before this inserts the batch again, which changes nothing

Beside it, a timer looks at what ClickHouse holds and publishes alerts.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import faust

from stream.clickhouse import Store
from stream.dead_letters import dead_letter
from stream.errors import Fatal, Poison, Retryable, SettingsError
from stream.log import Records
from stream.messages import Alert, Outcomes, encode_json
from stream.monitor import rows
from stream.monitor.watch import Watch
from stream.settings import Kafka, Settings

TAKE = 64
"""Messages in memory at most, twice over: those taken, and those waiting; each is below 1 MB."""
BACKOFF_S = (0.1, 5.0)
"""First and longest pause between tries."""
COMMIT_S = 0.5
LEAVE_S = 1.5
"""How long a stop waits for the broker's goodbye."""

SECURITY = {
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
}
"""librdkafka's options that the monitor's client understands too; its others tune, these decide."""

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


def run(settings: Settings, ready: Callable[[], None]) -> None:
    """Run the monitor in this process until SIGTERM or SIGINT.

    Parameters
    ----------
    settings
        The whole tree; `kafka`, `clickhouse` and `monitor` are used.
    ready
        Called once, when partitions are assigned.

    Raises
    ------
    SettingsError
        When a Kafka security option has no counterpart here.
    Fatal
        When ClickHouse refuses us.
    """
    for noisy in ("faust", "mode", "aiokafka"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    asyncio.run(_serve(settings, ready))


async def _serve(settings: Settings, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _finish, over)
    monitor = Monitor(settings, over, ready)
    main = asyncio.create_task(monitor.start())
    main.add_done_callback(lambda task: None if task.cancelled() else _finish(over, task.exception()))
    try:
        await over
    finally:
        main.cancel()
        await asyncio.wait({asyncio.ensure_future(monitor.app.stop())}, timeout=LEAVE_S)


def _finish(over: asyncio.Future[None], error: BaseException | None = None) -> None:
    """End the monitor, for the first reason there is."""
    if over.done():
        return
    if error is None:
        over.set_result(None)
    else:
        over.set_exception(error)


class Monitor:
    """The Faust app and what it does; `over` is done when the process is to end."""

    def __init__(self, settings: Settings, over: asyncio.Future[None], ready: Callable[[], None]) -> None:
        self.settings, self.over = settings, over
        self.ready: Callable[[], None] | None = ready
        self.store = Store(settings.clickhouse)
        self.watch = Watch(self.store)
        self.unsent: list[Alert] = []
        self.app = _app(settings.kafka)
        self.alerts = self._topic("alerts")
        self.dead_letters = self._topic("dead-letters")
        self.app.on_partitions_assigned.connect(self._assigned, weak=False)
        self.app.agent(self._topic("outcomes"), name="outcomes")(self._outcomes)
        self.app.timer(settings.monitor.watch_s, on_leader=False)(self._look)

    async def start(self) -> None:
        """Make the tables, join the group, and go on until stopped."""
        await _until_done(self.store.migrate)
        try:
            await self.app.start()
            await self.app.wait()
            crash = self.app.crash_reason
        except Exception as error:
            crash = error
        if crash is not None:
            raise Fatal(f"Kafka at {self.settings.kafka.bootstrap}: {crash}") from crash

    def _topic(self, name: str) -> Any:
        return self.app.topic(
            self.settings.kafka.topic(name), value_type=bytes, value_serializer="raw", key_serializer="raw"
        )

    async def _assigned(self, app: Any, assigned: Any, **kwargs: Any) -> None:
        if self.ready is not None:
            self.ready()
            self.ready = None

    async def _outcomes(self, stream: Any) -> None:
        """Agent of the topic; anything that it cannot handle ends the monitor, which loses nothing."""
        try:
            async for events in stream.noack_take(TAKE, within=self.settings.monitor.flush_s):
                await self._keep([event.message for event in events])
                for event in events:
                    await stream.ack(event)
        except Exception as error:
            _finish(self.over, error)
            raise

    async def _keep(self, messages: Sequence[Any]) -> None:
        """Store a batch; what cannot be decoded goes to dead-letters, and the batch goes on."""
        good: list[Outcomes] = []
        for message in messages:
            try:
                good.append(rows.decode(message.value))
            except Poison as poison:
                await self._dead_letter(message, str(poison))
        for cube, columns in rows.together(good).items():
            await _until_done(self.store.insert, cube, columns)

    async def _dead_letter(self, message: Any, reason: str) -> None:
        logger.warning("%s[%s] offset %s: %s", message.topic, message.partition, message.offset, reason)
        stamp = int(message.timestamp * 1000)
        records = Records(
            "outcomes", message.partition, [message.offset], [stamp], [message.key], [message.value]
        )
        letter = dead_letter(records, 0, reason, "monitor", time.time())
        await (await self.dead_letters.send(key=letter.key, value=letter.value, headers=dict(letter.headers)))

    async def _look(self) -> None:
        """Timer: look, and send alerts; what could not be sent is sent the next time."""
        try:
            self.unsent += await asyncio.to_thread(self.watch.look, int(time.time() * 1000))
            await asyncio.to_thread(self.store.alert, self.unsent)
        except Retryable as error:
            logger.warning("watching skips a turn: %s", error)
            return
        except Exception as error:
            _finish(self.over, error)
            raise
        while self.unsent:
            alert = self.unsent[0]
            logger.warning("alert %s: %s", alert.rule, alert.message)
            await (await self.alerts.send(key=alert.rule.encode(), value=encode_json(alert)))
            self.unsent.pop(0)


async def _until_done(do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in a thread, again with growing pauses while somebody is away."""
    pause, longest = BACKOFF_S
    while True:
        try:
            return await asyncio.to_thread(do, *args, **kwargs)
        except Retryable as error:
            logger.warning("trying again in %.1f s: %s", pause, error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)


def _app(kafka: Kafka) -> Any:
    session_s = kafka.session_timeout_ms / 1000
    return faust.App(
        kafka.prefix + "monitor",
        broker=";".join(f"kafka://{address.strip()}" for address in kafka.bootstrap.split(",")),
        broker_credentials=credentials(kafka.options),
        store="memory://",
        web_enabled=False,
        # topics are the installation's to make
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        stream_buffer_maxsize=TAKE,
        broker_commit_interval=COMMIT_S,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 5,
        # a batch may wait for ClickHouse for hours
        broker_max_poll_interval=86_400.0,
        consumer_auto_offset_reset="earliest",
    )


def credentials(options: dict[str, Any]) -> Any:
    """Faust's credentials for librdkafka's security options; None for a plain connection.

    Raises
    ------
    SettingsError
        Naming an option that the monitor's client cannot honour.

    Examples
    --------
    >>> credentials({"linger.ms": 1}) is None
    True
    >>> credentials({"security.protocol": "SASL_PLAINTEXT", "sasl.username": "u"})
    <SASLCredentials: username=u>
    >>> credentials({"sasl.oauthbearer.config": "x"})
    Traceback (most recent call last):
    stream.errors.SettingsError: [kafka.options] sasl.oauthbearer.config: the monitor cannot use it; ...
    """
    for name in options:
        if name.startswith(("security.", "sasl.", "ssl.")) and name not in SECURITY:
            raise SettingsError(
                f"[kafka.options] {name}: the monitor cannot use it; it knows {', '.join(sorted(SECURITY))}"
            )
    protocol = str(options.get("security.protocol", "PLAINTEXT")).upper()
    if protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
        raise SettingsError(f"[kafka.options] security.protocol = {protocol!r}: there is none of that name")
    context = _tls(options) if protocol in ("SSL", "SASL_SSL") else None
    if protocol in ("SASL_PLAINTEXT", "SASL_SSL"):
        mechanism = str(options.get("sasl.mechanism", options.get("sasl.mechanisms", "PLAIN")))
        if mechanism not in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            raise SettingsError(
                f"[kafka.options] sasl.mechanism = {mechanism!r}: the monitor knows PLAIN, SCRAM-SHA-256, "
                "SCRAM-SHA-512"
            )
        return faust.SASLCredentials(
            username=options.get("sasl.username"),
            password=options.get("sasl.password"),
            ssl_context=context,
            mechanism=mechanism,
        )
    return faust.SSLCredentials(context) if context is not None else None


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if "ssl.certificate.location" in options:
            context.load_cert_chain(
                options["ssl.certificate.location"],
                options.get("ssl.key.location"),
                options.get("ssl.key.password"),
            )
    except OSError as error:
        files = [str(value) for name, value in options.items() if name.endswith(".location")]
        raise SettingsError(f"[kafka.options] {', '.join(files)}: {error}") from None
    return context
