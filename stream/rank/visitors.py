"""What rank remembers of the visitors of one partition, in flat arrays that kernels work on.

A visitor has a row: history (distinct items, newest first), session, the lists shown lately. The
items of those lists lie in a ring shared by the partition. About 1.3 kB per visitor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.table import Table

Array = NDArray[Any]

DISMISSED, BOUGHT, IN_CART = 1, 2, 4
"""Bits of `Memory.history_flags`."""

RING = 1 << 20
"""Items of shown lists kept per partition; a list whose items were overwritten is forgotten."""

FIRST_ROWS = 1024
EVICTED_SHARE = 64
"""When full, one in so many visitors leaves at once, the least recently seen: to find them costs a pass."""

NOT_NOW = np.iinfo(np.int64).max


class Memory(NamedTuple):
    """The arrays; U visitors, H history entries, Q lists. Times are ms of event time."""

    user: Array  # uint64 [U]
    last_ts: Array  # int64 [U]: newest event
    session_ts: Array  # int64 [U]: start of the session
    steps: Array  # int32 [U]: events in the session
    session_clicks: Array  # int32 [U]
    click_place: Array  # int16 [U]: place of the last click, from 1; 0 none
    published: Array  # uint64 [U]: hash of the slate published last
    history_item: Array  # uint64 [U, H], newest first; 0 where empty
    history_ts: Array  # int64 [U, H]
    history_events: Array  # uint16 [U, H]: how often touched
    history_clicks: Array  # uint8 [U, H]
    history_carts: Array  # uint8 [U, H]
    history_purchases: Array  # uint8 [U, H]
    history_flags: Array  # uint8 [U, H]
    history_category: Array  # uint16 [U, H]
    history_brand: Array  # uint16 [U, H]
    history_price: Array  # float32 [U, H]; -1 unknown
    list_offset: Array  # int64 [U, Q], newest first
    list_ts: Array  # int64 [U, Q]
    list_slate: Array  # uint64 [U, Q]
    list_start: Array  # int64 [U, Q]: where its items start, counted over the life of the ring; -1 none
    list_size: Array  # int32 [U, Q]
    list_arm: Array  # uint8 [U, Q]
    list_surface: Array  # uint16 [U, Q]
    ring: Array  # uint64 [RING]
    head: Array  # int64 [1]: items ever put into the ring


SHARED = ("ring", "head")


def _fields(users: int, history: int, lists: int) -> dict[str, tuple[type, tuple[int, ...]]]:
    u, h, q = (users,), (users, history), (users, lists)
    return {
        "user": (np.uint64, u),
        "last_ts": (np.int64, u),
        "session_ts": (np.int64, u),
        "steps": (np.int32, u),
        "session_clicks": (np.int32, u),
        "click_place": (np.int16, u),
        "published": (np.uint64, u),
        "history_item": (np.uint64, h),
        "history_ts": (np.int64, h),
        "history_events": (np.uint16, h),
        "history_clicks": (np.uint8, h),
        "history_carts": (np.uint8, h),
        "history_purchases": (np.uint8, h),
        "history_flags": (np.uint8, h),
        "history_category": (np.uint16, h),
        "history_brand": (np.uint16, h),
        "history_price": (np.float32, h),
        "list_offset": (np.int64, q),
        "list_ts": (np.int64, q),
        "list_slate": (np.uint64, q),
        "list_start": (np.int64, q),
        "list_size": (np.int32, q),
        "list_arm": (np.uint8, q),
        "list_surface": (np.uint16, q),
    }


class Visitors:
    """The visitors of one partition.

    Parameters
    ----------
    limit
        Visitors kept, more than one batch can have; beyond it the least recently seen leave.
    history, lists
        Entries and lists kept of each.

    Attributes
    ----------
    memory : Memory
        The arrays; replaced when they grow. A row without a visitor has user 0.
    evicted : int
        Visitors that had to leave.

    Examples
    --------
    >>> visitors = Visitors(limit=8192, history=4, lists=2)
    >>> visitors.rows(np.array([70, 80, 70], np.uint64)).tolist(), len(visitors)
    ([0, 1, 0], 2)
    """

    def __init__(self, limit: int, history: int, lists: int) -> None:
        self.limit, self.history, self.lists = limit, history, lists
        self.evicted = 0
        rows = min(limit, FIRST_ROWS)
        self.memory = self._blank(rows, np.zeros(RING, np.uint64), np.zeros(1, np.int64))
        self.table = Table(rows)
        self.touched = np.zeros(rows, bool)
        self._free = np.arange(rows)

    def __len__(self) -> int:
        return len(self.memory.user) - len(self._free)

    def rows(self, users: Array) -> Array:
        """Rows (int32 [n]) of `users` (uint64 [n]), new visitors admitted.

        Rows stay valid until the next call: that is when visitors leave.
        """
        rows = self.table.lookup(users)
        if len(rows) and rows.min() < 0:
            self._admit(np.unique(users[rows < 0]), rows[rows >= 0])
            rows = self.table.lookup(users)
        self.touched[rows] = True
        return rows

    def forget_touched(self) -> None:
        """Start to track anew which visitors change."""
        self.touched[:] = False

    def state(self, only_touched: bool) -> dict[str, Any]:
        """Arrays to keep: of every visitor, or of the rows changed since `forget_touched`."""
        rows = np.flatnonzero(self.touched if only_touched else self.memory.user)
        kept: dict[str, Any] = {"rows": rows, "evicted": self.evicted}
        for name in _fields(0, 0, 0):
            kept[name] = getattr(self.memory, name)[rows]
        head = int(self.memory.head[0])
        kept["head"] = head
        # an increment still carries the whole live part of the ring: it is small beside the visitors
        live = np.arange(max(0, head - RING), head)
        kept["ring"] = self.memory.ring[live % RING]
        return kept

    def load(self, kept: dict[str, Any]) -> None:
        """Take in what `state` returned: a whole one, or an increment on top of one.

        Settings may have changed since: lists that no longer fit are left out; more visitors than
        the limit stay until new ones come.
        """
        rows = kept["rows"]
        if len(rows) and rows.max() >= len(self.memory.user):
            self._grow(int(rows.max()) + 1)
        for name in _fields(0, 0, 0):
            into, values = getattr(self.memory, name), kept[name]
            if values.ndim == 1:
                into[rows] = values
            else:
                width = min(into.shape[1], values.shape[1])
                into[rows, :width] = values[:, :width]
        self.table.put(kept["user"], rows)
        self._free = np.flatnonzero(self.memory.user == 0)
        head = kept["head"]
        self.memory.head[0] = head
        live = np.arange(max(0, head - RING), head)
        self.memory.ring[live % RING] = kept["ring"]
        self.evicted = kept["evicted"]

    def _admit(self, users: Array, in_use: Array) -> None:
        while len(users) > len(self._free) and len(self.memory.user) < self.limit:
            self._grow(min(self.limit, 2 * len(self.memory.user)))
        if len(users) > len(self._free):
            self._evict(len(users) - len(self._free), in_use)
        rows, self._free = self._free[: len(users)], self._free[len(users) :]
        for name in _fields(0, 0, 0):
            getattr(self.memory, name)[rows] = -1 if name == "list_start" else 0
        self.memory.user[rows] = users
        self.table.put(users, rows)

    def _evict(self, least: int, in_use: Array) -> None:
        """Free the rows of `least` visitors or more, the least recently seen, none of them in use."""
        seen = np.where(self.memory.user == 0, NOT_NOW, self.memory.last_ts)
        seen[in_use] = NOT_NOW
        count = min(max(least, len(seen) // EVICTED_SHARE), int(np.count_nonzero(seen != NOT_NOW)))
        rows = np.argpartition(seen, count - 1)[:count]
        self.memory.user[rows] = 0
        self.table.put(np.zeros(count, np.uint64), rows)
        self.touched[rows] = True  # so that an increment says so
        # in order, as they are found again after a restart
        self._free = np.sort(np.concatenate([self._free, rows]))
        self.evicted += count

    def _grow(self, size: int) -> None:
        old = self.memory
        self.memory = self._blank(size, old.ring, old.head)
        for name in _fields(0, 0, 0):
            getattr(self.memory, name)[: len(old.user)] = getattr(old, name)
        self.touched = np.concatenate([self.touched, np.zeros(size - len(self.touched), bool)])
        self._free = np.concatenate([self._free, np.arange(len(old.user), size)])
        self.table = Table(size)
        used = np.flatnonzero(self.memory.user)
        self.table.put(self.memory.user[used], used)

    def _blank(self, rows: int, ring: Array, head: Array) -> Memory:
        shapes = _fields(rows, self.history, self.lists)
        arrays: dict[str, Array] = {name: np.zeros(shape, kind) for name, (kind, shape) in shapes.items()}
        arrays["list_start"].fill(-1)
        return Memory(**arrays, ring=ring, head=head)
