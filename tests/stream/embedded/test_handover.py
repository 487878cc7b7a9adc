"""A child reads the settings that its parent has."""

from __future__ import annotations

from pathlib import Path

from stream.embedded.handover import hand_over
from stream.settings import THREE_ARMS, ClickHouse, Kafka, Settings, SlateSettings, Train, load


def test_every_setting_arrives(tmp_path: Path) -> None:
    tree = Settings(
        kafka=Kafka(
            prefix='qu"ote\\.', options={"sasl.password": 'a"b', "linger.ms": 2, "x.y": True, "z": 0.5}
        ),
        clickhouse=ClickHouse(password="p w", url="http://h:1"),
        slate=SlateSettings(trace_secret="s", exclude_purchased=False),
        train=Train(learning_rate=1e-5),
        arms=THREE_ARMS,
    )
    environ = hand_over(tree, tmp_path / "settings.toml", {})
    assert load(tmp_path / "settings.toml", environ) == tree


def test_no_secret_is_written_to_the_file(tmp_path: Path) -> None:
    tree = Settings(
        kafka=Kafka(options={"sasl.password": "one"}),
        clickhouse=ClickHouse(password="two"),
        slate=SlateSettings(trace_secret="three"),
    )
    environ = hand_over(tree, tmp_path / "settings.toml", {})
    text = (tmp_path / "settings.toml").read_text()
    assert not any(secret in text for secret in ("one", "two", "three"))
    assert environ["LIVERANK_CLICKHOUSE_PASSWORD"] == "two"


def test_variables_of_the_parent_do_not_win_over_its_settings(tmp_path: Path) -> None:
    environ = hand_over(Settings(), tmp_path / "s.toml", {"HOME": "/", "LIVERANK_KAFKA_BOOTSTRAP": "other:1"})
    assert "LIVERANK_KAFKA_BOOTSTRAP" not in environ
    assert environ["HOME"] == "/"
