"""The bytes of a batch's numbers, and what finds a flipped bit in them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models import BatchRecord, Verdict
from pipeline.store.numbers import count_telling, digest_of, pack, unpack, width_of
from tests.store.makers import is_intact

BOUND = 2**53 - 1


@st.composite
def ranges_with_numbers(draw: st.DrawFn) -> tuple[int, int, tuple[int, ...]]:
    """Draw a range and some numbers in it, often at its ends."""
    bound = draw(st.sampled_from([1, 2**8, 2**16, 2**32, BOUND]))
    low, high = sorted((draw(st.integers(-bound, bound)), draw(st.integers(-bound, bound))))
    number = st.sampled_from([low, high]) | st.integers(low, high)
    return low, high, tuple(draw(st.lists(number, min_size=1, max_size=40)))


def record_of(low: int, high: int, numbers: tuple[int, ...]) -> BatchRecord:
    """Say what the store would give back for a batch that was collected."""
    packed = pack(numbers, low, high)
    return BatchRecord(
        run_id=1,
        number=0,
        source="dice",
        is_sandbox=False,
        n=len(numbers),
        min=low,
        max=high,
        verdict=Verdict.COLLECTED,
        fetch=0,
        attempt=1,
        offset=0,
        sum=sum(numbers),
        packed=packed,
        digest=digest_of(packed, len(numbers), low, high),
        error=None,
        detail=None,
        not_before=None,
    )


@given(ranges_with_numbers())
def test_what_is_packed_comes_back(drawn: tuple[int, int, tuple[int, ...]]) -> None:
    """The numbers of last year must be the numbers that were received, whatever their range."""
    low, high, numbers = drawn

    packed = pack(numbers, low, high)

    assert unpack(packed, len(numbers), low, high) == numbers


@pytest.mark.parametrize(
    ("low", "high", "width"),
    [
        (5, 5, 1),
        (1, 6, 1),
        (0, 255, 1),
        (0, 256, 2),
        (-32_768, 32_767, 2),
        (0, 65_536, 4),
        (0, 2**32 - 1, 4),
        (0, 2**32, 8),
        (-BOUND, BOUND, 8),
    ],
)
def test_a_number_takes_the_fewest_bytes_its_range_allows(low: int, high: int, width: int) -> None:
    """A year of dice must not cost eight times what it needs."""
    assert len(pack((low, high), low, high)) == 2 * width


@pytest.mark.parametrize("length", [0, 2, 4])
def test_bytes_of_another_length_are_refused(length: int) -> None:
    """A cut blob must not turn into fewer numbers."""
    with pytest.raises(ValueError, match="bytes are not 3 numbers"):
        unpack(bytes(length), 3, 1, 6)


@given(ranges_with_numbers())
def test_a_batch_as_collected_is_intact(drawn: tuple[int, int, tuple[int, ...]]) -> None:
    """A check that cries wolf is soon ignored."""
    assert is_intact(record_of(*drawn))


@given(ranges_with_numbers(), st.data())
def test_any_flipped_bit_of_the_numbers_is_found(
    drawn: tuple[int, int, tuple[int, ...]], data: st.DataObject
) -> None:
    """SQLite keeps no checksums, so nobody else would notice."""
    record = record_of(*drawn)
    assert record.packed is not None
    bit = data.draw(st.integers(0, 8 * len(record.packed) - 1))
    flipped = int.from_bytes(record.packed, "big") ^ (1 << bit)

    rotten = replace(record, packed=flipped.to_bytes(len(record.packed), "big"))

    assert not is_intact(rotten)


@pytest.mark.parametrize("field", ["n", "min", "max", "sum"])
def test_a_changed_figure_beside_the_numbers_is_found(field: str) -> None:
    """The numbers mean nothing without their range and count, and the sum is what people read."""
    record = record_of(1, 6, (1, 2, 3))

    rotten = replace(record, **{field: getattr(record, field) + 1})

    assert not is_intact(rotten)


def test_a_cut_blob_is_found() -> None:
    """A blob of another length is damage to report, not an exception in the middle of a report."""
    record = record_of(1, 6, (1, 2, 3))

    assert not is_intact(replace(record, packed=b""))


def test_without_numbers_nothing_contradicts() -> None:
    """``keep_numbers = false`` must not make every batch look damaged."""
    assert is_intact(replace(record_of(1, 6, (1, 2, 3)), packed=None))


@pytest.mark.parametrize(
    ("low", "high", "n", "width"),
    [
        (0, 1, 64, 1),
        (1, 6, 25, 1),
        (0, 255, 8, 1),
        (1, 256, 8, 1),
        (0, 256, 8, 2),
        (-(2**53), 2**53, 2, 8),
        (0, 2**64 - 1, 1, 8),
        (5, 5, None, 1),
    ],
)
def test_only_what_cannot_come_twice_tells(low: int, high: int, n: int | None, width: int) -> None:
    """Three dice come again every few hundred times, and nobody is to blame."""
    assert (count_telling(low, high), width_of(low, high)) == (n, width)
