from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from models.amounts import AMOUNTS
from models.covisitation import (
    BACK,
    HEAVIEST,
    SUMS,
    Covisitation,
    Scratch,
    gather_near,
    near_features,
    scratch,
    top_near,
)
from models.table import Table

T = 1_700_000_000_000
HALF = 2.0**-11
"""Half a step of 16-bit weights."""
H = 4
PAIR, NEAR, RECENT = 60.0, 1000.0, 600.0


def table_of(items: range | list[int], capacity: int = 64) -> Table:
    table = Table(capacity)
    table.put(np.array(items, np.uint64), np.arange(len(items)))
    return table


def made(items: range | list[int] = range(10, 40), neighbours: int = 16, alpha: float = 0.1) -> Covisitation:
    return Covisitation(table_of(items), neighbours, pair_half_life=PAIR, half_life=NEAR, alpha=alpha)


Act = tuple[int, int, list[int], list[float]]  # item, ts, history, age


def count(pairs: Covisitation, *acts: Act) -> None:
    history = np.zeros((len(acts), H), np.uint64)
    age = np.full((len(acts), H), -1, np.float32)
    for k, (_, _, before, ages) in enumerate(acts):
        history[k, : len(before)], age[k, : len(ages)] = before, ages
    items = np.array([act[0] for act in acts], np.uint64)
    pairs.count(items, np.array([act[1] for act in acts]), history, age)


def published(pairs: Covisitation, row: int) -> dict[int, float]:
    pairs.refresh()
    near, weight = pairs.near[row].tolist(), pairs.near_weight[row].tolist()
    assert weight == sorted(weight, reverse=True)
    return {i: w for i, w in zip(near, weight, strict=True) if i}


def amounts(pairs: Covisitation, row: int) -> dict[int, tuple[float, float]]:
    """How much of each neighbour came after, and how often it was met, as published."""
    pairs.refresh()
    after, often = AMOUNTS[pairs.near_next[row]].tolist(), AMOUNTS[pairs.near_often[row]].tolist()
    return {i: (a, o) for i, a, o in zip(pairs.near[row].tolist(), after, often, strict=True) if i}


def random_acts(n: int, items: int, seed: int) -> list[Act]:
    random = np.random.default_rng(seed)
    acts = []
    for _ in range(n):
        before = random.choice(items, int(random.integers(0, H + 1)), replace=False) + 10
        ages = np.sort(random.random(len(before)) * 200)
        acts.append(
            (
                int(random.integers(items)) + 10,
                T + int(random.integers(400_000)),
                before.tolist(),
                ages.tolist(),
            )
        )
    return acts


def naive(acts: list[Act], alpha: float) -> dict[int, dict[int, float]]:
    """The equations of the module, on dictionaries, all as of each item's newest event."""
    last: dict[int, int] = defaultdict(int)
    for item, ts, history, _ in acts:
        for touched in (item, *[j for j in history if j != item]):
            last[touched] = max(last[touched], ts)
    weight: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))

    def mass(item: int, at: int) -> float:
        return max(1.0, sum(0.5 ** ((at - ts) / 1000 / NEAR) for i, ts, *_ in acts if i == item))

    for item, ts, history, ages in acts:
        for n, (j, age) in enumerate(zip(history, ages, strict=True)):
            if j != item:
                worth = 0.5 ** (age / PAIR) / (1 + n)
                weight[item][j] += worth * 0.5 ** ((last[item] - ts) / 1000 / NEAR)
                weight[j][item] += worth * 0.5 ** ((last[j] - ts) / 1000 / NEAR)
    return {
        a: {b: w / (mass(a, last[a]) * mass(b, last[a])) ** alpha for b, w in row.items()}
        for a, row in weight.items()
    }


def naive_amounts(acts: list[Act]) -> dict[int, dict[int, list[float]]]:
    """For each pair, as of the first item's newest event: what came after it, and how often they met."""
    last: dict[int, int] = defaultdict(int)
    for item, ts, history, _ in acts:
        for touched in (item, *[j for j in history if j != item]):
            last[touched] = max(last[touched], ts)
    found: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for item, ts, history, ages in acts:
        for n, (j, age) in enumerate(zip(history, ages, strict=True)):
            if j != item:
                for one, other, after in ((j, item, 0.5 ** (age / PAIR) / (1 + n)), (item, j, 0.0)):
                    left = 0.5 ** ((last[one] - ts) / 1000 / NEAR)
                    found[one][other][0] += left * after
                    found[one][other][1] += left
    return found


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5])
def test_neighbours_are_exact_while_counters_suffice(alpha):
    acts = random_acts(200, items=12, seed=1)
    pairs = made(neighbours=16, alpha=alpha)
    count(pairs, *acts)
    for item, expected in naive(acts, alpha).items():
        assert published(pairs, item - 10) == pytest.approx(expected, rel=HALF)


