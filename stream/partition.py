"""Which partition a key belongs to: murmur2, as Java's producers have it.

librdkafka's own default (CRC32) puts most keys elsewhere: its producers set
``partitioner=murmur2_random``.
"""

from __future__ import annotations

from functools import lru_cache

import numba

_SEED = 0x9747B28C
_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF


@numba.njit(cache=True)
def murmur2(key: bytes) -> int:
    """32-bit MurmurHash2 of a key, unsigned, with Kafka's seed.

    The function is `org.apache.kafka.common.utils.Utils.murmur2`.

    Examples
    --------
    >>> [murmur2(key) for key in (b"21", b"foobar", b"abc")]
    [3321034988, 3504634814, 479470107]
    """
    size = len(key)
    h = _SEED ^ size
    whole = size - size % 4
    for k in range(0, whole, 4):
        word = key[k] | key[k + 1] << 8 | key[k + 2] << 16 | key[k + 3] << 24
        word = word * _MULTIPLIER & _MASK
        word = (word ^ word >> 24) * _MULTIPLIER & _MASK
        h = h * _MULTIPLIER & _MASK ^ word
    if whole < size:
        for k in range(whole, size):
            h ^= key[k] << 8 * (k - whole)
        h = h * _MULTIPLIER & _MASK
    h = (h ^ h >> 13) * _MULTIPLIER & _MASK
    return h ^ h >> 15


@lru_cache(maxsize=1 << 16)  # keys repeat
def partition_of(key: bytes, count: int) -> int:
    r"""Partition of a key among `count`.

    Examples
    --------
    The vectors with which kafka-python checks itself against Java's partitioner:

    >>> [partition_of(key, 1000) for key in (b"", b"a", b"ab", b"abc", b"123456789", b"\x00 ")]
    [681, 524, 434, 107, 566, 742]
    """
    return (murmur2(key) & 0x7FFFFFFF) % count
