"""Rules of keeping the scoring graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import export
from models.batch import Shape


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Shape]:
    """Shapes that were exported, which takes no time here."""
    made: list[Shape] = []

    def quickly(shape: Shape) -> bytes:
        made.append(shape)
        return b"graph"

    monkeypatch.setattr(export, "export", quickly)
    return made


def test_a_graph_is_exported_once(exports: list[Shape], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "graphs"
    assert [export.cached(Shape(), folder) for _ in range(2)] == [b"graph"] * 2
    assert len(exports) == 1


def test_a_folder_that_cannot_be_written_to_costs_only_time(exports: list[Shape], tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert [export.cached(Shape(), occupied) for _ in range(2)] == [b"graph"] * 2
    assert len(exports) == 2
