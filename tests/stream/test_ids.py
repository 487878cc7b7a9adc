from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.ids import ENVELOPE, FRESH, RESERVED, Ids, Names, Users, hash_id
from stream.partition import partition_of


@given(st.text())
def test_a_hash_is_64_bits_and_not_reserved(name: str) -> None:
    assert RESERVED <= hash_id(name) < 1 << 64


def test_even_a_lone_surrogate_has_a_hash() -> None:
    assert hash_id("\ud800") != hash_id("\ud801")


def test_a_memory_of_names_is_bounded() -> None:
    names = Names(limit=10)
    for i in range(100):
        numbers = names.look([f"name-{i}", "always", f"name-{i}"])
        assert names.hashes(numbers).tolist() == [
            hash_id(name) for name in (f"name-{i}", "always", f"name-{i}")
        ]
    assert len(names) == len(names.names) <= 11


def test_more_names_at_once_than_a_memory_keeps_are_found_all_the_same() -> None:
    names, asked = Names(limit=10), [f"name-{i}" for i in range(3000)]
    assert names.hashes(names.look(asked)).tolist() == [hash_id(name) for name in asked]
    assert names.look(["name-0"]).tolist() == [0]


def test_numbers_given_before_a_memory_was_full_are_read_by_the_names_of_then() -> None:
    names = Names(limit=2)
    before, listed = names.look(["a", "b"]), names.names
    names.look(["c"])
    assert [listed[number] for number in before] == ["a", "b"]


def test_fresh_names_outlive_the_memory_of_their_hashes() -> None:
    ids = Ids(limit=10)
    names = [f"name-{i}" for i in range(35)]
    codes = [int(ids.hashes(ids.look([name]))[0]) for name in names]
    assert ids.take_fresh(10**6) == dict(zip(codes, names, strict=True))


def test_fresh_names_that_nobody_takes_are_forgotten_oldest_first_and_new_again_later() -> None:
    ids = Ids(limit=10)
    names = [f"name-{i}" for i in range(95)]
    for name in names:
        ids.look([name])
    assert list(ids.fresh.values()) == names[-FRESH * 10 :]
    ids.look([names[0]])
    assert list(ids.take_fresh(10**6).values()) == [*names[1 - FRESH * 10 :], names[0]]


def test_fresh_names_that_do_not_fit_wait() -> None:
    ids = Ids(limit=100)
    ids.look(["aaaa", "bbbb", "cccc"])
    two = 2 * (ENVELOPE + 4 * 4)
    assert list(ids.take_fresh(two).values()) == ["aaaa", "bbbb"]
    assert list(ids.take_fresh(two).values()) == ["cccc"]
    assert ids.take_fresh(two) == {}


def test_a_users_home_is_that_of_javas_partitioner() -> None:
    users = Users(partitions=7, limit=10)
    names = [f"user-{i}" for i in range(3000)] + ["ü", "\ud800"]
    homes = [partition_of(u.encode("utf-8", "surrogatepass"), 7) for u in names]
    assert users.homes(users.look(names)).tolist() == homes
    assert users.homes(users.look(names[50:60])).tolist() == homes[50:60]
