"""What somebody outside sees of a running stack: every click is answered, and everything is counted."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import Any

import pytest

from stream.messages import Slate, slate_decoder
from tests.integration.outside import Arrived, Client, Place, Reader, Up, now_ms, until

ITEMS = [f"live-{k}" for k in range(60)]
UNAVAILABLE = {item for k, item in enumerate(ITEMS) if k % 10 == 0}
CUBE = ("impressions", "clicks", "carts", "purchases", "revenue")


@pytest.fixture(scope="module")
def client(stack: Up) -> Client:
    """Somebody whose catalogue is known to the stack."""
    client = stack.client
    for k, item in enumerate(ITEMS):
        client.item(item, category=f"c{k % 5}", price=1.0 + k, available=item not in UNAVAILABLE)
    client.flush()
    known = "SELECT max(value) AS n FROM gauges WHERE gauge = 'catalogue'"
    until(lambda: client.ask(known)[0]["n"] >= len(ITEMS), 20, lambda: stack.said)
    return client


def answer(reader: Reader, user: str, place: Place) -> Arrived:
    """The first slate of a visitor that reflects the event at `place`."""
    for one in list(reader.arrived):
        if one.key == user.encode() and one.value is not None:
            event = slate_decoder.decode(one.value).event
            if event.partition == place.partition and event.offset >= place.offset:
                return one
    raise LookupError


def answered(reader: Reader, user: str, place: Place) -> Arrived | None:
    try:
        return answer(reader, user, place)
    except LookupError:
        return None


def slates(reader: Reader) -> list[Slate]:
    return [slate_decoder.decode(one.value or b"") for one in reader.arrived]


def test_every_click_is_answered_by_a_slate_that_reflects_it(stack: Up, client: Client) -> None:
    waited = []
    with Reader(client, "recommendations") as reader:
        for n in range(100):
            user, shown = f"anna-{n % 15}", ITEMS[n % 50 : n % 50 + 10]
            client.event("impression", user, items=shown)
            client.flush()
            began = time.monotonic()
            place = client.event("click", user, item_id=shown[n % 10])
            client.flush()
            found = until(lambda u=user, p=place[0]: answered(reader, u, p), 5, lambda: stack.said)
            waited.append(1000 * (found.at - began))
        seen = slates(reader)
    waited.sort()
    print(f"click to slate: p50 {waited[50]:.0f} ms, p99 {waited[98]:.0f} ms")
    for slate in seen:
        items = [item.item_id for item in slate.items]
        assert len(items) == 10
        assert len(set(items)) == 10
        assert not set(items) & UNAVAILABLE
        assert slate.expires > slate.ts


def test_a_burst_of_clicks_leaves_everybody_with_a_slate_that_reflects_the_last(
    stack: Up, client: Client
) -> None:
    last = {}
    with Reader(client, "recommendations") as reader:
        for n in range(600):
            last[f"bert-{n % 40}"] = client.event("click", f"bert-{n % 40}", item_id=ITEMS[n % 60])
        client.flush()
        for user, place in last.items():
            until(lambda u=user, p=place[0]: answered(reader, u, p), 10, lambda: stack.said)


def test_what_is_dismissed_bought_or_gone_is_never_recommended_again(stack: Up, client: Client) -> None:
    with Reader(client, "recommendations") as reader:
        barred: dict[str, dict[str, Place]] = defaultdict(dict)
        for n in range(8):
            user = f"cara-{n}"
            for kind, item in (
                ("dismiss", ITEMS[n + 1]),
                ("purchase", ITEMS[n + 21]),
                ("click", ITEMS[n + 2]),
            ):
                place = client.event(kind, user, item_id=item)
                client.flush()
                if kind != "click" and item not in UNAVAILABLE:
                    barred[user][item] = place[0]
        client.send("items", None, ITEMS[39].encode())
        client.item(ITEMS[38], available=False)
        client.flush()
        time.sleep(0.5)
        places = {f"cara-{n}": client.event("click", f"cara-{n}", item_id=ITEMS[n + 3]) for n in range(8)}
        client.flush()
        for user, place in places.items():
            until(lambda u=user, p=place[0]: answered(reader, u, p), 5, lambda: stack.said)
        for slate in slates(reader):
            shown = {item.item_id for item in slate.items}
            for item, place in barred[slate.user_id].items():
                assert item not in shown or slate.event.offset < place.offset
            if slate.user_id in places and slate.event.offset >= places[slate.user_id][0].offset:
                assert not shown & {ITEMS[38], ITEMS[39]}


def counted(client: Client, where: str, by: str = "position") -> dict[Any, tuple[float, ...]]:
    """Sums of the view `ctr`."""
    sums = ", ".join(f"sum({name}) AS {name}_" for name in CUBE)
    rows = client.ask(f"SELECT {by} AS k, {sums} FROM ctr WHERE {where} GROUP BY k")
    return {row["k"]: tuple(row[f"{name}_"] for name in CUBE) for row in rows}


def test_the_view_counts_what_was_published_per_position(client: Client) -> None:
    want = defaultdict(lambda: [0, 0, 0, 0, 0.0])
    for n in range(120):
        user, shown = f"dora-{n}", ITEMS[n % 40 : n % 40 + 3 + n % 8]
        client.event("impression", user, items=shown, surface="count")
        for position in range(1, len(shown) + 1):
            want[position][0] += 1
        position = 1 + n % len(shown)
        for column, kind in enumerate(("click", "cart", "purchase")[: n % 4], 1):
            paid = {"price": 2.5, "quantity": 3} if kind == "purchase" else {}
            client.event(kind, user, item_id=shown[position - 1], **paid)
            want[position][column] += 1
            want[position][4] += 7.5 * (kind == "purchase")
    client.flush()
    expected = {position: tuple(values) for position, values in want.items()}
    until(
        lambda: counted(client, "surface = 'count'") == expected, 10, lambda: (expected, counted(client, "1"))
    )


def test_traffic_of_one_partition_is_counted_within_seconds(client: Client) -> None:
    for _ in range(7):
        client.event("impression", "emil", items=ITEMS[:2], surface="alone")
    client.event("click", "emil", item_id=ITEMS[1])
    client.flush()
    expected = {1: (7, 0, 0, 0, 0.0), 2: (7, 1, 0, 0, 0.0)}
    until(lambda: counted(client, "surface = 'alone'") == expected, 10, lambda: counted(client, "1"))


def test_feedback_counts_in_its_own_second_under_its_impressions_arm_and_position(
    stack: Up, client: Client
) -> None:
    users = [f"fred-{n}" for n in range(12)]
    with Reader(client, "recommendations") as reader:
        places = {user: client.event("click", user, item_id=ITEMS[1]) for user in users}
        client.flush()
        for user, place in places.items():
            until(lambda u=user, p=place[0]: answered(reader, u, p), 5, lambda: stack.said)
        own = {slate.user_id: slate for slate in slates(reader) if slate.user_id in places}
    traces = {slate.arm: slate.trace for slate in own.values()}
    assert set(traces) == {"fresh", "popularity"}
    second, want = now_ms() // 1000 - 60, Counter[tuple[str, int, str]]()
    for n, user in enumerate(users):
        # half of them say that they were shown another arm's slate
        arm = own[user].arm if n % 2 else next(a for a in traces if a != own[user].arm)
        said = {"trace": traces[arm]} if n % 2 == 0 else {}
        client.event("impression", user, ts=1000 * second, items=ITEMS[5:9], surface="arms", **said)
        client.event("click", user, ts=1000 * (second + 20) + n, item_id=ITEMS[7])
        want[arm, second, "impressions"] += 4
        want[arm, second + 20, "clicks"] += 1
    client.flush()
    sql = (
        "SELECT arm, toUnixTimestamp(time) AS s, sum(impressions) AS i, sum(clicks) AS c, max(position) AS p "
        "FROM ctr WHERE surface = 'arms' GROUP BY arm, s"
    )

    def got() -> Counter[tuple[str, int, str]]:
        found = Counter[tuple[str, int, str]]()
        for row in client.ask(sql):
            found[row["arm"], row["s"], "impressions"] += row["i"]
            found[row["arm"], row["s"], "clicks"] += row["c"]
        return +found

    until(lambda: got() == want, 10, lambda: (want, got()))
    assert {row["p"] for row in client.ask(f"{sql} HAVING c > 0")} == {3}


def test_a_repeated_event_counts_once(client: Client) -> None:
    before = client.health().get("repeated", 0)
    for _ in range(3):
        client.event("impression", "gina", items=ITEMS[:1], surface="again", event_id="gina-1")
        client.event("purchase", "gina", item_id=ITEMS[0], price=5.0, event_id="gina-2")
    client.flush()
    expected = {1: (1, 0, 0, 1, 5.0)}
    until(lambda: client.health().get("repeated", 0) == before + 4, 10, client.health)
    assert counted(client, "surface = 'again'") == expected
