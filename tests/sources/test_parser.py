"""Tests for pipeline/sources/parser.py: what is an answer, to the byte, however the bytes come."""

import pytest

from pipeline.sources.parser import MAX_HEAD_BYTES, AnswerParser

GOOD = b"[1, 2, 3]"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FRAMED = b"9\r\n" + GOOD + b"\r\n0\r\n\r\n"
WHOLE = OK + b"Content-Length: 9\r\n\r\n" + GOOD


def fed(data: bytes, size: int = 2**30) -> AnswerParser:
    """Feed *data* in pieces of *size* bytes, as long as more is wanted."""
    parser = AnswerParser()
    for start in range(0, len(data), size):
        if not parser.is_whole and parser.fault is None:
            parser.feed(data[start : start + size])
    return parser


WHOLE_ANSWERS = {
    "length": (WHOLE, GOOD),
    "blanks around values": (OK + b"Content-Length:  9 \t\r\n\r\n" + GOOD, GOOD),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 9\r\n\r\n" + GOOD, GOOD),
    "no body": (b"HTTP/1.1 204 None\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n", b""),
    "chunks": (CHUNKED + FRAMED, GOOD),
    "capital digits": (CHUNKED + b"00A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "extension": (CHUNKED + b'9;a="b"\r\n' + GOOD + b"\r\n0\r\n\r\n", GOOD),
    "trailer": (CHUNKED + b"9\r\n" + GOOD + b"\r\n0\r\nContent-Length: 3\r\n\r\n", GOOD),
    "both": (OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + FRAMED, GOOD),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n" + GOOD, GOOD),
    "continue": (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n\r\n" + WHOLE, GOOD),
    "early close": (b"HTTP/1.1 103 Early\r\nConnection: close\r\n\r\n" + WHOLE, GOOD),
    "twice": (OK + b"Content-Length: 9\r\nX: y\r\ncontent-length:9\r\n\r\n" + GOOD, GOOD),
    "in a list": (OK + b"Content-Length: 9, 9 ,9\r\ncontent-length: 9\r\n\r\n" + GOOD, GOOD),
    "thrice": (OK + b"Content-Length: 9\r\n" * 3 + b"\r\n" + GOOD, GOOD),
}


@pytest.mark.parametrize(("data", "body"), WHOLE_ANSWERS.values(), ids=WHOLE_ANSWERS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 2**30])
def test_an_answer_is_the_same_however_it_is_cut(data: bytes, body: bytes, size: int) -> None:
    """Where the network cuts is chance."""
    parser = fed(data, size)

    assert (parser.fault, parser.is_whole, parser.take_body()) == (None, True, body)
    assert all(name != b"X-Trailer" for name, _ in parser.headers)


@pytest.mark.parametrize(("data", "body"), WHOLE_ANSWERS.values(), ids=WHOLE_ANSWERS)
@pytest.mark.parametrize("surplus", [b"\r\n", b"\n", b"x", b"HTTP/1.1 200 OK\r\n", WHOLE])
def test_a_surplus_is_seen_and_not_read(data: bytes, body: bytes, surplus: bytes) -> None:
    """Else it would be taken for the answer to the next request."""
    parser = fed(data + surplus)

    assert (parser.fault, parser.is_whole, parser.take_body()) == (None, True, body)
    assert parser.is_last
    assert parser.status is not None


@pytest.mark.parametrize("data", [WHOLE, CHUNKED + FRAMED])
def test_one_parser_reads_answer_after_answer(data: bytes) -> None:
    """Nothing of the one before is left."""
    parser = AnswerParser()

    for _ in range(3):
        parser.begin()
        parser.feed(data)

        assert (parser.is_whole, parser.is_last, parser.take_body()) == (True, False, GOOD)
        assert len(parser.headers) == 1


BROKEN = {
    "bare newlines": WHOLE.replace(b"\r\n", b"\n"),
    "a bare newline": OK + b"Content-Length: 9\nX: y\r\n\r\n" + GOOD,
    "an end of bare newline": OK + b"Content-Length: 9\r\n\n" + GOOD,
    "a bare return": OK + b"X: a\rY: b\r\n\r\n",
    "a folded value": OK + b"X: a\r\n b\r\nContent-Length: 9\r\n\r\n" + GOOD,
    "a blank before the colon": OK + b"Content-Length : 9\r\n\r\n" + GOOD,
    "a first header with a blank": OK + b" Content-Length: 9\r\n\r\n" + GOOD,
    "a control character": OK + b"X: \x0b\r\n\r\n",
    "a blank after a chunk size": CHUNKED + b"9 \r\n" + GOOD + b"\r\n0\r\n\r\n",
    "a blank before an extension": CHUNKED + b"9 ;a=b\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "a bare newline after a chunk size": CHUNKED + b"9\n" + GOOD + b"\r\n0\r\n\r\n",
    "a bare newline after a chunk": CHUNKED + b"9\r\n" + GOOD + b"\n0\r\n\r\n",
    "a prefix before a chunk size": CHUNKED + b"0x9\r\n" + GOOD + b"\r\n0\r\n\r\n",
    "a sign before a length": OK + b"Content-Length: +9\r\n\r\n" + GOOD,
    "a list of two": OK + b"Content-Length: 9, 7\r\n\r\n" + GOOD,
    "a list with a gap": OK + b"Content-Length: 9, \r\n\r\n" + GOOD,
    "a list of none": OK + b"Content-Length: ,\r\n\r\n" + GOOD,
    "two lengths": OK + b"Content-Length: 9\r\nContent-Length: 7\r\n\r\n" + GOOD,
    "another coding": OK + b"Transfer-Encoding: gzip\r\n\r\n" + GOOD,
    "two codings": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + FRAMED,
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + FRAMED,
    "a low status": b"HTTP/1.1 099 Early\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "version 2": b"HTTP/2.0 200 OK\r\n\r\n",
    "version 2 at last": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/2.0 200 OK\r\n\r\n",
    "version 1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\n\r\n",
    "a blank line first": b"\r\n" + WHOLE,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 2**30])
