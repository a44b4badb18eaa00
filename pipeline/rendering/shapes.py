"""How an answer may be written: what options name, apart from all that it takes to write it."""

from enum import StrEnum


class Format(StrEnum):
    """How an answer is written."""

    TEXT = "text"
    JSON = "json"


class Shape(StrEnum):
    """How an answer that has tables and charts is written."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"
    HTML = "html"
