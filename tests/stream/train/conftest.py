from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch

from models.export import cached
from models.learner import Learner
from stream.settings import Checkpoints, Settings, Train, shape_of

SMALL = Settings(
    train=Train(
        rows=2048,
        width=8,
        hidden=16,
        buffer_lists=2000,
        click_wait_s=2.0,
        evaluate_after_s=4.0,
        conversion_wait_s=5.0,
        snapshot_s=5.0,
        frozen_after_s=10.0,
        device="cpu",
    )
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the scoring graph of `SMALL`."""
    folder = tmp_path_factory.mktemp("graphs")
    cached(shape_of(SMALL), folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return msgspec.structs.replace(SMALL, checkpoints=Checkpoints(path=str(tmp_path / "store")))


@pytest.fixture
def make(graphs: Path) -> Callable[[Settings], Learner]:
    """Makes a learner whose scoring graph is there already."""
    return lambda settings: Learner(shape_of(settings), device="cpu", graphs=graphs)
