"""How a query keeps to a stretch of time."""

from datetime import datetime

from sqlalchemy import ColumnElement


def within(
    moment: ColumnElement[datetime], since: datetime | None, until: datetime | None
) -> list[ColumnElement[bool]]:
    """Give the conditions: from *since* up to but without *until*, where they are not None."""
    return [
        *([] if since is None else [moment >= since]),
        *([] if until is None else [moment < until]),
    ]
