from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models.batch import Array, Shape
from models.delta import (
    Assigned,
    Block,
    Delta,
    Dirty,
    Group,
    Owners,
    apply_assigned,
    apply_blocks,
    decode_delta,
    encode_delta,
    restore_rows,
    snapshot_delta,
    take_delta,
    used_rows,
)
from models.table import Table

SCHEMA = Shape().schema
NOBODY = Assigned(np.zeros(0, np.int32), np.zeros(0, np.uint64), [])

TYPES = st.sampled_from(
    [np.float32, np.float64, np.float16, np.int64, np.int32, np.uint64, np.uint16, np.bool_]
)
ARRAYS = TYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
NAMED = st.dictionaries(st.text(max_size=8), ARRAYS, max_size=3)


@st.composite
def assignments(draw: st.DrawFn) -> Assigned:
    rows = draw(hnp.arrays(np.int32, st.integers(0, 5), elements=st.integers(0, 2**31 - 1)))
    ids = draw(hnp.arrays(np.uint64, len(rows)))
    names = draw(st.lists(st.none() | st.text(max_size=9), min_size=len(rows), max_size=len(rows)))
    return Assigned(rows, ids, names)


@st.composite
def some_blocks(draw: st.DrawFn) -> Block:
    rows = draw(hnp.arrays(np.int32, st.integers(0, 5), elements=st.integers(0, 2**31 - 1)))
    shape = (len(rows), *draw(hnp.array_shapes(min_dims=0, max_side=3)))
    return Block(
        rows, {"a": draw(hnp.arrays(np.float32, shape)), "b": draw(hnp.arrays(np.uint64, len(rows)))}
    )


DELTAS = st.builds(
    Delta,
    st.just(SCHEMA),
    NAMED,
    assignments(),
    st.lists(some_blocks(), max_size=2),
    NAMED,
    st.binary(max_size=9),
)
FEW = settings(deadline=None, derandomize=True, max_examples=50)


