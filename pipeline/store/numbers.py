"""Pack the numbers of a batch into bytes, with a digest that finds a flipped bit. Pure.

Each number is kept as its distance from the batch's ``min``, in the fewest of 1, 2, 4 or 8 bytes
that hold ``max - min``, little-endian: a roll of a die costs one byte. SQLite keeps no checksums,
and most flipped bits pass its own checks, so every batch has a digest over what it means. Where the
numbers are kept, 8 bytes of it are kept beside them: they tell damage, and the whole follows from
the numbers. Where they are not, all 32 bytes are.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from math import ceil, log2

from pipeline.models import Batch, Outcome, Verdict

CODES = ((1 << 8, "B"), (1 << 16, "H"), (1 << 32, "I"), (1 << 64, "Q"))
CHECK_BYTES = 8  # of a digest that are kept beside the numbers
FRESH_BITS = 64  # with fewer the same numbers may come twice by chance


@lru_cache  # a store has few kinds of batches and many of each
def _layout(n: int, low: int, high: int) -> str:
    code = next(code for limit, code in CODES if high - low < limit)
    return f"<{n}{code}"


def width_of(low: int, high: int) -> int:
    """Tell in how many bytes each number in [*low*, *high*] is kept."""
    return struct.calcsize(_layout(1, low, high))


def count_telling(low: int, high: int) -> int | None:
    """Count how many numbers in a row cannot well come twice by chance; None: any may."""
    return ceil(FRESH_BITS / log2(high - low + 1)) if low < high else None


def pack(numbers: Sequence[int], low: int, high: int) -> bytes:
    """Write *numbers*, all of them in [*low*, *high*], in as few bytes as that range needs."""
    offsets = [number - low for number in numbers] if low else numbers
    return struct.pack(_layout(len(numbers), low, high), *offsets)


def unpack(packed: bytes, n: int, low: int, high: int) -> tuple[int, ...]:
    """Read back what ``pack`` wrote.

    Raises:
        ValueError: *packed* is not as long as *n* numbers of that range are.
    """
    return tuple(offset + low for offset in distances(packed, n, low, high))


def distances(packed: bytes, n: int, low: int, high: int) -> Sequence[int]:
    """Read how far each number is above *low*.

    Raises:
        ValueError: *packed* is not as long as *n* numbers of that range are.
    """
    layout = _layout(n, low, high)
    if len(packed) != struct.calcsize(layout):
        raise ValueError(f"{len(packed)} bytes are not {n} numbers in [{low}, {high}]")
    # Bytes are their own numbers, and most sources give no larger ones.
    return packed if layout.endswith("B") else struct.unpack(layout, packed)


def digest_of(packed: bytes, n: int, low: int, high: int) -> bytes:
    """Hash what was collected (SHA-256, 32 bytes), whichever source it came from."""
    return sha256(struct.pack("<3q", n, low, high) + packed).digest()


def stored_digest(digest: bytes | None, packed: bytes | None) -> bytes | None:
    """Choose what is kept of a digest, if the numbers are kept *packed* or, None, are not."""
    return digest if digest is None or packed is None else digest[:CHECK_BYTES]


def whole_digest(
    digest: bytes | None, packed: bytes | None, n: int, low: int, high: int
) -> bytes | None:
    """Give the digest of a stored batch in whole, unless it is not that of the numbers there."""
    if digest is None or packed is None:
        return digest
    try:
        whole = digest_of(packed, n, low, high)
    except (TypeError, struct.error):  # not even the kinds of the values are right
        return digest
    return whole if whole[:CHECK_BYTES] == digest else digest


def collected(
    batch: Batch, numbers: Sequence[int], *, fetch: int, attempt: int, offset: int
) -> Outcome:
    """Make the outcome of a *batch* that came: its *numbers* packed, hashed and added up."""
    packed = pack(numbers, batch.min, batch.max)
    return Outcome(
        batch=batch,
        verdict=Verdict.COLLECTED,
        fetch=fetch,
        attempt=attempt,
        offset=offset,
        sum=sum(numbers),
        digest=digest_of(packed, batch.n, batch.min, batch.max),
        numbers=packed,
    )


def is_sound(packed: bytes, n: int, low: int, high: int, *, total: int, digest: bytes) -> bool:
    """Tell whether *packed* is what was collected by the *digest* beside it, and has this *total*.

    Raises:
        TypeError, ValueError, struct.error: not even the kinds of the values are right.
    """
    if digest != digest_of(packed, n, low, high)[:CHECK_BYTES]:
        return False
    return sum(distances(packed, n, low, high)) + n * low == total
