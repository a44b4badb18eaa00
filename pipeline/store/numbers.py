"""The numbers of a batch as bytes, and the digest that finds a flipped bit. Pure.

Each number is kept as its distance from the batch's ``min``, in the fewest of 1, 2, 4 or 8 bytes
that hold ``max - min``, little-endian: a roll of a die costs one byte. SQLite keeps no checksums,
and most flipped bits pass its own checks, so every batch has a digest over what it means.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from pipeline.models import BatchRecord

CODES = ((1 << 8, "B"), (1 << 16, "H"), (1 << 32, "I"), (1 << 64, "Q"))


@lru_cache  # a store has few kinds of batches and many of each
def _layout(n: int, low: int, high: int) -> str:
    code = next(code for limit, code in CODES if high - low < limit)
    return f"<{n}{code}"


def pack(numbers: Sequence[int], low: int, high: int) -> bytes:
    """Write *numbers*, all of them in [*low*, *high*], in as few bytes as that range needs."""
    offsets = [number - low for number in numbers] if low else numbers
    return struct.pack(_layout(len(numbers), low, high), *offsets)


def unpack(packed: bytes, n: int, low: int, high: int) -> tuple[int, ...]:
    """Read back what ``pack`` wrote.

    Raises:
        ValueError: *packed* is not as long as *n* numbers of that range are.
    """
    layout = _layout(n, low, high)
    if len(packed) != struct.calcsize(layout):
        raise ValueError(f"{len(packed)} bytes are not {n} numbers in [{low}, {high}]")
    offsets = struct.unpack(layout, packed)
    return tuple(offset + low for offset in offsets) if low else offsets


def digest_of(packed: bytes, n: int, low: int, high: int) -> bytes:
    """Hash what was collected (SHA-256, 32 bytes), whichever source it came from."""
    return sha256(struct.pack("<3q", n, low, high) + packed).digest()


def is_sound(packed: bytes, n: int, low: int, high: int, *, total: int, digest: bytes) -> bool:
    """Tell whether *packed* is what was collected, and adds up to *total*.

    Raises:
        TypeError, ValueError, struct.error: not even the kinds of the values are right.
    """
    if digest != digest_of(packed, n, low, high):
        return False
    layout = _layout(n, low, high)
    # Bytes are their own numbers, and most sources give no larger ones.
    offsets = packed if layout.endswith("B") else struct.unpack(layout, packed)
    return sum(offsets) + n * low == total


def is_intact(batch: BatchRecord) -> bool:
    """Tell whether a batch read back from the store still says what was collected.

    Of a batch whose numbers were not kept (or not read) there is nothing left to compare.
    """
    if batch.packed is None:
        return True
    if batch.sum is None or batch.digest is None:
        return False
    return is_sound(
        batch.packed, batch.n, batch.min, batch.max, total=batch.sum, digest=batch.digest
    )
