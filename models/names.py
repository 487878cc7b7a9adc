"""Names of items: of those that have a row, and of a bounded number that may get one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from models.batch import Array


class Names:
    """Names by row, and by id for ids without a row; of those, the oldest are forgotten first.

    Parameters
    ----------
    waiting
        How many ids without a row keep their name.

    Attributes
    ----------
    of_row : dict[int, str]

    Examples
    --------
    >>> names = Names(waiting=2)
    >>> names.hear({7: "red shoe"}, {})
    []
    >>> names.give([7], [0])
    >>> names.of_row
    {0: 'red shoe'}
    """

    def __init__(self, waiting: int) -> None:
        self.of_row: dict[int, str] = {}
        # finding the first of a plain dict costs as much as was taken from its front before
        self.waiting: OrderedDict[int, str] = OrderedDict()
        self._limit = waiting

    def hear(self, names: Mapping[int, str], rows: Mapping[int, int]) -> list[int]:
        """Take up names by id; return the rows (of `rows`, by id) that had none before."""
        named = []
        for id_, name in names.items():
            row = rows.get(id_, -1)
            if row < 0:
                self._wait(id_, name)
            elif row not in self.of_row:
                self.of_row[row] = name
                named.append(row)
        return named

    def take_back(self, rows: list[int], ids: list[int]) -> None:
        """The ids lose their rows; their names wait, in case they come back."""
        for row, id_ in zip(rows, ids, strict=True):
            name = self.of_row.pop(row, None)
            if name is not None:
                self._wait(id_, name)

    def give(self, ids: list[int], rows: list[int]) -> None:
        """The ids have these rows now."""
        for id_, row in zip(ids, rows, strict=True):
            name = self.waiting.pop(id_, None)
            if name is not None:
                self.of_row[row] = name

    def load(self, of_row: dict[int, str], waiting: dict[int, str]) -> None:
        """Go on from what was known when these attributes were kept."""
        self.of_row, self.waiting = of_row, OrderedDict(waiting)

    def _wait(self, id_: int, name: str) -> None:
        self.waiting.pop(id_, None)
        self.waiting[id_] = name
        while len(self.waiting) > self._limit:
            self.waiting.popitem(last=False)


def by_id(ids: Array, rows: Array) -> dict[int, int]:
    """Row of each id."""
    return dict(zip(ids.tolist(), rows.tolist(), strict=True))
