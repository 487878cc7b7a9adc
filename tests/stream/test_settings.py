from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from stream.errors import SettingsError
from stream.settings import PREFIX, Secret, Settings, load, shape_of

FILE = """
[kafka]
partitions = 8
options = { "linger.ms" = 2 }

[features]
session_gap_s = 60

[[arms]]
name = "fresh"
share = 0.5
model = "fresh"

[[arms]]
name = "old"
share = 0.5
model = "frozen"
"""


def _load(text: str = "", path: Path | None = None, **environ: str) -> Settings:
    file = None
    if path is not None:
        file = path / "liverank.toml"
        file.write_text(text)
    return load(file, {PREFIX + name: value for name, value in environ.items()})


def _refusal(text: str = "", path: Path | None = None, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        _load(text, path, **environ)
    return str(caught.value)


def test_without_file_and_variables_it_is_the_defaults() -> None:
    assert load(None, {"HOME": "/root"}) == Settings()


def test_a_file_is_read(tmp_path: Path) -> None:
    settings = _load(FILE, tmp_path)
    assert (settings.kafka.partitions, settings.kafka.options) == (8, {"linger.ms": 2})
    assert settings.features.session_gap_s == 60.0
    assert isinstance(settings.features.session_gap_s, float)
    assert [arm.name for arm in settings.arms] == ["fresh", "old"]


def test_a_variable_wins_over_the_file(tmp_path: Path) -> None:
    settings = _load(FILE, tmp_path, KAFKA_PARTITIONS="2", KAFKA_OPTIONS='{ "acks" = "all" }')
    assert settings.kafka.partitions == 2
    assert settings.kafka.options == {"linger.ms": 2, "acks": "all"}


def test_text_stays_text_though_it_looks_like_a_number() -> None:
    settings = _load(KAFKA_PREFIX="5", CLICKHOUSE_PASSWORD="123")
    assert (settings.kafka.prefix, settings.clickhouse.password) == ("5", "123")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("kafka = 1", ["[kafka]", "object"]),
        ("[kafka]\nport = 1", ["[kafka]", "`port`", "allowed: bootstrap"]),
        ("cafe = 1", ["`cafe`", "allowed: arms"]),
        ("[kafka]\npartitions = 0", ["[kafka] partitions = 0", ">= 1"]),
        ("[kafka]\npartitions = 'many'", ["partitions = 'many'", "`int`"]),
        ("[features]\nsession_gap_s = inf", ["session_gap_s = inf"]),
        ("[features]\nsession_gap_s = nan", ["session_gap_s = nan"]),
        ("[features]\nsession_gap_s = -1", ["session_gap_s = -1"]),
        ("[clickhouse]\npassword = 'x'", ["secret", "LIVERANK_CLICKHOUSE_PASSWORD"]),
        ("[slate]\ntrace_secret = 'x'", ["secret", "LIVERANK_SLATE_TRACE_SECRET"]),
        ("[kafka.options]\n'sasl.password' = 'x'", ["sasl.password is a secret", "LIVERANK_KAFKA_OPTIONS"]),
        ("arms = []", ["add up to 1"]),
        ("arms = [{ name = 'a', share = 0.5, model = 'fresh' }]", ["add up to 1, not 0.5"]),
        ("arms = [{ name = 'A', share = 1, model = 'fresh' }]", ["name"]),
        ("arms = [{ name = 'a', share = 1, model = 'best' }]", ["model"]),
        ("arms = [{ name = 'a', share = 1, model = 'fresh', x = 1 }]", ["`x`"]),
        ("[kafka", ["not valid TOML"]),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = _refusal(text, tmp_path)
    assert message.startswith(str(tmp_path / "liverank.toml"))
    assert [part for part in parts if part not in message] == []


def test_two_arms_need_two_names(tmp_path: Path) -> None:
    arm = "[[arms]]\nname = 'a'\nshare = 0.5\nmodel = 'fresh'\n"
    assert "different names" in _refusal(arm * 2, tmp_path)


def test_no_arm_has_the_name_of_the_slate_for_strangers(tmp_path: Path) -> None:
    assert "default" in _refusal("[[arms]]\nname = 'default'\nshare = 1.0\nmodel = 'fresh'\n", tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load(tmp_path / "none.toml", {})
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load(tmp_path / "binary.toml", {})


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("KAFKA_PARTITION", "8", "no such setting; [kafka] has bootstrap"),
        ("CAFE_AU_LAIT", "8", "no such setting; sections are kafka"),
        ("KAFKA", "8", "no such setting"),
        ("KAFKA_PARTITIONS", "zero", "[kafka] partitions = 'zero'"),
        ("KAFKA_PARTITIONS", "0", ">= 1"),
        ("TRAIN_DEVICE", "tpu", "[train] device = 'tpu'"),
        ("TRAIN_POLICY", "some", "[train] policy = 'some'"),
    ],
)
def test_a_variable_that_is_wrong_is_named(name: str, value: str, part: str) -> None:
    message = _refusal(**{name: value})
    assert message.startswith(PREFIX + name)
    assert part in message


def test_secrets_do_not_show() -> None:
    settings = _load(
        CLICKHOUSE_PASSWORD="hush-1",
        SLATE_TRACE_SECRET="hush-2",
        KAFKA_OPTIONS='{ "sasl.password" = "hush-3" }',
    )
    assert "hush" not in repr(settings)
    assert "hush" not in str(msgspec.structs.asdict(settings))
    assert settings.clickhouse.password == "hush-1"
    assert repr(Secret("")) == "''"


def test_every_setting_can_be_set_by_a_variable() -> None:
    for section, kind in ((s, getattr(Settings(), s)) for s in Settings.__struct_fields__ if s != "arms"):
        for key in kind.__struct_fields__:
            value = getattr(kind, key)
            text = "{}" if value == {} else str(value).lower() if isinstance(value, bool) else str(value)
            assert getattr(getattr(_load(**{f"{section}_{key}".upper(): text}), section), key) == value


def test_rank_and_train_get_one_shape() -> None:
    shape = shape_of(_load(TRAIN_WIDTH="8", FEATURES_HISTORY="4", TRAIN_HALF_LIFE_SHORT_S="60"))
    assert (shape.width, shape.history, shape.half_life_short) == (8, 4, 60.0)


def test_an_arm_explores_as_the_slates_do_unless_it_says_otherwise(tmp_path: Path) -> None:
    arms = _load(FILE.replace('model = "fresh"', 'model = "fresh"\nexplore = 0.2'), tmp_path).arms
    assert [arm.explore for arm in arms] == [0.2, None]
    assert "explore" in _refusal(FILE + "explore = 1.5", tmp_path)
