"""What can be chosen about the simulated shop."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from stream.errors import SettingsError

Count = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(ge=0)]


class ShopSettings(Struct, frozen=True, kw_only=True):
    """One simulated shop; the same settings and the same slates give the same events.

    Parameters
    ----------
    seed
        Of everything random.
    visitors
        People (and bots) who come and come back.
    pages_per_s
        Pages that people see per second, all together, on average.
    page_size
        Items on a page.
    session_pages, dwell_s
        Mean pages of a session, and mean seconds between two of them.
    items
        Items on sale at any time; each birth retires one.
    drift
        Speed of all that changes: fashions, births, interests, moods, newcomers. 0 is a
        stationary world, 2 changes twice as fast.
    buy, buy_s
        Chance that what is in a cart is bought, and mean seconds until then.
    contexts
        Chance that an interest is one of those of the visitor's country.
    bots
        Share of the visitors that are bots: they click everything, fast.

    Raises
    ------
    SettingsError
        When so few visitors cannot see so many pages, or a page shows more than the shop has.

    Examples
    --------
    >>> round(ShopSettings().gap_s)
    237
    >>> ShopSettings(visitors=100)
    Traceback (most recent call last):
    stream.errors.SettingsError: 100 visitors cannot see 150 pages/s with 5 s on each: at least 758 are needed
    """

    seed: int = 0
    visitors: Count = 3_000
    pages_per_s: Annotated[float, Meta(gt=0)] = 150.0
    page_size: Annotated[int, Meta(ge=1, le=100)] = 10
    session_pages: Annotated[float, Meta(ge=1)] = 16.0
    dwell_s: Annotated[float, Meta(gt=0)] = 5.0
    items: Count = 2_000
    drift: Rate = 1.0
    buy: Annotated[float, Meta(ge=0, le=1)] = 0.45
    buy_s: Annotated[float, Meta(gt=0)] = 25.0
    contexts: Annotated[float, Meta(ge=0, le=1)] = 0.0
    bots: Annotated[float, Meta(ge=0, le=1)] = 0.01

    def __post_init__(self) -> None:
        if self.gap_s < 0:
            raise SettingsError(
                f"{self.visitors} visitors cannot see {self.pages_per_s:g} pages/s with {self.dwell_s:g} s "
                f"on each: at least {self.pages_per_s * self.dwell_s / (1 - self.bots):.0f} are needed"
            )
        if self.page_size > self.items:
            raise SettingsError(f"a page of {self.page_size} needs more than {self.items} items")

    @property
    def gap_s(self) -> float:
        """Mean seconds between two sessions of a person, so that all together see `pages_per_s`."""
        people = self.visitors * (1 - self.bots)
        return self.session_pages * (people / self.pages_per_s - self.dwell_s)
