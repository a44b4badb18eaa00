"""What is said of how much of a body was kept."""

import pytest

from pipeline.audit.exchange import tell_extent
from pipeline.errors import ErrorName
from pipeline.models import Evidence


@pytest.mark.parametrize(
    ("body", "body_bytes", "error", "told"),
    [
        (b"12345", 5, None, "5 bytes, all kept"),
        (b"12345", 9, ErrorName.SCHEMA, "9 bytes, the first 5 kept"),
        (b"k=[REDACTED]", 40, None, "40 bytes; kept: 12, with secrets replaced"),
        (b"k=[REDACTED]", 4, None, "4 bytes; kept: 12, with secrets replaced"),
        (b"", 0, None, "0 bytes, all kept"),
        (b"", 0, ErrorName.DECODE, "not read"),
        (b"", 0, ErrorName.TOO_LARGE, "not read"),
        (b"12", 2, ErrorName.TOO_LARGE, "2 bytes, all kept"),
    ],
)
def test_it_claims_no_more_than_is_known(
    body: bytes, body_bytes: int, error: ErrorName | None, told: str
) -> None:
    """A key that was replaced makes a body shorter, and that is not cut; nor is one not read."""
    evidence = Evidence(status=200, headers=(), body=body, body_bytes=body_bytes)

    assert tell_extent(evidence, error) == told
