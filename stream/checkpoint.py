"""Where state rests between two runs: files written whole or not at all, newest valid one first.

A checkpoint is state together with the input positions that it reflects. The log is the truth;
a checkpoint only shortens the replay, so an unreadable one is skipped for the one before it.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
        Number of the whole checkpoint that this one only adds to; -1 for a whole one.
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
        descr = value.dtype.descr if value.dtype.names else value.dtype.str
        head = msgspec.msgpack.encode((descr, value.shape))
        return msgspec.msgpack.Ext(_ARRAY, len(head).to_bytes(2, "little") + head + value.tobytes())
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _decode_array(code: int, data: memoryview) -> np.ndarray:
    size = int.from_bytes(data[:2], "little")
    descr, shape = msgspec.msgpack.decode(data[2 : 2 + size])
    structured = not isinstance(descr, str)
    dtype = np.lib.format.descr_to_dtype([tuple(field) for field in descr] if structured else descr)
    return np.frombuffer(data[2 + size :], dtype).reshape(shape).copy()


_FILE = re.compile(r"-(\d{8})-(\d{10})-(\d{10})\.checkpoint")


class _Name(NamedTuple):
    """What names a checkpoint of a unit, in the order in which they were written.

    >>> _Name.parse("rank-3-00000002-0000000007-0000000001.checkpoint")
    _Name(epoch=2, whole=7, increment=1)
    """

    epoch: int
    whole: int
    increment: int

    def file(self, unit: str) -> str:
        return f"{unit}-{self.epoch:08d}-{self.whole:010d}-{self.increment:010d}.checkpoint"

    @classmethod
    def parse(cls, file: str) -> _Name | None:
        match = _FILE.search(file)
        return cls(*map(int, match.groups())) if match else None


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
            partial.unlink(missing_ok=True)
            raise self._refused("write", name, error) from None
        return zlib.crc32(data)

    def get(self, name: str, checksum: int) -> bytes:
        """Read one file; raises `Retryable` when it is not there or not what was written."""
        try:
            data = (self.path / name).read_bytes()
        except OSError as error:
            raise self._refused("read", name, error) from None
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
            name = f"{unit}.epoch-{epoch:08d}"
            try:
                (self.path / name).open("x").close()
            except FileExistsError:
                epoch += 1
            except OSError as error:
                raise self._refused("write", name, error) from None
            else:
                self.prune(f"{unit}.epoch-", KEPT)
                return epoch

    def newest_epoch(self, unit: str) -> int:
        """The highest epoch claimed, 0 when none is."""
        claimed = [int(p.name.rpartition("-")[2]) for p in self.path.glob(f"{unit}.epoch-*")]
        return max(claimed + [name.epoch for name in self._names(unit)], default=0)

    def write(self, unit: str, checkpoint: Checkpoint, epoch: int) -> int:
        """Write the next checkpoint of a unit; returns the number of the whole one in it.

        Parameters
        ----------
        epoch
            What `claim` gave to whoever writes. Readers take the highest epoch, and nobody removes
            files of a higher one: who was taken for dead and wakes up does no harm.

        Raises
        ------
        Retryable
            When the disk refuses.
        """
        own = [name for name in self._names(unit) if name.epoch == epoch]
        last = own[-1] if own else _Name(epoch, -1, 0)
        if checkpoint.base < 0:
            name = _Name(epoch, last.whole + 1, 0)
        else:
            name = _Name(epoch, checkpoint.base, last.increment + 1)
        body = pack(checkpoint)
        self.put(name.file(unit), zlib.crc32(body).to_bytes(4, "little") + body)
        self._tidy(unit, name)
        return name.whole

    def read(self, unit: str, schema: int, identity: str) -> list[Checkpoint]:
        """The newest readable checkpoint: the whole one, then what adds to it; empty when there is none."""
        for name in reversed(self._names(unit)):
            newest = self._read(self.path / name.file(unit), schema, identity)
            if newest is None:
                continue
            if newest.base < 0:
                return [newest]
            whole = name._replace(increment=0)
            base = self._read(self.path / whole.file(unit), schema, identity)
            if base is not None:
                return [base, newest]
        return []

    def _names(self, unit: str) -> list[_Name]:
        """Checkpoints of a unit, oldest first."""
        return sorted(name for p in self.path.glob(f"{unit}-*.checkpoint") if (name := _Name.parse(p.name)))

    def _tidy(self, unit: str, newest: _Name) -> None:
        """Keep up to `newest` the last whole checkpoints, each with its last increment; remove the others."""
        older = [name for name in self._names(unit) if name <= newest]
        last = {name[:2]: name for name in older}
        kept = set(sorted(last)[-KEPT:])
        for name in older:
            if name[:2] not in kept or (name.increment and name != last[name[:2]]):
                (self.path / name.file(unit)).unlink(missing_ok=True)
        for path in self.path.glob(f".{unit}-*.checkpoint.*"):  # of somebody who died while writing
            if (left := _Name.parse(path.name)) and left <= newest:
                path.unlink(missing_ok=True)

    def _refused(self, verb: str, name: str, error: OSError) -> Retryable:
        return Retryable(f"checkpoint store {self.path}: cannot {verb} {name}: {error.strerror}")

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
