"""Hand a whole settings tree to a child process: a file for what may be in one, variables for secrets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stream.settings import PREFIX, SECRETS, Settings


def hand_over(settings: Settings, path: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Write `settings` to `path` and return the environment for a child that reads it.

    What the user has set by variables is in `settings` already, so the child gets no other `LIVERANK_*`
    than secrets and client options.

    Examples
    --------
    >>> import tempfile
    >>> from stream.settings import Kafka, load
    >>> tree = Settings(kafka=Kafka(bootstrap="b:1", options={"sasl.password": "x"}))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     file = Path(directory, "settings.toml")
    ...     environment = hand_over(tree, file, {"PATH": "/bin", "LIVERANK_KAFKA_BOOTSTRAP": "a:1"})
    ...     load(file, environment) == tree, sorted(environment)
    (True, ['LIVERANK_CLICKHOUSE_PASSWORD', 'LIVERANK_KAFKA_OPTIONS', 'LIVERANK_SLATE_TRACE_SECRET', 'PATH'])
    """
    tree: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    private = {(section, key): tree[section].pop(key) for section, key in SECRETS}
    variables = {_variable(section, key): str(value) for (section, key), value in private.items()}
    # any option may be a secret; `load` wants none in a file
    variables[_variable("kafka", "options")] = toml(tree["kafka"].pop("options"))
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in tree.items()))
    return {name: value for name, value in environ.items() if not name.startswith(PREFIX)} | variables


def toml(value: Any) -> str:
    """Plain data as a TOML value.

    TOML has no word for None: what is None is left out, and is the default again.

    >>> toml({"a b": [1.5, True, "x"], "c": None})
    '{"a b" = [1.5, true, "x"]}'
    """
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {toml(each)}" for key, each in value.items() if each is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def _variable(section: str, key: str) -> str:
    return f"{PREFIX}{section}_{key}".upper()