def assert_equal_arrays(one: dict[str, Array], other: dict[str, Array]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


@FEW
@given(DELTAS)
def test_decoding_gives_what_was_encoded(delta):
    got = decode_delta(encode_delta(delta), SCHEMA)
    assert (got.schema, got.graph, got.assigned.names) == (delta.schema, delta.graph, delta.assigned.names)
    assert_equal_arrays(got.dense, delta.dense)
    assert_equal_arrays(got.lists, delta.lists)
    np.testing.assert_array_equal(got.assigned.rows, delta.assigned.rows)
    np.testing.assert_array_equal(got.assigned.ids, delta.assigned.ids)
    for mine, theirs in zip(got.blocks, delta.blocks, strict=True):
        np.testing.assert_array_equal(mine.rows, theirs.rows)
        assert_equal_arrays(mine.values, theirs.values)


@FEW
@given(DELTAS, st.data())
def test_truncated_bytes_are_a_value_error(delta, data):
    encoded = encode_delta(delta)
    with pytest.raises(ValueError, match="not a"):
        decode_delta(encoded[: data.draw(st.integers(0, len(encoded) - 1))], SCHEMA)


@FEW
@given(DELTAS, st.data())
def test_damaged_bytes_decode_or_are_a_value_error(delta, data):
    encoded = bytearray(encode_delta(delta))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decode_delta(bytes(encoded), SCHEMA)
    except ValueError:
        return


def test_other_schema_is_refused():
    encoded = encode_delta(Delta(SCHEMA, {}, NOBODY, []))
    with pytest.raises(ValueError, match="use equal settings"):
        decode_delta(encoded, Shape(width=8).schema)


def damaged(place: list[int], value: object) -> bytes:
    """A small delta with one field, found by its indexes, replaced."""
    block = Block(np.zeros(2, np.int32), {"a": np.zeros((2, 3), np.float32)})
    owners = Assigned(np.zeros(2, np.int32), np.zeros(2, np.uint64), [None, "x"])
    tree = msgspec.msgpack.decode(encode_delta(Delta(SCHEMA, {}, owners, [block])))
    into = tree
    for step in place[:-1]:
        into = into[step]
    into[place[-1]] = value
    return msgspec.msgpack.encode(tree)


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        ([3, 0, 1, "a", 0], "|O", "type '|O'"),
        ([3, 0, 1, "a", 1], [-1, 3], "shape"),
        ([3, 0, 1, "a", 1], [3, 2], "differ in length"),
        ([3, 0, 1, "a", 1], [7, 7], "reshape"),
        ([3, 0, 0, 0], "<f4", "row index"),
        ([3, 0, 0, 2], b"\xff" * 8, "row index"),
        ([2, 1, 0], "<i8", "64 bits"),
        ([2, 2], ["x"], "differ in length"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(place, value, reason):
    with pytest.raises(ValueError, match=reason):
        decode_delta(damaged(place, value), SCHEMA)


def test_no_row_starves_while_others_keep_changing():
    dirty = Dirty(100)
    dirty.mark(np.arange(100))
    taken: set[int] = set()
    for _ in range(10):
        taken.update(dirty.take(10).tolist())
        dirty.mark(np.arange(50))  # these change all the time
    assert taken == set(range(100))


def test_rows_held_back_stay_marked():
    dirty = Dirty(4)
    dirty.mark(np.arange(4))
    hold = np.array([False, True, False, False])
    assert dirty.take(9, hold).tolist() == [0, 2, 3]
    assert dirty.take(9).tolist() == [1]


class Model:
    """What train keeps, small: two row arrays of items, one of categories, and who has which row."""

    def __init__(self, rows: int = 600, width: int = 16) -> None:
        self.table = Table(rows)
        self.items = {"embedding": np.zeros((rows, width), np.float32), "bias": np.zeros(rows, np.float32)}
        self.near = {"near": np.zeros((rows, 4), np.uint64)}
        self.category = {"category": np.zeros((rows, width), np.float32)}
        self.names: dict[int, str] = {}
        self.dense = {"w": np.zeros(7, np.float32)}
        self.owners = Owners(self.table.ids, self.names, Dirty(rows))
        self.groups = [
            Group(self.items, Dirty(rows)),
            Group(self.near, Dirty(rows)),
            Group(self.category, Dirty(rows), owned=False),
        ]

    def change(self, random: np.random.Generator, n: int) -> None:
        """Give some rows to other items (some of which had a row), and some values."""
        self.dense["w"] += 1
        rows = random.choice(len(self.names) + n, n, replace=False) % len(self.table.ids)
        rows = np.unique(rows)
        ids = random.choice(3000, len(rows), replace=False).astype(np.uint64) + np.uint64(2)
        had = self.table.lookup(ids)
        left = had[(had >= 0) & ~np.isin(had, rows)]
        self.table.put(np.zeros(len(left), np.uint64), left)
        self.table.put(np.zeros(len(rows), np.uint64), rows)
        self.table.put(ids, rows)
        for row in left.tolist():
            self.names.pop(row, None)
        self.names.update({r: f"item {i}" for r, i in zip(rows.tolist(), ids.tolist(), strict=True)})
        moved = np.concatenate([rows, left])
        self.owners.dirty.mark(moved)
        for group in self.groups:
            for array in group.arrays.values():
                if group.owned:
                    array[left] = 0
                array[rows] = random.integers(1, 99, array[rows].shape)
            group.dirty.mark(moved if group.owned else rows)

    def delta(self, budget: int = 900_000) -> bytes:
        return take_delta(
            SCHEMA, self.dense, self.owners, self.groups, {"trending": self.table.ids[:3]}, budget
        )

    def snapshot(self, graph: bytes = b"graph") -> bytes:
        return snapshot_delta(SCHEMA, self.dense, self.owners, self.groups, {}, graph)


class Reader:
    """What rank keeps of a `Model`."""

    def __init__(self, model: Model) -> None:
        self.table = Table(model.table.capacity)
        self.names: list[str | None] = [None] * model.table.capacity
        self.owned = {n: np.zeros_like(a) for g in model.groups[:2] for n, a in g.arrays.items()}
        self.category = {n: np.zeros_like(a) for n, a in model.category.items()}
        self.dense: dict[str, Array] = {}

    def apply(self, data: bytes) -> Delta:
        delta = decode_delta(data, SCHEMA)
        apply_assigned(delta.assigned, self.table, self.names, self.owned)
        apply_blocks(delta.blocks, {**self.owned, **self.category})
        self.dense = delta.dense
        return delta

    def assert_same(self, model: Model) -> None:
        np.testing.assert_array_equal(self.table.ids, model.table.ids)
        everyone = np.arange(2, 3002, dtype=np.uint64)
        np.testing.assert_array_equal(self.table.lookup(everyone), model.table.lookup(everyone))
        assert {r: n for r, n in enumerate(self.names) if n} == model.names
        assert_equal_arrays(self.owned, {**model.items, **model.near})
        assert_equal_arrays(self.category, model.category)
        assert_equal_arrays(self.dense, model.dense)


@pytest.mark.parametrize("budget", [900_000, 14_000])
def test_chain_of_deltas_equals_the_snapshot(budget):
    random, model = np.random.default_rng(0), Model()
    follower = Reader(model)
    for _ in range(30):
        model.change(random, 60)
        follower.apply(model.delta(budget))
    while len(model.owners.dirty) or any(len(g.dirty) for g in model.groups):
        follower.apply(model.delta(budget))
    starter = Reader(model)
    assert starter.apply(model.snapshot()).graph == b"graph"
    follower.assert_same(model)
    starter.assert_same(model)


def test_snapshot_in_the_middle_leaves_the_chain_whole():
    random, model = np.random.default_rng(1), Model()
    model.change(random, 300)
    model.delta(14_000)  # somebody else's
    starter = Reader(model)
    starter.apply(model.snapshot())
    starter.assert_same(model)
    model.change(random, 50)
    while len(model.owners.dirty) or any(len(g.dirty) for g in model.groups):
        starter.apply(model.delta(14_000))
    starter.assert_same(model)


@pytest.mark.parametrize("budget", [9_000, 12_000, 20_000, 60_000])
def test_delta_stays_within_its_budget(budget):
    model = Model()
    model.change(np.random.default_rng(2), 500)
    model.names.update({r: "\N{SNOWMAN}" * (r % 256) for r in model.names})
    before = len(model.owners.dirty) + sum(len(g.dirty) for g in model.groups)
    assert len(model.delta(budget)) <= budget
    assert len(model.owners.dirty) + sum(len(g.dirty) for g in model.groups) < before


def test_small_group_is_not_starved_by_a_big_one():
    model = Model()
    everything, few = np.arange(600), np.arange(5)
    model.groups[0].dirty.mark(everything)
    model.groups[1].dirty.mark(few)
    model.groups[2].dirty.mark(everything)
    sizes = [len(b.rows) for b in decode_delta(model.delta(20_000), SCHEMA).blocks]
    assert sizes[1] == 5
    # the other two share the rest evenly: rows of 72 and of 68 bytes
    assert sizes[0] * 72 == pytest.approx(sizes[2] * 68, abs=72)
    assert sum(sizes) * 72 > 11_000


def test_values_of_a_row_do_not_travel_before_its_owner():
    model = Model()
    model.change(np.random.default_rng(3), 400)
    model.names.update(dict.fromkeys(model.names, "x" * 1000))
    delta = decode_delta(model.delta(12_000), SCHEMA)
    assert 0 < len(delta.assigned.rows) < len(model.names)
    told = set(delta.assigned.rows.tolist())
    for block in delta.blocks:  # what is left is too small for a name, not for values
        assert "category" in block.values or set(block.rows.tolist()) <= told
    assert delta.blocks


@pytest.mark.parametrize("name", [None, "", "x" * 40])
def test_many_rows_that_changed_hands_fill_the_budget_and_no_more(name):
    model = Model(rows=20_000)
    model.table.ids[:] = np.arange(2, 20_002)
    model.names.update(dict.fromkeys(range(20_000), name) if name is not None else {})
    model.owners.dirty.mark(np.arange(20_000))
    assert 70_000 < len(model.delta(100_000)) <= 100_000
    assert len(model.owners.dirty) > 10_000


def test_dense_arrays_beyond_the_budget_are_refused():
    model = Model()
    model.dense["w"] = np.zeros(300_000, np.float32)
    with pytest.raises(ValueError, match="make the model smaller"):
        model.delta()


def test_id_that_moved_leaves_its_old_row_before_that_rows_change_arrives():
    table, names, values = Table(4), ["old", None, None, None], {"a": np.ones(4)}
    table.put(np.array([77], np.uint64), np.array([0]))
    moved = Assigned(np.array([2], np.int32), np.array([77], np.uint64), ["new"])
    apply_assigned(moved, table, names, values)
    assert table.lookup(np.array([77], np.uint64)).tolist() == [2]
    assert table.ids.tolist() == [0, 0, 77, 0]
    assert names == [None, None, "new", None]
    assert values["a"].tolist() == [1, 1, 0, 1]
    taken = Assigned(np.array([0], np.int32), np.array([88], np.uint64), [None])
    apply_assigned(taken, table, names, values)
    assert table.lookup(np.array([77, 88], np.uint64)).tolist() == [2, 0]


def test_assignment_of_a_row_that_is_not_there_changes_nothing():
    table = Table(4)
    wrong = Assigned(np.array([1, 4], np.int32), np.array([77, 78], np.uint64), [None, None])
    with pytest.raises(ValueError, match="row 4 of 4"):
        apply_assigned(wrong, table, [None] * 4, {})
    assert len(table) == 0


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (Block(np.array([0], np.int32), {"b": np.ones(1)}), "'b'"),
        (Block(np.array([4], np.int32), {"a": np.ones(1)}), "does not fit"),
        (Block(np.array([0], np.int32), {"a": np.ones((1, 2))}), "does not fit"),
    ],
)
def test_blocks_that_do_not_fit_change_nothing(block, reason):
    arrays = {"a": np.zeros(4)}
    good = Block(np.array([1], np.int32), {"a": np.ones(1)})
    with pytest.raises(ValueError, match=reason):
        apply_blocks([good, block], arrays)
    assert not arrays["a"].any()


@pytest.mark.parametrize("used", [0, 1, 255, 256, 257, 700])
def test_rows_in_use_restore_the_array(used):
    array = np.zeros((700, 2), np.float32)
    array[:used] = 1
    kept = used_rows(array)
    assert used <= len(kept) <= used + 256
    again = np.full((700, 2), 9, np.float32)
    restore_rows(again, kept)
    np.testing.assert_array_equal(again, array)
