"""The simulated shop: a client like any other, with a truth that only it knows.

`ShopSettings` say how large it is and how fast it changes, `World` and `Visitors` are its truth,
`Shop` publishes what happens and shows what is recommended, `run` drives it in real time or faster.
"""

from stream.shop.client import Shop
from stream.shop.drive import run
from stream.shop.settings import ShopSettings

__all__ = ["Shop", "ShopSettings", "run"]
