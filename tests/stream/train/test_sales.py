from __future__ import annotations

import numpy as np
import pytest

from models.batch import Lesson
from models.statistics import CART, CLICK, PURCHASE
from stream.checkpoint import pack, unpack
from stream.train.buffer import Buffer
from stream.train.delays import Delays
from stream.train.sales import Sales
from tests.stream.train.synthetic import T0
from tests.stream.train.test_buffer import SHAPE, label, put

WAIT_S = 600.0


def shop(delayed: str = "fnw") -> tuple[Buffer, Sales]:
    """Three lists: an item of one is bought out of a cart, one of another without, one is only clicked."""
    buffer = Buffer(SHAPE, 10, delayed)
    put(buffer, [1, 2, 3])
    bought = [(1, 0, task) for task in (CLICK, CART, PURCHASE)]
    label(buffer, *bought, (2, 0, CLICK), (2, 0, PURCHASE), (3, 0, CLICK))
    return buffer, Sales(buffer, Delays(WAIT_S), delayed)


def test_a_sale_counts_for_its_click_and_for_its_cart_if_there_was_one() -> None:
    buffer, sales = shop()
    sales.mature(buffer.mature(T0))
    assert sales.sold(T0).tolist() == [[3, 2], [1, 1]]


def test_lists_set_aside_do_not_count() -> None:
    buffer, sales = shop()
    buffer.set_aside(np.array([1]))
    sales.mature(buffer.mature(T0))
    assert sales.sold(T0).tolist() == [[2, 1], [1, 1]]


def test_who_is_naive_counts_nothing() -> None:
    buffer, sales = shop("naive")
    sales.mature(buffer.mature(T0))
    assert sales.sold(T0).tolist() == [[0, 0], [0, 0]]


def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened() -> None:
    buffer, _ = shop()
    delays, nothing = Delays(WAIT_S), np.zeros(1, np.uint8)
    delays.thin(Lesson(nothing, nothing + 7), np.zeros(1, np.int64), np.array([T0]), T0)
    sales = Sales(buffer, delays, "fnw")
    sales.expect(np.array([3.0, 2.0, 1.0]))
    sales.foresee(T0)
    foreseen = sales.sold(T0)
    assert foreseen[:, 1].tolist() == [2, 1]
    sales.mature(buffer.mature(T0))
    other = Sales(buffer, Delays(WAIT_S), "fnw")
    other.restore(unpack(pack(sales.state())))
    assert other.sold(T0).tolist() == sales.sold(T0).tolist() == np.add(foreseen, [[3, 2], [1, 1]]).tolist()
    assert other.expected == pytest.approx([3, 2, 1])
