from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.ids import ENVELOPE, FRESH, RESERVED, Hashes, Ids, Routes, hash_id
from stream.partition import partition_of


@given(st.text())
def test_a_hash_is_64_bits_and_not_reserved(name: str) -> None:
    assert RESERVED <= hash_id(name) < 1 << 64


def test_even_a_lone_surrogate_has_a_hash() -> None:
    assert hash_id("\ud800") != hash_id("\ud801")


def test_a_memory_of_hashes_is_bounded() -> None:
    hashes = Hashes(limit=10)
    assert all(hashes[f"name-{i}"] == hash_id(f"name-{i}") for i in range(100))
    assert len(hashes) <= 10


def test_fresh_names_outlive_the_memory_of_their_hashes() -> None:
    ids = Ids(limit=10)
    names = [f"name-{i}" for i in range(35)]
    codes = [ids[name] for name in names]
    assert ids.take_fresh(10**6) == dict(zip(codes, names, strict=True))


def test_fresh_names_that_nobody_takes_are_forgotten_oldest_first_and_new_again_later() -> None:
    ids = Ids(limit=10)
    names = [f"name-{i}" for i in range(95)]
    for name in names:
        ids[name]
    assert list(ids.fresh.values()) == names[-FRESH * 10 :]
    ids[names[0]]
    assert list(ids.take_fresh(10**6).values()) == [*names[1 - FRESH * 10 :], names[0]]


def test_fresh_names_that_do_not_fit_wait() -> None:
    ids = Ids(limit=100)
    for name in ("aaaa", "bbbb", "cccc"):
        ids[name]
    two = 2 * (ENVELOPE + 4 * 4)
    assert list(ids.take_fresh(two).values()) == ["aaaa", "bbbb"]
    assert list(ids.take_fresh(two).values()) == ["cccc"]
    assert ids.take_fresh(two) == {}


def test_a_route_is_that_of_javas_partitioner_and_remembered_within_bounds() -> None:
    routes = Routes(partitions=7, limit=10)
    users = [f"user-{i}" for i in range(50)] + ["ü", "\ud800"]
    assert [routes[u] for u in users] == [partition_of(u.encode("utf-8", "surrogatepass"), 7) for u in users]
    assert len(routes) <= 10
