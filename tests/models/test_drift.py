from __future__ import annotations

import numpy as np

from models.batch import Array
from models.drift import MEMORY, Level


def noise(count: int, mean: float = 1.0, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(mean, 0.2, count)


def changes(level: Level, figures: Array) -> list[int]:
    return [change for x in figures.tolist() if (change := level.add(x))]


def test_noise_on_a_level_is_no_change() -> None:
    assert sum(len(changes(Level(), noise(2000, seed=seed))) for seed in range(10)) <= 1


def test_a_rise_is_seen_soon_and_its_new_level_is_not_a_change_again() -> None:
    level = Level()
    assert changes(level, noise(300)) == []
    assert changes(level, noise(10, mean=1.4, seed=1)) == [1]
    assert changes(level, noise(300, mean=1.4, seed=2)) == []


def test_a_fall_is_seen_too() -> None:
    level = Level()
    changes(level, noise(300))
    assert changes(level, noise(10, mean=0.6, seed=1)) == [-1]


def test_who_leaves_the_level_slowly_leaves_it_all_the_same() -> None:
    level = Level()
    changes(level, noise(MEMORY))
    assert 1 in changes(level, noise(MEMORY, seed=1) + np.linspace(0, 0.5, MEMORY))


def test_figures_that_never_vary_are_on_their_level() -> None:
    level = Level()
    assert changes(level, np.ones(500)) == []
    assert level.add(1.1) == 1


def test_goes_on_from_its_state() -> None:
    one, other = Level(), Level()
    changes(one, noise(300))
    other.load_state(one.state())
    rise = noise(20, mean=1.3, seed=1).tolist()
    assert [one.add(x) for x in rise] == [other.add(x) for x in rise]


def test_what_few_are_the_mean_of_is_no_change_and_what_many_are_is_seen_all_the_same() -> None:
    """Batches are of any size: the loss of one list says little."""
    rng = np.random.default_rng(0)
    sizes = rng.choice([1, 32], 2000).tolist()
    figures = [rng.normal(1.0, 1 / n**0.5) for n in sizes]
    level = Level()
    assert [level.add(x, n) for x, n in zip(figures, sizes, strict=True)] == [0] * 2000
    assert 1 in [level.add(1.5 + rng.normal(0, 32**-0.5), 32) for _ in range(10)]
