"""What rank holds of one partition."""

from __future__ import annotations

from stream.rank.recent import Recent
from stream.rank.visitors import Visitors
from stream.settings import Settings

MAX_SURFACES = 256


class Share:
    """State of one partition: its visitors, the event ids seen lately, how far time has come."""

    def __init__(self, settings: Settings) -> None:
        f = settings.features
        self.visitors = Visitors(max(f.users // settings.kafka.partitions, 8192), f.history, f.lists)
        self.recent = Recent(int(f.event_id_window_s * 1000))
        self.surfaces = [""]
        self.newest_ts = 0
        self.since_checkpoint = 0
        self.checkpointed = 0.0

    def surface(self, name: str) -> int:
        """Code of a surface; beyond `MAX_SURFACES` they are counted together."""
        if name not in self.surfaces:
            if len(self.surfaces) >= MAX_SURFACES:
                return 0
            self.surfaces.append(name)
        return self.surfaces.index(name)
