"""What rank remembers of the visitors of one partition, in flat arrays that kernels work on.

A visitor has a row: context, history (distinct items, newest first), session, the lists shown lately. The
items of those lists lie in a ring shared by the partition. About 1.5 kB per visitor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.batch import CONTEXTS
from models.table import Table

Array = NDArray[Any]
Record = Any
"""One element of a structured array; writing to it writes to the array."""

DISMISSED, BOUGHT, IN_CART = 1, 2, 4
"""Bits of an entry's flags."""

A_LIST, ACT_ELSEWHERE, ACT_IN_LIST, A_SEARCH = range(4)
"""What a visitor's newest event was."""

RING = 1 << 20
"""Items of shown lists kept per partition; a list whose items were overwritten is forgotten."""

FIRST_ROWS = 1024
EVICTED_SHARE = 64
"""When full, one in so many visitors leaves at once, the least recently seen: to find them costs a pass."""

NOT_NOW = np.iinfo(np.int64).max


VISITOR = np.dtype(
    [
        ("user", np.uint64),  # 0: the row is free
        ("last_ts", np.int64),  # newest event
        ("session_ts", np.int64),  # start of the session
        ("published", np.uint64),  # hash of the slate published last
        ("burst_ts", np.int64),  # when `burst` was so large
        ("burst", np.float64),  # events of late, see `flood`
        ("steps", np.int32),  # events in the session
        ("session_clicks", np.int32),
        ("click_place", np.int32),  # place of the last click in its list, from 1; 0 none
        ("last", np.uint8),  # what the newest event was
        ("context", np.uint64, CONTEXTS),  # what was told of it last, 0 where that is less
    ],
    align=True,
)
ENTRY = np.dtype(
    [
        ("item", np.uint64),  # 0: empty
        ("ts", np.int64),
        ("price", np.float32),  # -1 unknown
        ("events", np.uint16),  # how often touched
        ("category", np.uint16),
        ("brand", np.uint16),
        ("clicks", np.uint8),
        ("list_clicks", np.uint8),  # of these, in a list
        ("carts", np.uint8),
        ("purchases", np.uint8),
        ("flags", np.uint8),
    ],
    align=True,
)
SHOWN = np.dtype(
    [
        ("offset", np.int64),
        ("ts", np.int64),
        ("slate", np.uint64),
        ("start", np.int64),  # where its items start, counted over the life of the ring; 0 no list
        ("size", np.int32),
        ("surface", np.uint16),
        ("arm", np.uint8),
        ("explored", np.uint8),  # the explored place, from 1; 0 none
        ("odds", np.float32),  # of that place, as the trace has them
        ("pool", np.uint16),
        ("chosen", np.uint16),
    ],
    align=True,
)


class Memory(NamedTuple):
    """The arrays; U visitors, H history entries, Q lists. Times are ms of event time."""

    visitor: Array  # VISITOR [U]
    history: Array  # ENTRY [U, H], newest first
    lists: Array  # SHOWN [U, Q], newest first
    ring: Array  # uint64 [RING]
    head: Array  # int64 [1]: 1 + items ever put into the ring
    spare: Array  # ENTRY [1], for what is being moved
    quota: Array  # int64 [2]: newest second in which a list was made of an act, and how many were


BY_ROW = ("visitor", "history", "lists")
"""Arrays with one row per visitor."""


def blank_memory(rows: int, history: int, lists: int) -> Memory:
    """Memory of visitors of whom nothing is known."""
    return Memory(
        **_blank_rows(rows, history, lists),
        ring=np.zeros(RING, np.uint64),
        head=np.ones(1, np.int64),
        spare=np.zeros(1, ENTRY),
        quota=np.zeros(2, np.int64),
    )


def _blank_rows(rows: int, history: int, lists: int) -> dict[str, Array]:
    return {
        "visitor": np.zeros(rows, VISITOR),
        "history": np.zeros((rows, history), ENTRY),
        "lists": np.zeros((rows, lists), SHOWN),
    }


