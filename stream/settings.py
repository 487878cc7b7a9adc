"""Every setting, once, with its default: one frozen tree from `liverank.toml` and `LIVERANK_*`.

A variable is named after section and key (``LIVERANK_KAFKA_BOOTSTRAP``) and wins over the file;
its value is read as TOML where that parses, else as text. Secrets come from variables only.

>>> load(None, {"LIVERANK_KAFKA_PARTITIONS": "8"}).kafka.partitions
8
>>> load(None, {"LIVERANK_KAFKA_PARTITION": "8"})
Traceback (most recent call last):
stream.errors.SettingsError: LIVERANK_KAFKA_PARTITION: no such setting; [kafka] has bootstrap, options, ...
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta, Struct

from models.batch import Shape
from stream.errors import SettingsError
from stream.messages import STRANGERS, TOPICS

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=3e9)]
Share = Annotated[float, Meta(ge=0, le=1)]

PREFIX = "LIVERANK_"
SECRETS = {("clickhouse", "password"), ("slate", "trace_secret")}
ONE_PARTITION = ("items", "model", "alerts", "dead-letters")
"""Topics that everybody reads whole, or that are rare."""

SECRET_OPTIONS = ("password", "secret", "key.pem")


class Secret(str):
    """Text that does not show itself.

    >>> Secret("hunter2")
    '***'
    """

    def __repr__(self) -> str:
        return "'***'" if self else "''"


class _Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the settings file."""


class Kafka(_Section, frozen=True):
    """How to reach the brokers; `options` are librdkafka's, by their own names."""

    bootstrap: str = "127.0.0.1:9092"
    prefix: str = "liverank."
    partitions: Annotated[int, Meta(ge=1, le=1024)] = 4
    replication: Annotated[int, Meta(ge=1, le=32)] = 1
    session_timeout_ms: Annotated[int, Meta(ge=1000)] = 6000
    options: dict[str, str | int | float | bool] = {}

    def topic(self, name: str) -> str:
        """Full name of one of `messages.TOPICS`.

        >>> Kafka().topic("events")
        'liverank.events'
        """
        return self.prefix + name

    def counts(self) -> dict[str, int]:
        """Partitions of every topic, by name without prefix.

        >>> Kafka(partitions=8).counts()["examples"], Kafka(partitions=8).counts()["model"]
        (8, 1)
        """
        return {name: 1 if name in ONE_PARTITION else self.partitions for name in TOPICS}

    def __repr__(self) -> str:
        shown = {k: "***" if any(s in k for s in SECRET_OPTIONS) else v for k, v in self.options.items()}
        return f"Kafka(bootstrap={self.bootstrap!r}, prefix={self.prefix!r}, options={shown!r})"


class ClickHouse(_Section, frozen=True):
    """How to reach ClickHouse over HTTP."""

    url: str = "http://127.0.0.1:8123"
    database: str = "liverank"
    user: str = "default"
    password: str = Secret("")
    ttl_days: Positive = 30


class Checkpoints(_Section, frozen=True):
    """Where state is kept, and how often it is written (whichever limit comes first)."""

    path: str = ".liverank/checkpoints"
    seconds: Seconds = 5.0
    events: Positive = 20_000


class Features(_Section, frozen=True):
    """What rank remembers of each visitor, and how many acts without a list it makes examples of.

    `next_per_second`: at most so many in each second of event time and partition. `events_per_s`: who
    sends more for 20 s is a bot; people do not send 5, but who loads a past may send it for a few visitors.
    """

    history: Annotated[int, Meta(ge=4, le=256)] = 32
    lists: Annotated[int, Meta(ge=1, le=64)] = 8
    users: Annotated[int, Meta(ge=8192)] = 1_000_000
    items: Positive = 1_000_000
    session_gap_s: Seconds = 1800.0
    list_window_s: Seconds = 3600.0
    event_id_window_s: Seconds = 600.0
    max_ahead_s: Seconds = 300.0
    next_per_second: Annotated[int, Meta(ge=0, le=10_000)] = 20
    events_per_s: Annotated[float, Meta(gt=0, le=1e6)] = 100.0


