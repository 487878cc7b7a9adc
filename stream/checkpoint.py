"""Where state rests between two runs: files written whole or not at all, newest valid one first.

A checkpoint is state together with the input positions that it reflects. The log is the truth;
a checkpoint only shortens the replay, so an unreadable one is skipped for the one before it.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from stream.errors import Fatal, Retryable
from stream.log import Positions

FORMAT = 1
KEPT = 2
"""Whole checkpoints kept per unit: the newest, and one to fall back on."""

_ARRAY = 1
logger = logging.getLogger(__name__)


class Checkpoint(Struct, frozen=True, kw_only=True):
    """State of one unit of a role, and what it reflects.

    Attributes
    ----------
    schema
        Checksum of the layout of `state`; another one is not read.
    identity
        Which log this is about (cluster, topic, partition count): positions of another mean nothing.
    positions
        Next offset to read, per partition of the role's input.
    newest_ts
        Newest event time (ms) that the state has seen.
    base
        Sequence number of the whole checkpoint that this one only adds to; -1 for a whole one.
    state
        Plain data and numpy arrays.
    """

    schema: int
    identity: str
    positions: Positions
    newest_ts: int
    state: dict[str, Any]
    base: int = -1
    format: int = FORMAT


def pack(value: object) -> bytes:
    """MessagePack of plain data, structs and numpy arrays.

    >>> unpack(pack({"x": np.arange(3)}))["x"].tolist()
    [0, 1, 2]
    """
    return msgspec.msgpack.encode(value, enc_hook=_encode_array)


def unpack(data: bytes, kind: Any = Any) -> Any:
    """Read what `pack` wrote; arrays are writable copies."""
    return msgspec.msgpack.decode(data, type=kind, ext_hook=_decode_array)


def _encode_array(value: object) -> msgspec.msgpack.Ext:
    if isinstance(value, np.ndarray):
        head = msgspec.msgpack.encode((value.dtype.str, value.shape))
        return msgspec.msgpack.Ext(_ARRAY, len(head).to_bytes(2, "little") + head + value.tobytes())
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _decode_array(code: int, data: memoryview) -> np.ndarray:
    size = int.from_bytes(data[:2], "little")
    dtype, shape = msgspec.msgpack.decode(data[2 : 2 + size])
    return np.frombuffer(data[2 + size :], dtype).reshape(shape).copy()


class Store:
    """A directory of checkpoints and snapshots.

    Parameters
    ----------
    path
        Created when it is missing.

    Raises
    ------
    Fatal
        When the directory cannot be created or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Fatal(f"checkpoint store {path}: {error.strerror}") from None

    def put(self, name: str, data: bytes) -> int:
        """Write one file atomically; returns its crc32. Raises `Retryable` when the disk refuses."""
        partial = self.path / f".{name}.{os.getpid()}"
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path / name)
        except OSError as error:
            raise Retryable(f"checkpoint store {self.path}: cannot write {name}: {error.strerror}") from None
        return zlib.crc32(data)

    def get(self, name: str, checksum: int) -> bytes:
        """Read one file; raises `Retryable` when it is not there or not what was written."""
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise Retryable(f"checkpoint store {self.path}: cannot read {name}: {error.strerror}") from None
        if zlib.crc32(data) != checksum:
            raise Retryable(f"checkpoint store {self.path}: {name} is damaged (checksum)")
        return data

    def prune(self, prefix: str, keep: int) -> None:
        """Remove all but the newest `keep` files whose name starts with `prefix`, by name."""
        for path in sorted(self.path.glob(f"{prefix}*"))[:-keep]:
            path.unlink(missing_ok=True)

    def claim(self, unit: str) -> int:
        """Take the next epoch of a unit: nobody else ever gets the same number."""
        epoch = self.newest_epoch(unit) + 1
        while True:
            try:
                (self.path / f"{unit}.epoch-{epoch:08d}").open("x").close()
            except FileExistsError:
                epoch += 1
            else:
                self.prune(f"{unit}.epoch-", KEPT)
                return epoch

    def newest_epoch(self, unit: str) -> int:
        """The highest epoch claimed, 0 when none is."""
        return max((int(p.name.rpartition("-")[2]) for p in self.path.glob(f"{unit}.epoch-*")), default=0)

    def write(self, unit: str, checkpoint: Checkpoint) -> int:
        """Write the next checkpoint of a unit; returns its sequence number."""
        files = self._files(unit)
        sequence = int(files[-1].stem.rpartition("-")[2]) + 1 if files else 0
        body = pack(checkpoint)
        self.put(f"{unit}-{sequence:010d}.checkpoint", zlib.crc32(body).to_bytes(4, "little") + body)
        if checkpoint.base < 0:
            for path in files[: -KEPT + 1] if KEPT > 1 else files:
                path.unlink(missing_ok=True)
        else:  # an increment replaces the one before it
            for path in files:
                if int(path.stem.rpartition("-")[2]) > checkpoint.base:
                    path.unlink(missing_ok=True)
        return sequence

    def read(self, unit: str, schema: int, identity: str) -> list[Checkpoint]:
        """The newest readable checkpoint: the whole one, then what adds to it; empty when there is none."""
        for path in reversed(self._files(unit)):
            newest = self._read(path, schema, identity)
            if newest is None:
                continue
            if newest.base < 0:
                return [newest]
            base = self._read(self.path / f"{unit}-{newest.base:010d}.checkpoint", schema, identity)
            if base is not None:
                return [base, newest]
        return []

    def _files(self, unit: str) -> list[Path]:
        return sorted(self.path.glob(f"{unit}-*.checkpoint"))

    def _read(self, path: Path, schema: int, identity: str) -> Checkpoint | None:
        try:
            data = path.read_bytes()
            if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
                raise ValueError("checksum does not match")
            found: Checkpoint = unpack(data[4:], Checkpoint)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            logger.warning("%s: not readable, using an older one: %s", path.name, error)
            return None
        wanted: Mapping[str, Any] = {"format": FORMAT, "schema": schema, "identity": identity}
        for key, value in wanted.items():
            if getattr(found, key) != value:
                logger.warning(
                    "%s: written for %s %s, not %s: not used", path.name, key, getattr(found, key), value
                )
                return None
        return found
