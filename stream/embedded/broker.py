"""A Kafka broker in this process: librdkafka's own mock cluster, by its public C functions.

``python -m stream.embedded.broker --topics events:4,model:1`` prints one line of JSON when it
is ready, with the address, and serves until it is ended; the log ends with it. The cluster
keeps 5 MiB or 100,000 message sets per partition, has no compaction, and cannot create topics on
request: those that nobody named here get 4 partitions when they are first asked for.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import sys
from collections.abc import Mapping
from ctypes import c_char_p, c_int, c_int32, c_size_t, c_void_p
from typing import Any

from stream.errors import Fatal

_PRODUCER = 0
"""`RD_KAFKA_PRODUCER`: the kind of client that owns the cluster."""

_NO_ERROR = 0
"""`RD_KAFKA_RESP_ERR_NO_ERROR`"""

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (c_void_p, []),
    "rd_kafka_conf_set": (c_int, [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]),
    "rd_kafka_new": (c_void_p, [c_int, c_void_p, c_char_p, c_size_t]),
    "rd_kafka_err2str": (c_char_p, [c_int]),
    "rd_kafka_mock_cluster_new": (c_void_p, [c_void_p, c_int]),
    "rd_kafka_mock_cluster_bootstraps": (c_char_p, [c_void_p]),
    "rd_kafka_mock_topic_create": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [c_void_p, c_int32]),
    "rd_kafka_mock_set_group_consumer_heartbeat_interval_ms": (None, [c_void_p, c_int]),
    "rd_kafka_mock_set_group_consumer_session_timeout_ms": (None, [c_void_p, c_int]),
}


class EmbeddedBroker:
    """One broker on a random port of the loopback interface, for as long as the process lives.

    Parameters
    ----------
    topics
        Full names and their partitions.

    Raises
    ------
    Fatal
        When the librdkafka that confluent-kafka loads lacks the mock cluster, or refuses a topic.
    """

    def __init__(self, topics: Mapping[str, int]) -> None:
        self._library = _load()
        error = ctypes.create_string_buffer(512)
        conf = self._call("rd_kafka_conf_new")
        # warnings only: the notice that this client knows no broker is no news
        self._call("rd_kafka_conf_set", conf, b"log_level", b"4", error, len(error))
        client = self._call("rd_kafka_new", _PRODUCER, conf, error, len(error))
        if not client:
            raise Fatal(f"the embedded broker did not start: {error.value.decode()}")
        self._cluster = self._call("rd_kafka_mock_cluster_new", client, 1)
        if not self._cluster:
            raise Fatal("the embedded broker did not start: no port of 127.0.0.1 could be opened")
        # a first member need not wait for others, and one that died is noticed in 2 s, not in 30
        self._call("rd_kafka_mock_group_initial_rebalance_delay_ms", self._cluster, 0)
        self._call("rd_kafka_mock_set_group_consumer_heartbeat_interval_ms", self._cluster, 300)
        self._call("rd_kafka_mock_set_group_consumer_session_timeout_ms", self._cluster, 2000)
        for name, partitions in topics.items():
            self._create(name, partitions)

    @property
    def bootstrap(self) -> str:
        """Address for clients, as ``host:port``."""
        address: bytes = self._call("rd_kafka_mock_cluster_bootstraps", self._cluster)
        return address.decode()

    def _create(self, name: str, partitions: int) -> None:
        code = self._call("rd_kafka_mock_topic_create", self._cluster, name.encode(), partitions, 1)
        if code != _NO_ERROR:
            reason: bytes = self._call("rd_kafka_err2str", code)
            raise Fatal(f"the embedded broker refused topic {name}:{partitions}: {reason.decode()}")

    def _call(self, name: str, *arguments: Any) -> Any:
        return getattr(self._library, name)(*arguments)


def _load() -> ctypes.CDLL:
    """librdkafka, as confluent-kafka brings it.

    Looking a symbol up in an extension module also looks in the libraries that it is linked to:
    this finds the bundled one on every platform, whatever its file is called.
    """
    try:
        from confluent_kafka import cimpl

        library = ctypes.CDLL(cimpl.__file__)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (ImportError, OSError, AttributeError) as error:
        raise Fatal(
            f"the embedded broker needs the librdkafka that confluent-kafka's wheels bring: {error}; "
            "reinstall confluent-kafka from PyPI, or set [kafka] bootstrap to a broker of your own"
        ) from error
    return library


def parse_topics(text: str) -> dict[str, int]:
    """Read ``name:partitions,...``.

    Raises
    ------
    ValueError
        When a part does not read so.

    Examples
    --------
    >>> parse_topics("events:4,model:1")
    {'events': 4, 'model': 1}
    """
    pairs = (part.rpartition(":") for part in text.split(",") if part)
    topics = {name: int(count) for name, _, count in pairs}
    if not all(name and count > 0 for name, count in topics.items()):
        raise ValueError(f"{text}: each topic needs a name and at least one partition")
    return topics


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m stream.embedded.broker", description=__doc__)
    parser.add_argument("--topics", type=parse_topics, default={}, metavar="NAME:PARTITIONS,...")
    arguments = parser.parse_args()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_DFL)
    try:
        broker = EmbeddedBroker(arguments.topics)
    except Fatal as error:
        sys.exit(str(error))
    print(json.dumps({"ready": True, "bootstrap": broker.bootstrap}), flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
