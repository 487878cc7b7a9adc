from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.export import cached
from tests.models.toy import SHAPE


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the scoring graph of `toy.SHAPE`."""
    folder = tmp_path_factory.mktemp("graphs")
    cached(SHAPE, folder)
    return folder
