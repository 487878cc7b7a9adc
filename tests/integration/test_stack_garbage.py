"""Garbage into every topic: a dead letter each, with its reason; nobody dies, and what is good counts."""

from __future__ import annotations

import pytest

from tests.integration import garbage
from tests.integration.outside import ROLES, Place, Reader, Up, until

KEYS = (b"u", b"\xff\xfe\x00", None, b"")


def letters(reader: Reader, topic: str) -> dict[Place, str]:
    """Reasons by the place of what was refused."""
    return {
        Place(int(one.headers["partition"]), int(one.headers["offset"])): one.headers["reason"].decode()
        for one in list(reader.arrived)
        if one.headers.get("topic") == topic.encode()
    }


def roles(up: Up) -> dict[str, int]:
    return {name: pid for name, pid in up.pids().items() if name in ROLES}


def test_garbage_in_events_is_set_aside_and_what_is_around_it_counts(stack: Up) -> None:
    client, before, alive = stack.client, stack.client.health(), roles(stack)
    good, places = 0, {}
    with Reader(client, "dead-letters") as reader:
        for n, (name, value) in enumerate(garbage.EVENTS.items()):
            client.event("impression", f"good-{n}", items=["g1", "g2"], surface="garbage")
            client.event("click", f"good-{n}", item_id="g2")
            good += 1
            partition = {"partition": n % 4}
            places[name] = client.send("events", value, KEYS[n % len(KEYS)], **partition)
        client.flush()
        until(
            lambda: len(letters(reader, "events")) >= len(places),
            20,
            lambda: [name for name, place in places.items() if place[0] not in letters(reader, "events")],
        )
        reasons = letters(reader, "events")
    assert reasons.keys() == {place[0] for place in places.values()}
    assert all(reasons.values())
    sql = "SELECT sum(impressions) AS i, sum(clicks) AS c FROM ctr WHERE surface = 'garbage'"
    until(lambda: client.ask(sql) == [{"i": 2 * good, "c": good}], 10, lambda: client.ask(sql))
    until(client.balanced, 10, client.health)
    assert client.health()["dead"] == before.get("dead", 0) + len(places)
    assert roles(stack) == alive


@pytest.mark.parametrize(
    ("topic", "values"),
    [
        ("items", garbage.ITEMS),
        ("model", garbage.MODEL),
        ("examples", garbage.EXAMPLES),
        ("outcomes", garbage.OUTCOMES),
    ],
)
def test_garbage_in_another_topic_is_set_aside(
    stack: Up, topic: str, values: dict[str, bytes | None]
) -> None:
    client, alive = stack.client, roles(stack)
    with Reader(client, "dead-letters") as reader:
        places = {name: client.send(topic, value, b"junk") for name, value in values.items()}
        client.flush()
        missing = until_all(reader, topic, {name: place[0] for name, place in places.items()})
    assert not missing
    assert roles(stack) == alive


def until_all(reader: Reader, topic: str, places: dict[str, Place]) -> list[str]:
    """Wait for the dead letters of all these; returns the names of those without."""

    def missing() -> list[str]:
        known = letters(reader, topic)
        return [name for name, place in places.items() if place not in known]

    until(lambda: not missing(), 15, missing)
    return missing()


def test_model_updates_that_do_not_fit_are_passed_over(stack: Up) -> None:
    client, alive = stack.client, roles(stack)
    for value in garbage.UNFIT_UPDATES.values():
        client.send("model", value)
    client.flush()
    with Reader(client, "recommendations") as reader:
        client.event("click", "after", item_id="g1")
        client.flush()
        until(lambda: any(one.key == b"after" for one in reader.arrived), 10, lambda: stack.said)
    assert roles(stack) == alive


def test_a_message_that_pushes_others_out_of_the_log_is_counted_as_lost(stack: Up) -> None:
    client, alive = stack.client, roles(stack)
    before = client.health().get("lost", 0)
    # the embedded broker keeps 5 MiB of a partition, and forgets the record after such a one as well
    for value in (b"\x00" * garbage.TOO_BIG, b"{}", b"{}"):
        client.send("events", value, b"k", partition=3)
    client.flush()
    until(client.balanced, 10, client.health)
    assert client.health()["lost"] > before
    assert roles(stack) == alive