def _as_bytes(rows: Array) -> Array:
    """The same rows, uint8 [R, *]: numpy copies records field by field, and bytes 20 times as fast."""
    return rows.view(np.uint8).reshape(len(rows), rows.nbytes // max(1, len(rows)))


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
        The arrays; replaced when they grow.
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
        self.memory = blank_memory(rows, history, lists)
        self.table = Table(rows)
        self.touched = np.zeros(rows, bool)
        self._free = np.arange(rows)

    def __len__(self) -> int:
        return len(self.memory.visitor) - len(self._free)

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
        rows = np.flatnonzero(self.touched if only_touched else self.memory.visitor["user"])
        head = int(self.memory.head[0])
        # an increment still carries the whole live part of the ring: it is small beside the visitors
        live = np.arange(max(0, head - RING), head)
        kept = {name: getattr(self.memory, name).take(rows, axis=0) for name in BY_ROW}
        return kept | {
            "rows": rows,
            "evicted": self.evicted,
            "head": head,
            "quota": self.memory.quota.copy(),
            "ring": self.memory.ring[live % RING],
        }

    def load(self, kept: dict[str, Any]) -> None:
        """Take in what `state` returned: a whole one, or an increment on top of one.

        Settings may have changed since: lists that no longer fit are left out; more visitors than
        the limit stay until new ones come.
        """
        rows, head = kept["rows"], kept["head"]
        if len(rows) and rows.max() >= len(self.memory.visitor):
            self._grow(int(rows.max()) + 1)
        lists = min(self.lists, kept["lists"].shape[1])
        for name in ("visitor", "history"):
            _as_bytes(getattr(self.memory, name))[rows] = _as_bytes(kept[name])
        self.memory.lists[rows, :lists] = kept["lists"][:, :lists]
        self.table.put(kept["visitor"]["user"], rows)
        self._free = np.flatnonzero(self.memory.visitor["user"] == 0)
        live = np.arange(max(0, head - RING), head)
        self.memory.head[0], self.memory.ring[live % RING] = head, kept["ring"]
        self.memory.quota[:] = kept["quota"]
        self.evicted = kept["evicted"]

    def _admit(self, users: Array, in_use: Array) -> None:
        while len(users) > len(self._free) and len(self.memory.visitor) < self.limit:
            self._grow(min(self.limit, 2 * len(self.memory.visitor)))
        if len(users) > len(self._free):
            self._evict(len(users) - len(self._free), in_use)
        rows, self._free = self._free[: len(users)], self._free[len(users) :]
        for name in BY_ROW:
            _as_bytes(getattr(self.memory, name))[rows] = 0
        self.memory.visitor["user"][rows] = users
        self.table.put(users, rows)

    def _evict(self, least: int, in_use: Array) -> None:
        """Free the rows of `least` visitors or more, the least recently seen, none of them in use."""
        visitor = self.memory.visitor
        seen = np.where(visitor["user"] == 0, NOT_NOW, visitor["last_ts"])
        seen[in_use] = NOT_NOW
        count = min(max(least, len(seen) // EVICTED_SHARE), int(np.count_nonzero(seen != NOT_NOW)))
        rows = np.argpartition(seen, count - 1)[:count]
        visitor["user"][rows] = 0
        self.table.put(np.zeros(count, np.uint64), rows)
        self.touched[rows] = True  # so that an increment says so
        # in order, as they are found again after a restart
        self._free = np.sort(np.concatenate([self._free, rows]))
        self.evicted += count

    def _grow(self, size: int) -> None:
        before = len(self.memory.visitor)
        grown = _blank_rows(size, self.history, self.lists)
        for name, array in grown.items():
            _as_bytes(array)[:before] = _as_bytes(getattr(self.memory, name))
        self.memory = self.memory._replace(**grown)
        self.touched = np.concatenate([self.touched, np.zeros(size - before, bool)])
        self._free = np.concatenate([self._free, np.arange(before, size)])
        self.table = Table(size)
        user = np.ascontiguousarray(self.memory.visitor["user"])
        used = np.flatnonzero(user)
        self.table.put(user[used], used)