def test_what_came_after_and_how_often_is_counted_as_it_is():
    acts = random_acts(200, items=12, seed=1)
    pairs = made(neighbours=16)
    count(pairs, *acts)
    for item, expected in naive_amounts(acts).items():
        found = amounts(pairs, item - 10)
        assert found.keys() == expected.keys()
        for other, pair in expected.items():
            assert found[other] == pytest.approx(pair, rel=0.04, abs=0.001)


def test_counter_that_is_taken_over_starts_from_nothing():
    pairs = made(neighbours=1, alpha=0.0)  # two counters
    count(pairs, (10, T, [11], [0.0]), (10, T, [12], [10.0]), (10, T, [13], [60.0]))
    count(pairs, (13, T, [10], [0.0]))
    assert published(pairs, 0) == {13: 1.5}
    assert amounts(pairs, 0)[13] == pytest.approx([1.0, 2.0], rel=0.04)


def test_weights_that_16_bits_cannot_hold_are_the_heaviest_that_they_can():
    pairs = made(alpha=0.0)
    count(pairs, *[(10, T, [11], [0.0])] * 70_000)
    assert published(pairs, 0) == {11: HEAVIEST}


def test_order_of_acts_does_not_matter_while_counters_suffice():
    acts = random_acts(200, items=12, seed=2)
    one, other = made(), made()
    count(one, *acts)
    count(other, *acts[::-1])
    for row in range(12):
        assert published(one, row) == pytest.approx(published(other, row), rel=2 * HALF)
    np.testing.assert_array_equal(one.near_at, other.near_at)


def test_heavy_pairs_survive_a_flood_of_light_ones():
    pairs = made(range(10, 60), neighbours=4)
    for k in range(30):
        count(pairs, (10, T + k, [11], [0.0]), (10, T + k, [12 + k], [50.0]))
    near = published(pairs, 0)
    assert len(near) == 4
    assert next(iter(near)) == 11


def test_pairs_outlive_many_half_lives_of_the_base():
    pairs = made()
    later = T + int(100 * NEAR * 1000)
    count(pairs, (10, T, [11], [0.0]), (10, later, [12], [0.0]))
    near = published(pairs, 0)
    assert near[12] == pytest.approx(1.0, rel=1e-3)
    assert near.get(11, 0.0) < 1e-20
    assert pairs.near_at[0] == later


def test_item_in_the_history_twice_counts_once_by_its_newest_act():
    pairs = made(alpha=0.0)
    count(pairs, (10, T, [11, 12, 11], [60.0, 60.0, 120.0]))
    assert published(pairs, 0) == {11: 0.5, 12: 0.25}


def test_item_is_not_its_own_neighbour():
    pairs = made()
    count(pairs, (10, T, [10, 11], [0.0, 0.0]))
    assert published(pairs, 0).keys() == {11}


def test_items_without_a_row_are_not_counted():
    pairs = made([10, 11])
    count(pairs, (10, T, [99, 11], [0.0, 0.0]), (99, T, [10, 11], [0.0, 0.0]))
    assert published(pairs, 0).keys() == {11}
    assert published(pairs, 1).keys() == {10}


def test_evicted_neighbour_is_not_published_again():
    table = table_of([10, 11, 12])
    pairs = Covisitation(table, 4, pair_half_life=PAIR, half_life=NEAR)
    count(pairs, (10, T, [11, 12], [0.0, 0.0]))
    table.put(np.array([13], np.uint64), np.array([1]))
    pairs.clear(np.array([1, -1]))
    count(pairs, (10, T, [12], [0.0]))
    assert published(pairs, 0).keys() == {12}
    assert published(pairs, 1) == {}
    assert 1 in pairs.dirty.take(99)


