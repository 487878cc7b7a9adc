"""Recorded streams as events: `read` a file, `refuse_old` data, `replay` it, paced by `Flow`.

::

    recording = read(path, "trivago")
    refuse_old(recording.records, newest_ms(log), tolerance_ms)
    flow = Flow(log, clock, sleep, recording.window())
    replay(recording.records, log.sink(), pace=flow.wait, ...)
"""

from stream.replay.flow import Flow, newest_ms
from stream.replay.formats import FORMATS, Recorded
from stream.replay.play import refuse_old, replay
from stream.replay.recording import Broken, Recording, read

__all__ = ["FORMATS", "Broken", "Flow", "Recorded", "Recording", "newest_ms", "read", "refuse_old", "replay"]
