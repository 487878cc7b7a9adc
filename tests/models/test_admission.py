from __future__ import annotations

import resource
import time

import numpy as np
import pytest

from models.admission import Admission
from models.batch import Shape
from models.table import Table
from tests.models.toy import ids

SMALL = Shape(rows=40, cold=8)


def admission(shape: Shape = SMALL, **options: int) -> Admission:
    return Admission(shape, Table(shape.rows), **options)


def test_id_gets_a_row_when_seen_often_enough() -> None:
    a = admission(admit_after=3)
    one = ids(np.array([5]))
    assert [len(a.admit(one).ids) for _ in range(4)] == [0, 0, 1, 0]
    assert a.table.lookup(one)[0] >= SMALL.cold


def test_sightings_within_a_batch_count() -> None:
    assert len(admission().admit(ids(np.array([5, 6, 5]))).ids) == 1


def test_nobody_gets_no_row() -> None:
    a = admission()
    a.admit(np.zeros(10, np.uint64))
    assert len(a.table) == 0


def test_least_recently_seen_leave_first() -> None:
    a = admission(admit_after=1)
    first, second = ids(np.arange(1, 17)), ids(np.arange(17, 33))
    a.admit(first)
    a.admit(second)
    a.admit(first)
    late = a.admit(ids(np.arange(100, 110)))
    assert set(late.former.tolist()) <= set(second.tolist())
    assert len(late.former) == 10
    assert (a.table.lookup(first) >= 0).all()
    assert (a.table.lookup(late.former) == -1).all()


def test_ids_of_one_batch_do_not_push_each_other_out() -> None:
    a = admission(admit_after=1)
    crowd = a.admit(ids(np.arange(1, 101)))
    assert len(crowd.ids) == SMALL.rows - SMALL.cold
    assert len(crowd.evicted) == 0
    assert len(set(crowd.rows.tolist())) == len(crowd.rows)


def test_old_sightings_fade() -> None:
    a = admission(sketch=64)
    one = ids(np.array([7]))
    a.admit(one)
    a.sketch[:] = 1
    a.admit(np.unique(ids(np.arange(1000, 1063)))[:63])
    assert a.sketch.max() <= 1


def test_who_has_taken_rows_back_has_no_room() -> None:
    a = admission(admit_after=1)
    assert a.roomy
    for first in range(1, 200, 10):
        a.admit(ids(np.arange(first, first + 10)))
    assert not a.roomy


def test_restored_admission_gives_the_same_rows() -> None:
    a = admission()
    rng = np.random.default_rng(0)
    for _ in range(20):
        a.admit(ids(rng.integers(1, 100, 20)))
    other = Admission(SMALL, Table(SMALL.rows))
    other.table.put(a.table.ids.copy(), np.arange(SMALL.rows))
    other.load_state(a.state())
    for _ in range(20):
        batch = ids(rng.integers(1, 100, 20))
        one, two = a.admit(batch), other.admit(batch)
        assert [x.tolist() for x in one] == [x.tolist() for x in two]


def pass_through(distinct: int) -> float:
    """Show so many distinct ids, twice each, to a table of 100,000 rows; return the growth in MB."""
    a = admission(Shape())
    batch = 50_000
    a.admit(np.repeat(ids(np.arange(1, batch)), 2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for first in range(batch, distinct, batch):
        a.admit(np.repeat(ids(np.arange(first, first + batch)), 2))
    assert len(a.table) <= Shape().rows - Shape().cold
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def test_memory_is_flat_for_a_million_ids() -> None:
    started = time.perf_counter()
    assert pass_through(1_000_000) < 30
    assert time.perf_counter() - started < 20


@pytest.mark.slow
def test_memory_is_flat_for_ten_million_ids() -> None:
    assert pass_through(10_000_000) < 30
