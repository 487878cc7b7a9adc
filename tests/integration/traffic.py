"""A steady stream of impressions and clicks, and what the views must say of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from stream.messages import slate_decoder
from tests.integration.outside import Client, Reader, until

PACE_S = 0.01
LIST = 4


class Traffic:
    """Publishes in a thread, for the time of a ``with`` block; `surface` names what is its own."""

    def __init__(self, client: Client, surface: str) -> None:
        self.client, self.surface = client, surface
        self.lists = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.client.flush()

    def _publish(self) -> None:
        while not self._over.wait(PACE_S):
            user, n = f"{self.surface}-{self.lists % 97}", self.lists
            shown = [f"crash-{(n + k) % 50}" for k in range(LIST)]
            self.client.event("impression", user, items=shown, surface=self.surface)
            self.client.event("click", user, item_id=shown[n % LIST])
            self.lists = n + 1

    def expected(self) -> list[dict[str, int]]:
        """Rows of the view by position."""
        return [
            {"position": k + 1, "i": self.lists, "c": len(range(k, self.lists, LIST))} for k in range(LIST)
        ]

    def counted(self) -> list[dict[str, int]]:
        """What the view has instead."""
        return self.client.ask(
            "SELECT position, sum(impressions) AS i, sum(clicks) AS c FROM ctr "
            f"WHERE surface = '{self.surface}' GROUP BY position ORDER BY position"
        )

    def is_counted_exactly(self, seconds: float = 30) -> None:
        """Wait until the views say exactly what was published, and look again a little later."""
        client = self.client
        until(lambda: self.counted() == self.expected(), seconds, lambda: (self.expected(), self.counted()))
        until(client.balanced, 10, client.health)
        time.sleep(1.2)  # counts are sent every second: whatever is sent again must change nothing
        assert self.counted() == self.expected()
        assert client.balanced(), client.health()


def click_is_answered(client: Client, user: str, why: Callable[[], object]) -> None:
    """Click once, and wait for the slate that reflects it."""
    with Reader(client, "recommendations") as reader:
        place = client.event("click", user, item_id="crash-1")
        client.flush()

        def answered() -> bool:
            mine = [one.value or b"" for one in list(reader.arrived) if one.key == user.encode()]
            return any(slate_decoder.decode(value).event.offset >= place[0].offset for value in mine)

        until(answered, 20, why)