def test_what_is_not_quite_http_is_refused(data: bytes, size: int) -> None:
    """Two readers that are forgiving in different ways read different answers."""
    parser = fed(data, size)

    assert not parser.is_whole
    assert parser.fault is not None
    assert parser.fault.error == "protocol"


def test_what_came_before_a_fault_may_be_taken() -> None:
    """It is evidence."""
    parser = fed(CHUNKED + b"9\r\n" + GOOD + b"\r\nZZ\r\n")

    assert (parser.status, parser.take_body()) == (200, GOOD)
    assert parser.fault is not None


@pytest.mark.parametrize("size", [1000, 2**30])
@pytest.mark.parametrize(
    ("before", "filler", "after"),
    [
        (OK + b"X: ", b"x", b"\r\n\r\n"),
        (OK, b"X: x\r\n", b"\r\n"),
        (CHUNKED + b"9;", b"x", b"\r\n" + GOOD + b"\r\n0\r\n\r\n"),
        (CHUNKED + b"9\r\n" + GOOD + b"\r\n0\r\n", b"X: x\r\n", b"\r\n"),
    ],
    ids=["header", "headers", "extension", "trailers"],
)
def test_what_is_no_body_is_limited(before: bytes, filler: bytes, after: bytes, size: int) -> None:
    """Or it would be read for as long as it goes on."""
    parser = fed(before + filler * (MAX_HEAD_BYTES // len(filler) + 20) + after, size)

    assert not parser.is_whole
    assert parser.fault is not None
    assert "65536 bytes long" in parser.fault.detail


def test_many_small_chunks_are_no_head() -> None:
    """Each is framed by four bytes."""
    parser = fed(CHUNKED + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n", 1000)

    assert parser.is_whole
    assert parser.take_body() == b"x" * 200_000


def test_an_end_ends_only_what_has_no_other_end() -> None:
    """A body without a length or chunks goes on to the end of the stream."""
    parsers = [fed(data) for data in (b"", OK, OK + b"\r\n[1", WHOLE[:-1], CHUNKED + FRAMED[:-1])]
    for parser in parsers:
        parser.end()

    assert [parser.is_whole for parser in parsers] == [False, False, True, False, False]
    errors = [parser.fault and parser.fault.error for parser in parsers]
    assert errors == ["incomplete", "incomplete", None, "incomplete", "incomplete"]
