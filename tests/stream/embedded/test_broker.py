"""Rules of the embedded broker's start; what it does for clients: tests/integration."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

from stream.embedded import broker
from stream.errors import Fatal


def test_it_says_where_it_is_and_has_its_topics() -> None:
    mine = broker.EmbeddedBroker({"t": 3})
    host, port = mine.bootstrap.split(":")
    assert host == "127.0.0.1"
    assert int(port) > 0


def test_a_topic_that_is_refused_is_named() -> None:
    with pytest.raises(Fatal, match="refused topic t:1"):
        broker.EmbeddedBroker({"t": 1})._create("t", 1)


def test_a_librdkafka_without_the_mock_cluster_is_fatal_and_says_how_to_mend_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with pytest.raises(Fatal, match="reinstall confluent-kafka from PyPI, or set"):
        broker.EmbeddedBroker({})


@pytest.mark.parametrize("text", ["a", "a:0", ":4", "a:x"])
def test_topics_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        broker.parse_topics(text)


def test_its_process_prints_one_line_when_it_is_ready_and_ends_when_asked() -> None:
    argv = [sys.executable, "-m", "stream.embedded.broker", "--topics", "t:1"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["ready"] is True
        process.terminate()
        assert process.communicate(timeout=5) == ("", "")
