"""What the kernels read besides the visitors and the catalogue."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray


class Known(NamedTuple):
    """What train has counted, as kernels read it; R item rows, C category buckets, K neighbours."""

    keys: NDArray[Any]  # uint64, hash table of `models.table.find`
    rows: NDArray[Any]  # int32
    stats: NDArray[Any]  # float32 [R, S]
    stats_at: NDArray[Any]  # int64 [R]
    first_seen: NDArray[Any]  # int64 [R]
    category_stats: NDArray[Any]  # float32 [C, S]
    category_stats_at: NDArray[Any]  # int64 [C]
    context_stats: NDArray[Any]  # float32 [C, S]
    context_stats_at: NDArray[Any]  # int64 [C]
    near: NDArray[Any]  # uint64 [R, K]
    near_weight: NDArray[Any]  # float32 [R, K]
    near_next: NDArray[Any]  # uint8 [R, K]
    near_often: NDArray[Any]  # uint8 [R, K]
    near_at: NDArray[Any]  # int64 [R]
    prior: NDArray[Any]  # float32 [4]
    total: float  # impressions (long) of all items
    cold: int
    half_life_short: float
    half_life_long: float
    history_half_life: float  # of history entries, where neighbours are added up
    near_half_life: float  # of the neighbours' weights


class Limits(NamedTuple):
    """What the kernels need of the settings; times in ms."""

    session_gap: int
    list_window: int
    exclude_bought: bool
    next_per_second: int  # lists made of acts, see `stream.rank.next_item`
