"""What only the shop can know: how good the shown pages are, and how good they could be."""

from __future__ import annotations

from typing import Any

from stream.messages import Outcomes


class Truth:
    """Expected clicks per second and arm; a second is published once, when it is over.

    Parameters
    ----------
    run
        Number of this run, so that no other run's counts replace these.

    Examples
    --------
    >>> truth = Truth(run=1)
    >>> truth.add(1_700_000_000, "fresh", impressions=10, expected=0.5, best=2.0)
    >>> truth.add(1_700_000_000, "fresh", impressions=10, expected=0.7, best=2.0)
    >>> truth.over(1_700_000_000) is None
    True
    >>> truth.over(1_700_000_001).cubes["truth"]["expected"]
    [1.2]
    """

    def __init__(self, run: int) -> None:
        self._run = run
        self._rows: dict[tuple[int, str], list[float]] = {}

    def add(self, second: int, arm: str, impressions: int, expected: float, best: float) -> None:
        """Count one page.

        Parameters
        ----------
        second
            Of the page, s since the epoch.
        arm
            Whose slate it showed; ``none`` when nobody's.
        impressions
            Items on it.
        expected, best
            Clicks to expect from it, and from the best page for this visitor at this moment.
        """
        row = self._rows.setdefault((second, arm), [0, 0.0, 0.0])
        row[0] += impressions
        row[1] += expected
        row[2] += best

    def over(self, second: int) -> Outcomes | None:
        """Take out all seconds before this one; None when there are none."""
        done = sorted(key for key in self._rows if key[0] < second)
        if not done:
            return None
        rows = [self._rows.pop(key) for key in done]
        columns: dict[str, list[Any]] = {
            "second": [key[0] for key in done],
            "arm": [key[1] for key in done],
            "impressions": [int(row[0]) for row in rows],
            "expected": [row[1] for row in rows],
            "best": [row[2] for row in rows],
        }
        return Outcomes(
            source="shop", partition=0, block=self._run, version=done[-1][0], cubes={"truth": columns}
        )
