"""Lists as tensors on a device; on a GPU padded to one of few sizes, see `models.graphs`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.batch import CLICK, Array, Lesson, Lists
from models.graphs import roomy


class Batch(NamedTuple):
    """N items of B lists, what pads them included: further items, all in the last list, which count nothing.

    Attributes
    ----------
    x : float32 [N, F]
        Raw features.
    of : int64 [N]
        List of each item.
    place : int64 [N]
    clicked : bool [N]
    positive, negative : uint8 [N]
        As in `Lesson`.
    share : float32 [N]
        Of each item in the batch's mean.
    age : float32 [B, H]
        Seconds; negative where the history is empty.
    """

    x: Tensor
    of: Tensor
    place: Tensor
    clicked: Tensor
    positive: Tensor
    negative: Tensor
    share: Tensor
    age: Tensor


class Where(NamedTuple):
    """Rows (int64) of items and of categories: of what is listed, [N], and of what was touched, [B, H]."""

    item: Array
    history: Array
    category: Array
    history_category: Array


class Vectors(NamedTuple):
    """What the rows say: of items [N, D], with a bias [N], and of histories [B, H, D]."""

    item: Tensor
    bias: Tensor
    history: Tensor


def batch_of(lists: Lists, lesson: Lesson | None, device: torch.device) -> Batch:
    """Lists on the device; without a lesson their labels are taught as they are."""
    positive, negative = lesson or (lists.labels, ~lists.labels)
    n, b = len(lists.item), len(lists)
    of = np.repeat(np.arange(b), np.diff(lists.start))
    columns = (
        lists.features, of, lists.place.astype(np.int64), (lists.labels & CLICK) > 0, positive, negative,
        np.full(n, 1 / max(n, 1), np.float32),
    )  # fmt: skip
    items, people = room(n, b, device)
    x, of, *rest = (padded(column, items) for column in columns)
    of[n:] = people - 1
    return Batch(*(moved(array, device) for array in (x, of, *rest, padded(lists.age, people))))


def room(n: int, b: int, device: torch.device) -> tuple[int, int]:
    """How many items and lists a batch of `n` and `b` has on the device."""
    return (n, b) if device.type == "cpu" else (roomy(n), roomy(b + 1))


def padded(array: Array, count: int) -> Array:
    """The array, with zeros appended up to `count`."""
    if len(array) == count:
        return array
    longer = np.zeros((count, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def moved(array: Array, device: torch.device) -> Tensor:
    """The array on the device: on the CPU its own memory, to a GPU by pinned memory and not waited for.

    What cannot be written to, as decoded messages cannot, is copied.
    """
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
