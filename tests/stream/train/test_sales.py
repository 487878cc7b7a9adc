"""What share of the carts is bought, told while most of them are young."""

from __future__ import annotations

import numpy as np
import pytest

from models.batch import Array
from models.lately import LONG_MEMORY
from stream.checkpoint import pack, unpack
from stream.train.sales import CART, PURCHASE, Sales

WAIT_S, SHARE = 600.0, 0.4


def saw(sales: Sales, task: int, carts: Array | range, s: Array | float) -> None:
    """Carts by number, and when they were filled or bought."""
    number = np.array(carts)
    columns = (
        number,
        number % 7,
        np.full(len(number), task),
        np.broadcast_to(np.multiply(s, 1000), number.shape),
    )
    sales.saw(*(column.astype(np.int64) for column in columns))


def shop(seed: int, mean_s: float, until_s: float, per_s: float = 4.0) -> tuple[Array, Array]:
    """When carts were filled, and when they were bought (s; inf: never)."""
    rng = np.random.default_rng(seed)
    filled = np.sort(rng.uniform(0, until_s, int(per_s * until_s)))
    after = np.where(rng.random(len(filled)) < SHARE, rng.exponential(mean_s, len(filled)), np.inf)
    return filled, filled + after


def told(filled: Array, bought: Array, now_s: float) -> Sales:
    """Who has seen all that by now."""
    sales = Sales(WAIT_S)
    saw(sales, CART, np.flatnonzero(filled <= now_s), filled[filled <= now_s])
    done = np.flatnonzero(bought <= now_s)
    for cart in done[np.argsort(bought[done])]:
        saw(sales, PURCHASE, np.array([cart]), bought[cart])
    return sales


def share(sales: Sales, now_s: float) -> float:
    carts, bought = sales.sold(int(now_s * 1000))
    return float(bought / carts)


def test_the_share_is_told_long_before_the_time_of_the_carts_is_over() -> None:
    shares, counted = [], []
    for seed in range(5):
        filled, bought = shop(seed, mean_s=60, until_s=200)
        shares.append(share(told(filled, bought, 200), 200))
        counted.append((bought <= 200).mean())
    assert np.mean(shares) == pytest.approx(SHARE, rel=0.2)
    assert np.mean(counted) < 0.75 * SHARE


def test_it_is_right_when_the_time_of_carts_is_over() -> None:
    filled, bought = shop(0, mean_s=120, until_s=2000)
    assert share(told(filled, bought, 2000), 2000) == pytest.approx(SHARE, rel=0.08)
    assert share(told(filled, bought, 2700), 2700) == pytest.approx(SHARE, rel=0.08)


def test_ages_that_no_cart_has_reached_are_like_those_before_them() -> None:
    sales, carts = Sales(31.0), range(10_000)  # ages of 0-1, 1-3, 3-7, 7-15 and 15-31 s
    saw(sales, CART, carts, 0.0)
    saw(sales, PURCHASE, carts[::5], 2.0)
    one = share(sales, 3.0)  # no cart is older
    assert one == pytest.approx(1 - 0.8**4, rel=0.01)


def test_nothing_is_told_before_the_first_sale() -> None:
    sales = Sales(WAIT_S)
    assert sales.sold(0).tolist() == [0, 0]
    saw(sales, CART, range(50), 1.0)
    saw(sales, PURCHASE, range(50, 60), 2.0)  # of no cart
    assert sales.sold(10_000).tolist() == [0, 0]
    assert sales.sold(int(2000 * WAIT_S)).tolist() == [0, 0]


def test_what_is_bought_after_its_time_counts_as_not_bought() -> None:
    sales = Sales(WAIT_S)
    saw(sales, CART, range(100), 0.0)
    saw(sales, PURCHASE, range(50), 1.0)
    before = sales.sold(int(WAIT_S * 1000))
    saw(sales, PURCHASE, range(50, 100), WAIT_S + 1)
    assert sales.sold(int(WAIT_S * 1000) + 2000).tolist() == before.tolist()


def test_it_follows_what_changes() -> None:
    sales, many = Sales(10.0), 3 * int(LONG_MEMORY)
    for first, tenths in ((0, 1), (many, 5)):
        carts = np.arange(first, first + many)
        saw(sales, CART, carts, float(first))
        saw(sales, PURCHASE, carts[carts % 10 < tenths], first + 1.0)
        assert share(sales, first + 20.0) == pytest.approx(tenths / 10, rel=0.1)


def test_it_goes_on_from_a_checkpoint() -> None:
    filled, bought = shop(0, mean_s=60, until_s=300)
    sales, again = told(filled, bought, 200), Sales(WAIT_S)
    again.restore(unpack(pack(sales.state())))
    for each in (sales, again):
        saw(each, PURCHASE, np.flatnonzero((bought > 200) & (bought < 250)), 250.0)
    assert again.sold(300_000).tolist() == sales.sold(300_000).tolist() != [0, 0]


def test_carts_that_weigh_nothing_any_more_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.train.sales.MOST", 10)
    sales = Sales(WAIT_S)
    saw(sales, CART, range(30), 1.0)
    assert sales.state()["open"][:, 0].tolist() == [*range(20, 30)]
