import asyncio
import ssl

import pytest

from stream.errors import Fatal, Retryable, SettingsError
from stream.monitor import app
from stream.monitor.app import Monitor, credentials
from stream.settings import ClickHouse, Kafka, Settings


class Message:
    topic, partition, offset, timestamp, key = "liverank.outcomes", 0, 0, 0.0, None
    value = b"junk"


class Server:
    """A store, or a topic: fails `failures` times, then does what it is asked."""

    def __init__(self, error=None, failures=0):
        self.error, self.failures, self.done = error, failures, []

    def _do(self, *what):
        if self.failures:
            self.failures -= 1
            raise self.error
        self.done.append(what)

    insert = alert = _do

    def look(self, now_ms):
        return []

    async def send(self, **what):
        self.done.append(what)
        return asyncio.sleep(0)


@pytest.fixture
def with_monitor():
    """Run a coroutine on a monitor that is not started."""

    def run(work):
        async def main():
            over = asyncio.get_running_loop().create_future()
            settings = Settings(clickhouse=ClickHouse(url="http://127.0.0.1:1"))
            return await work(Monitor(settings, over, lambda: None), over)

        return asyncio.run(main())

    return run


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(app, "BACKOFF_S", (0.001, 0.002))


def test_insert_is_tried_until_it_is_in():
    store = Server(Retryable("away"), failures=5)
    asyncio.run(app._until_done(store.insert, "truth", {}))
    assert store.done == [("truth", {})]


def test_what_is_refused_is_not_tried_again():
    store = Server(Fatal("wrong password"), failures=1)
    with pytest.raises(Fatal):
        asyncio.run(app._until_done(store.insert, "truth", {}))
    assert store.done == []


def test_bad_message_alone_is_a_dead_letter(with_monitor):
    async def work(monitor, over):
        monitor.store, monitor.dead_letters = Server(), Server()
        await monitor._keep([Message()])
        return monitor.store.done, monitor.dead_letters.done

    stored, [letter] = with_monitor(work)
    assert stored == []
    assert letter["value"] == b"junk"
    assert letter["headers"]["role"] == b"monitor"


def test_alert_that_could_not_be_stored_is_sent_later(with_monitor):
    async def work(monitor, over):
        monitor.watch = monitor.store = Server(Retryable("away"), failures=1)
        monitor.alerts = Server()
        monitor.unsent = [app.Alert(rule="misrouted", ts=0, severity="error", message="m")]
        await monitor._look()
        before = list(monitor.alerts.done)
        await monitor._look()
        await monitor._look()
        return before, monitor.alerts.done

    before, after = with_monitor(work)
    assert before == []
    assert [sent["key"] for sent in after] == [b"misrouted"]


def test_watching_that_fails_for_good_ends_the_monitor(with_monitor):
    async def work(monitor, over):
        monitor.watch = monitor.store = Server(Fatal("no such table"), failures=1)
        monitor.unsent = [app.Alert(rule="misrouted", ts=0, severity="error", message="m")]
        with pytest.raises(Fatal):
            await monitor._look()
        with pytest.raises(Fatal, match="no such table"):
            await over

    with_monitor(work)


def test_failing_agent_ends_the_monitor(with_monitor):
    class Stream:
        async def noack_take(self, count, within):
            raise Fatal("wrong password")
            yield

    async def work(monitor, over):
        with pytest.raises(Fatal):
            await monitor._outcomes(Stream())
        with pytest.raises(Fatal, match="wrong password"):
            await over

    with_monitor(work)


def test_nothing_is_acknowledged_before_it_is_stored(with_monitor):
    order = []

    class Stream:
        async def noack_take(self, count, within):
            yield [type("Event", (), {"message": Message()})]

        async def ack(self, event):
            order.append("ack")

    async def work(monitor, over):
        async def keep(messages):
            order.append("keep")

        monitor._keep = keep
        await monitor._outcomes(Stream())

    with_monitor(work)
    assert order == ["keep", "ack"]


def test_first_reason_to_end_stands():
    async def work():
        over = asyncio.get_running_loop().create_future()
        app._finish(over, Fatal("first"))
        app._finish(over)
        with pytest.raises(Fatal, match="first"):
            await over

    asyncio.run(work())


def test_every_bootstrap_address_is_used():
    monitored = app._app(Kafka(bootstrap="a:1, b:2"))
    assert [str(url) for url in monitored.conf.broker] == ["kafka://a:1", "kafka://b:2"]


def test_tls_and_passwords_are_translated():
    options = {"security.protocol": "sasl_ssl", "sasl.mechanisms": "SCRAM-SHA-512", "sasl.username": "u"}
    got = credentials(options | {"sasl.password": "p"})
    assert (got.username, got.password, got.mechanism.value) == ("u", "p", "SCRAM-SHA-512")
    assert isinstance(got.ssl_context, ssl.SSLContext)
    assert credentials({"security.protocol": "SSL"}).context.check_hostname


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ssl.endpoint.identification.algorithm": "none"}, "ssl.endpoint.identification.algorithm"),
        ({"security.protocol": "TLS"}, "TLS"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"}, "GSSAPI"),
        ({"security.protocol": "SSL", "ssl.ca.location": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_security_that_cannot_be_honoured_is_refused(options, said):
    with pytest.raises(SettingsError, match=said):
        credentials(options)