def test_refresh_publishes_at_most_the_limit_and_the_rest_next_time():
    pairs = made()
    count(pairs, (10, T, [11, 12, 13], [0.0, 0.0, 0.0]))
    pairs.refresh(3)
    assert pairs.dirty.take(99).tolist() == [0, 1, 2]
    pairs.refresh(3)
    assert pairs.dirty.take(99).tolist() == [3]


def test_restored_pairs_publish_the_same():
    acts = random_acts(100, items=12, seed=3)
    one, other = made(), made()
    count(one, *acts)
    count(other, (30, T, [31], [0.0]))  # forgotten by the restore
    other.load_state({name: array.copy() for name, array in one.state().items()})
    for row in range(30):
        assert published(one, row) == published(other, row)
        assert amounts(one, row) == amounts(other, row)


def sums(memory: Scratch, item: int) -> list[float]:
    out = np.full(SUMS, np.nan, np.float32)
    near_features(memory, np.uint64(item), out)
    return out.tolist()


def gathered(pairs: Covisitation, history: list[int], age: list[float], now: int, size: int = H) -> Scratch:
    memory = scratch(size, pairs.near.shape[1])
    gather_into(memory, pairs, history, age, now)
    return memory


def gather_into(memory: Scratch, pairs: Covisitation, history: list[int], age: list[float], now: int) -> None:
    gather_near(
        memory,
        np.array(history, np.uint64),
        np.array(age, np.float32),
        now,
        pairs._table.keys,
        pairs._table.rows,
        pairs.near,
        pairs.near_weight.astype(np.float32),
        pairs.near_next,
        pairs.near_often,
        pairs.near_at,
        RECENT,
        NEAR,
    )


def test_history_adds_up_its_neighbours_by_recency():
    acts = random_acts(200, items=12, seed=4)
    pairs = made()
    count(pairs, *acts)
    pairs.refresh()
    history, age, now = [12, 99, 15, 12], [30.0, 50.0, 600.0, 900.0], T + 500_000
    memory = gathered(pairs, history, age, now)
    gives: dict[int, list[list[float]]] = defaultdict(list)
    for back in (0, 2):  # 99 has no row, but its place; 12 came before
        row, ago = history[back] - 10, age[back]
        left = 0.5 ** ((now - pairs.near_at[row]) / 1000 / NEAR)
        worth = BACK**back * 0.5 ** (ago / RECENT)
        for i, near in published(pairs, row).items():
            after, often = amounts(pairs, row)[i]
            last = near if back == 0 else 0.0
            gives[i].append([left * x for x in (worth * near, last, worth * after, often)])
    for item in range(10, 24):
        near, last, after, often = zip(*gives[item], strict=True) if gives[item] else [()] * 4
        expected = [sum(near), max(near, default=0.0), sum(last), len(near), sum(after), sum(often)]
        assert sums(memory, item) == pytest.approx(expected, rel=1e-5)


def test_candidates_are_the_highest_sums_each_once():
    pairs = made()
    count(pairs, *random_acts(300, items=30, seed=5))
    pairs.refresh()
    memory = gathered(pairs, [12, 15, 20], [0.0, 10.0, 20.0], T + 400_000)
    everything = {i: sums(memory, i)[0] for i in range(10, 40)}
    expected = sorted((i for i in everything if everything[i] > 0), key=lambda i: -everything[i])
    assert len(expected) > 12
    for limit in (1, 5, 12, 100):
        out, weight = np.zeros(limit, np.uint64), np.zeros(limit, np.float32)
        found = top_near(memory, out, weight)
        assert out[:found].tolist() == expected[:limit]
        assert weight[:found].tolist() == [everything[i] for i in expected[:limit]]


def test_scratch_forgets_the_visitor_before():
    pairs = made()
    count(pairs, (10, T, [11], [0.0]), (20, T, [21], [0.0]))
    pairs.refresh()
    memory = gathered(pairs, [10], [0.0], T)
    gather_into(memory, pairs, [20], [0.0], T)
    assert sums(memory, 11) == [0.0] * SUMS
    assert sums(memory, 21)[0] > 0
    gather_into(memory, pairs, [0, 0], [-1.0, -1.0], T)
    assert top_near(memory, np.zeros(4, np.uint64), np.zeros(4, np.float32)) == 0


def test_scratch_that_could_overflow_is_refused():
    pairs = made()
    with pytest.raises(ValueError, match="too small"):
        gathered(pairs, [0] * 64, [-1.0] * 64, T, size=H)
