"""The train role, as the runner sees it: one unit of state for all partitions together."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch

from models.kernels import user_cache
from models.learner import Learner, compile_kernels
from stream.checkpoint import Checkpoint, Store
from stream.counts import source_name
from stream.errors import Fatal
from stream.log import Output, Records
from stream.messages import CUBES
from stream.settings import Settings, shape_of
from stream.train.session import Session
from stream.train.versions import UNIT

STATE = 13
"""Version of what a checkpoint holds."""


def new_learner(settings: Settings) -> Learner:
    """A learner that knows nothing yet, as the settings want it."""
    train = settings.train
    return Learner(
        shape_of(settings),
        seed=train.seed,
        device=train.device,
        learning_rate=train.learning_rate,
        bfloat16=train.bfloat16,
        cuda_graphs=train.cuda_graphs,
        delayed=train.delayed,
        policy=train.policy,
        graphs=user_cache() / "graphs",
    )


class Train:
    """Learns from `examples`, publishes to `model`, counts into `outcomes`.

    It commits only what a checkpoint holds: what came after is read, predicted and learned again, by
    the next epoch.

    Parameters
    ----------
    settings
        All of them.
    store
        For checkpoints, epochs and snapshots.
    log_name
        `Log.identity` of the examples: counts of another log are not these counts.
    make
        Makes the learner for `settings`.
    """

    name = "train"
    input = "examples"
    broadcasts: tuple[str, ...] = ()
    commits_each_batch = False

    def __init__(
        self,
        settings: Settings,
        store: Store,
        log_name: str = "",
        make: Callable[[Settings], Learner] = new_learner,
    ) -> None:
        self.settings, self.store, self._make = settings, store, make
        self._source = source_name(self.name, log_name)
        self.schema = zlib.crc32(repr((STATE, shape_of(settings).schema, CUBES)).encode())
        self.session: Session | None = None
        self._prepared: Learner | None = None

    def prepare(self) -> None:
        """Make a learner and its scoring graph: seconds, which must not pass while others wait for us."""
        torch.set_num_threads(1)  # batches are small: more threads gain little and take cores from rank
        compile_kernels(shape_of(self.settings))
        self._prepared = self._make(self.settings)
        self._prepared.graph()

    def units(self, partitions: list[int]) -> dict[str, list[int]]:
        """One unit, whatever the partitions."""
        return {UNIT: partitions} if partitions else {}

    def restore(self, unit: str, partitions: list[int], checkpoints: list[Checkpoint]) -> None:
        """Begin a new epoch, from the checkpoint or from nothing.

        Raises
        ------
        Retryable
            When the store cannot be written.
        """
        state = checkpoints[-1].state if checkpoints else None
        learner, self._prepared = self._prepared or self._make(self.settings), None
        self.session = Session(self.settings, self.store, learner, self._source, partitions, state)

    def drop(self, unit: str) -> None:
        """Forget everything: another process has it now."""
        self.session = None

    def absorb(self, records: Records, now: float) -> list[Output]:
        """Nothing is broadcast to train."""
        return []

    def process(self, records: Records, now: float, quiet: bool) -> list[Output]:
        """Decode messages; returns dead letters. All else happens in `tick`, for all partitions together."""
        return self._own().process(records, now)

    def tick(self, now: float) -> list[Output]:
        """Learn, publish, count: what is due."""
        return self.session.tick(now) if self.session else []

    def settled(self, now: float) -> None:
        """What was returned is acknowledged."""
        if self.session:
            self.session.publisher.settled(now)

    def state(self, unit: str, sequence: int) -> tuple[dict[str, Any], int, int]:
        """Everything, whole each time; and the event time (ms) that the model has learned up to."""
        session = self._own()
        state = session.state()
        return state, state["publisher"]["through"], -1

    def checkpoint_due(self, unit: str, now: float) -> bool:
        """Whether a snapshot has just been named: then the checkpoint holds the same version."""
        return self.session is not None and self.session.publisher.checkpoint_due

    def gap(self, partition: int, count: int) -> None:
        """Count messages that expired before they were read."""
        if self.session:
            self.session.gap(partition, count)

    def _own(self) -> Session:
        if self.session is None:
            raise Fatal("train has no partitions")
        return self.session