class SlateSettings(_Section, frozen=True):
    """How slates are built.

    Parameters
    ----------
    explore
        With this probability one place of a slate, any, gets an item drawn from the best `explore_top` that
        could stand there. At 0.05 with 10 places that costs at most 0.5% of the clicks, and without it
        nothing is ever learned of what the model does not believe in already. Arms may have their own.
    seed
        Of what is drawn.
    """

    size: Annotated[int, Meta(ge=1, le=100)] = 10
    candidates: Annotated[int, Meta(ge=10, le=2000)] = 200
    expires_s: Seconds = 86_400.0
    exclude_purchased: bool = True
    explore: Share = 0.05
    explore_top: Annotated[int, Meta(ge=2, le=1000)] = 10
    seed: int = 0
    trace_secret: str = Secret("liverank")


class Arm(_Section, frozen=True):
    """One arm of the experiment: its share of users, who ranks for it, how much it explores."""

    name: Annotated[str, Meta(pattern="^[a-z0-9_-]{1,32}$")]
    share: Annotated[float, Meta(gt=0, le=1)]
    model: Annotated[str, Meta(pattern="^(fresh|frozen|popularity)$")]
    explore: Share | None = None


class Train(_Section, frozen=True):
    """What is learned and how fast.

    Parameters
    ----------
    shadows
        One visitor in so many is also predicted by older models, to tell what freshness buys; 0: none is.
    """

    device: Annotated[str, Meta(pattern="^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"
    bfloat16: bool = False
    cuda_graphs: bool = False
    seed: int = 0
    rows: Annotated[int, Meta(ge=2048)] = 100_000
    width: Annotated[int, Meta(ge=4, le=512)] = 32
    hidden: Annotated[int, Meta(ge=8, le=4096)] = 32
    lists_per_batch: Positive = 32
    replay: Annotated[int, Meta(ge=0, le=64)] = 4
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 0.0015
    policy: Annotated[str, Meta(pattern="^(full|sparse|head|lora|dynamic)$")] = "full"
    buffer_lists: Positive = 100_000
    delayed: Annotated[str, Meta(pattern="^(naive|wait|fnw|fnc)$")] = "fnw"
    click_wait_s: Seconds = 15.0
    conversion_wait_s: Seconds = 600.0
    evaluate_after_s: Seconds = 30.0
    publish_s: Seconds = 1.0
    snapshot_s: Seconds = 15.0
    frozen_after_s: Seconds = 60.0
    shadows: Annotated[int, Meta(ge=0)] = 20
    half_life_short_s: Seconds = 3600.0
    half_life_long_s: Seconds = 86_400.0
    pair_half_life_s: Seconds = 3600.0
    near_half_life_s: Seconds = 2_592_000.0
    history_half_life_s: Seconds = 21_600.0


class Monitor(_Section, frozen=True):
    """How often metrics are stored and watched."""

    flush_s: Seconds = 0.25
    watch_s: Seconds = 1.0


THREE_ARMS = (
    Arm(name="fresh", share=0.34, model="fresh"),
    Arm(name="frozen", share=0.33, model="frozen"),
    Arm(name="popularity", share=0.33, model="popularity"),
)


class Settings(_Section, frozen=True):
    """The whole tree; `arms` shares add up to 1."""

    kafka: Kafka = Kafka()
    clickhouse: ClickHouse = ClickHouse()
    checkpoints: Checkpoints = Checkpoints()
    features: Features = Features()
    slate: SlateSettings = SlateSettings()
    train: Train = Train()
    monitor: Monitor = Monitor()
    arms: Annotated[tuple[Arm, ...], Meta(max_length=16)] = (Arm(name="fresh", share=1.0, model="fresh"),)


def shape_of(settings: Settings) -> Shape:
    """Sizes and half-lives that train, rank and their messages must agree on.

    >>> shape_of(Settings(train=Train(width=16))).width
    16
    """
    train = settings.train
    return Shape(
        rows=train.rows,
        width=train.width,
        hidden=train.hidden,
        history=settings.features.history,
        half_life_short=train.half_life_short_s,
        half_life_long=train.half_life_long_s,
        pair_half_life=train.pair_half_life_s,
        near_half_life=train.near_half_life_s,
        history_half_life=train.history_half_life_s,
    )


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Read the settings file, if there is one, and the `LIVERANK_*` variables.

    Parameters
    ----------
    path
        The TOML file; None reads none.
    environ
        The environment.

    Raises
    ------
    SettingsError
        Naming the key, where it stands, and what is allowed.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text())
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: not valid TOML: {error}") from None
        _refuse_secrets(tree, path)
        _check(tree, str(path))
    for name, text in sorted(environ.items()):
        if name.startswith(PREFIX):
            _set(tree, name, text)
    return _check(tree, "settings")


def _sections() -> dict[str, type[_Section]]:
    hints = get_type_hints(Settings)
    return {key: kind for key, kind in hints.items() if isinstance(kind, type) and issubclass(kind, _Section)}


def _refuse_secrets(tree: dict[str, Any], path: Path) -> None:
    for section, key in SECRETS:
        if isinstance(tree.get(section), dict) and key in tree[section]:
            variable = f"{PREFIX}{section}_{key}".upper()
            raise SettingsError(f"{path}: [{section}] {key} is a secret: set it by {variable} instead")
    options = tree.get("kafka", {}).get("options", {}) if isinstance(tree.get("kafka"), dict) else {}
    for key in options:
        if any(s in key for s in SECRET_OPTIONS):
            raise SettingsError(
                f"{path}: [kafka.options] {key} is a secret: set it by {PREFIX}KAFKA_OPTIONS, "
                f"""for example {PREFIX}KAFKA_OPTIONS='{{"{key}" = "..."}}'"""
            )


def _set(tree: dict[str, Any], name: str, text: str) -> None:
    """Put one variable into the tree, checking it alone so that an error can name it."""
    rest = name[len(PREFIX) :].lower()
    section = next((s for s in _sections() if rest.startswith(s + "_")), None)
    if section is None:
        raise SettingsError(f"{name}: no such setting; sections are {', '.join(_sections())}")
    key = rest[len(section) + 1 :]
    fields = _sections()[section].__struct_fields__
    if key not in fields:
        raise SettingsError(f"{name}: no such setting; [{section}] has {', '.join(sorted(fields))}")
    value = text if get_type_hints(_sections()[section]).get(key) is str else _parse(text)
    _check({section: {key: value}}, name)
    if isinstance(value, dict):
        value = {**tree.get(section, {}).get(key, {}), **value}
    tree.setdefault(section, {})[key] = Secret(value) if (section, key) in SECRETS else value


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def _check(tree: dict[str, Any], source: str) -> Settings:
    try:
        settings = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: {_explain(str(error), tree)}") from None
    total = sum(arm.share for arm in settings.arms)
    if abs(total - 1) > 1e-6 or len({arm.name for arm in settings.arms}) != len(settings.arms):
        raise SettingsError(f"{source}: arms need different names and shares that add up to 1, not {total:g}")
    if any(arm.name == STRANGERS for arm in settings.arms):
        raise SettingsError(f"{source}: no arm can be named {STRANGERS}, as the slate for strangers is")
    return settings


def _explain(error: str, tree: dict[str, Any]) -> str:
    """Add the value that was given, or the keys that are allowed, to what msgspec says."""
    message, _, where = error.rpartition(" - at `$.")
    keys = where.rstrip("`").split(".") if message else []
    section = _sections().get(keys[0]) if keys else Settings
    if "unknown field" in error:
        allowed = ", ".join(sorted((section or Arm).__struct_fields__))
        return f"{f'[{keys[0]}] ' if keys else ''}{(message or error)}; allowed: {allowed}"
    value: Any = tree
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return (
        f"[{keys[0]}] {'.'.join(keys[1:])} = {value!r}: {message[:1].lower() + message[1:]}"
        if keys
        else error
    )
