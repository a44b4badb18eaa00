"""What is wrong with an option's value, in words that need no knowledge of what checks it."""

import re
from typing import TYPE_CHECKING

from typer import BadParameter
from typer.core import TyperGroup

if TYPE_CHECKING:
    from typer._click import Context  # what the group's own methods take

# The words of pydantic, with which Typer checks values, and ours; the first that fits.
PLAIN = (
    (r"Value error, ", ""),
    (r"Input should be a valid integer.*", "must be a whole number"),
    (r"Input should be a valid number.*", "must be a number"),
    (r"Input should be greater than or equal to ", "must be at least "),
    (r"Input should be less than or equal to ", "must be at most "),
    (r"Input should be ", "must be "),
)


class PlainGroup(TyperGroup):
    """Commands that complain of their options in plain words."""

    def invoke(self, ctx: "Context") -> object:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except BadParameter as exc:
            exc.message = plain(exc.message)
            raise


def plain(complaint: str) -> str:
    """Put a *complaint* about a value into our words, as the settings have them."""
    for theirs, ours in PLAIN:
        if re.match(theirs, complaint):
            return re.sub(theirs, ours, complaint, count=1)
    return complaint
