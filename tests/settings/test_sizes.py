"""Sizes of batches: drawn for each run, or given at its start."""

import pytest

from pipeline.settings.sizes import (
    LARGEST_BATCH,
    MOST_BATCHES,
    DrawnSizes,
    GivenSizes,
    check_batches,
    draw_sizes,
    dump_sizes,
    parse_orders,
    smallest_size,
)

DRAWN = {"count": 50, "sizes": "1..10"}


def test_every_run_draws_its_own() -> None:
    """All sizes can come, the largest included; what is written down is the rule."""
    sizes = check_batches(DRAWN)

    runs = [draw_sizes(sizes) for _ in range(40)]

    assert {len(drawn) for drawn in runs} == {50}
    assert {size for drawn in runs for size in drawn} == set(range(1, 11))
    assert len(set(runs)) == 40
    assert dump_sizes(sizes) == DRAWN


def test_before_they_are_drawn_they_are_as_large_as_can_be() -> None:
    """What holds for these holds for every run."""
    sizes = check_batches(DRAWN)

    assert (len(sizes), max(sizes), sum(sizes), smallest_size(sizes)) == (50, 10, 500, 1)
    assert (sizes[0], sizes[:2]) == (10, (10, 10))


def test_other_sizes_are_what_they_are() -> None:
    """Drawing changes nothing where nothing is left to chance."""
    assert draw_sizes((2, 3)) == (2, 3)
    assert smallest_size((3, 2)) == 2
    assert dump_sizes(range(2, 5)) == [2, 3, 4]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"count": 0, "sizes": "1..10"}, "orders no batch"),
        ({"count": 3, "sizes": "10..1"}, "must be sizes"),
        ({"count": 3, "sizes": 10}, "must be sizes"),
        ({"count": 3, "sizes": "1..10", "size": 3}, "must be sizes"),
        ({"count": 3, "sizes": "0..10"}, "a batch must have 1 to"),
        ({"count": 3, "sizes": f"1..{LARGEST_BATCH + 1}"}, "a batch must have 1 to"),
        ({"count": MOST_BATCHES + 1, "sizes": "1..10"}, "orders more than"),
    ],
)
def test_a_wrong_rule_is_refused(value: object, complaint: str) -> None:
    """When the file is read, not when a run draws."""
    with pytest.raises(ValueError, match=complaint):
        check_batches(value)


def test_a_rule_that_is_read_is_read_again() -> None:
    """As overrides do."""
    drawn, given = DrawnSizes(2, 1, 3), GivenSizes((2,))

    assert check_batches(drawn) is drawn
    assert check_batches(given) is given


class TestOrders:
    """What comes from standard input or stands behind ``--batches``."""

    def test_a_line_names_its_source(self) -> None:
        """Several lines of one add up, blank ones are nothing."""
        orders = parse_orders("dice 2 3 5..8\n\nanu 9\r\n  dice 1 \n", ["anu", "dice"])

        assert orders == {"dice": (2, 3, 5, 6, 7, 8, 1), "anu": (9,)}

    def test_the_only_source_needs_no_name(self) -> None:
        """Its name can stand there."""
        assert parse_orders("2 3\n4", ["dice"]) == {"dice": (2, 3, 4)}
        assert parse_orders("dice 2", ["dice"]) == {"dice": (2,)}

    def test_a_source_may_be_called_as_a_number_is(self) -> None:
        """The name wins: it could not be named otherwise."""
        assert parse_orders("7 7", ["7"]) == {"7": (7,)}

    def test_batches_are_counted_over_all_lines(self) -> None:
        """One more than the most is too many, however they are cut into lines."""
        lines = "1..10000\n" * 100

        assert len(parse_orders(lines, ["dice"])["dice"]) == MOST_BATCHES
        with pytest.raises(ValueError, match="line 101: orders more than 1000000 batches"):
            parse_orders(lines + "3", ["dice"])

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("", "orders no batch; a line is such as `dice 2 3 5..8`"),
            (" \n\n", "orders no batch"),
            ("2 3", "line 1: begin with a source that is asked: anu, dice"),
            ("anu 2\ncoin 3", "line 2: 'coin' is none; begin with a source that is asked: anu"),
            ("anu x", "line 1: a size is a whole number, or a range such as 2..29; not 'x'"),
            ("anu 3..2", "line 1: orders no batch"),
            ("anu", "line 1: orders no batch; a line is such as"),
            ("anu 0", "line 1: a batch must have 1 to"),
            ("anu -1", "line 1: a size is a whole number"),
            ("anu \u0662", "line 1: a size is a whole number"),
            (f"anu {LARGEST_BATCH + 1}", "line 1: a batch must have 1 to"),
            (f"anu 1..{MOST_BATCHES + 1}", "line 1: orders more than"),
        ],
    )
    def test_a_wrong_line_is_named(self, text: str, complaint: str) -> None:
        """So that it is found among a thousand."""
        with pytest.raises(ValueError, match="^" + complaint.replace("(", r"\(")):
            parse_orders(text, ["anu", "dice"])

    def test_what_was_given_is_not_written_into_the_hash_of_the_settings(self) -> None:
        """The limits in force are kept by that hash: one row, however many orders come."""
        assert dump_sizes(GivenSizes((2, 3))) == dump_sizes(GivenSizes((4,)))
