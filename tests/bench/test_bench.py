"""The benches still run; what they measure is nobody's business here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from stream.settings import Kafka
from tests.bench.__main__ import main
from tests.bench.measure import Context, Figure, Skip, Spent, alternate, rates
from tests.bench.servers import real_broker

CHEAP = ("score", "delta", "ingest")


def test_benches_run_and_say_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CHEAP, "--quick", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["machine"]["cores"] >= 1
    for name in CHEAP:
        assert said["benches"][name]["figures"]
        for figure in said["benches"][name]["figures"]:
            assert figure["ours"] > 0
            assert figure["other"] > 0
            assert math.isclose(figure["ratio"], figure["ours"] / figure["other"])


def test_a_bench_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["warp"])
    assert "no bench 'warp'; there are ingest, score" in capsys.readouterr().err


def test_kafka_is_skipped_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KAFKA_START", str(tmp_path / "none"))
    with pytest.raises(Skip, match="KAFKA_START"), real_broker(Kafka(), tmp_path):
        pass


def test_a_skipped_bench_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def skip(context: Context) -> list[Figure]:
        raise Skip("not here")

    monkeypatch.setattr("tests.bench.kafka.run", skip)
    assert main(["kafka", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benches"] == {"kafka": {"skipped": "not here"}}


def test_ways_are_measured_in_turns_and_the_first_does_not_count() -> None:
    order: list[str] = []

    def way(name: str) -> Spent:
        order.append(name)
        return Spent(len(order), 0.0)

    ours, other = alternate(3, [lambda: way("ours"), lambda: way("other")])
    assert order == ["ours", "other"] * 4
    assert (ours.wall, other.wall) == (5, 6)


def test_rates_are_per_second_and_per_million() -> None:
    speed, cost = rates("x", "events", 1000, Spent(2.0, 1.0), "other", Spent(1.0, 0.5))
    assert (speed.ours, speed.other, speed.ratio) == (500, 1000, 0.5)
    assert (cost.ours, cost.other, cost.ratio) == (1000, 500, 2)
