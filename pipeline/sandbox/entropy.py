"""Numbers from the operating system's entropy, drawn in blocks because one by one is slow."""

import os

WORD_BYTES = 8
SURPLUS = 16  # words beyond the expected need, so that a second block is rare


def draw_bytes(count: int) -> list[int]:
    """Draw integers in 0..255."""
    return list(os.urandom(count))


def draw_words(count: int) -> list[int]:
    """Draw integers in 0..65535."""
    return memoryview(os.urandom(2 * count)).cast("H").tolist()


def draw_hex(count: int, size: int) -> list[str]:
    """Draw strings of *size* bytes each, two hex digits a byte."""
    digits, width = os.urandom(count * size).hex(), 2 * size
    return [digits[at : at + width] for at in range(0, len(digits), width)]


def draw_integers(count: int, low: int, high: int) -> list[int]:
    """Draw integers in [low, high], both ends included, without bias."""
    span = high - low + 1
    # Masking to the next power of two and rejecting the rest wastes less than half.
    mask = (1 << (span - 1).bit_length()) - 1
    values: list[int] = []
    while (missing := count - len(values)) > 0:
        words = memoryview(os.urandom(WORD_BYTES * (missing * (mask + 1) // span + SURPLUS)))
        values += [low + word for each in words.cast("Q") if (word := each & mask) < span]
    return values[:count]
