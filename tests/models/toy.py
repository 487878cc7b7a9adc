"""A small stream with something to learn, for the tests of the model."""

from __future__ import annotations

import numpy as np

from models.batch import FEATURE, Array, F, Lists, Shape

SHAPE = Shape(rows=512, cold=64, categories=32, width=8, hidden=16, history=6, neighbours=4)
ITEMS = 200
MONDAY = 1_700_000_000_000


def ids(numbers: Array) -> Array:
    """Item ids, spread like hashes; numbers from 1."""
    return numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def lists(rng: np.random.Generator, count: int, size: int = 8, history: int = SHAPE.history) -> Lists:
    """Lists whose visitors click by a price that they like and by the category that they touched last."""
    n = count * size
    item = rng.integers(1, ITEMS + 1, n)
    touched = rng.integers(1, ITEMS + 1, (count, history))
    empty = np.arange(history) >= rng.integers(1, history + 1, count)[:, None]
    x = rng.standard_normal((n, F)).astype(np.float32)
    x[:, FEATURE["item_age"]] = 1
    like = -4 * np.abs(x[:, FEATURE["price"]] - 0.5) + 3 * (item % 8 == np.repeat(touched[:, 0] % 8, size))
    like += 1.5 * np.sin(item) + rng.gumbel(size=n)
    clicked = np.zeros((count, size), np.uint8)
    clicked[np.arange(count), like.reshape(count, size).argmax(1)] = 1
    clicked *= (rng.random(count) < 0.8)[:, None]
    carted = clicked * (rng.random((count, size)) < 0.3)
    return Lists(
        start=np.arange(count + 1) * size,
        item=ids(item),
        category=(item % 8).astype(np.uint16),
        features=x,
        place=np.tile(np.arange(1, size + 1, dtype=np.int16), count),
        history=np.where(empty, np.uint64(0), ids(touched)),
        history_category=np.where(empty, 0, touched % 8).astype(np.uint16),
        age=np.where(empty, -1, np.cumsum(rng.exponential(60, (count, history)), 1)).astype(np.float32),
        labels=(clicked + 2 * carted).ravel().astype(np.uint8),
    )
