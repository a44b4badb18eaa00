"""Read HTTP/1.1 answers off one connection: llhttp's strict parser, and what it leaves to others.

Those are limits, the end of the stream, and whether anything came after an answer. No I/O.
"""

import re

import httptools

from pipeline.errors import ErrorName, SourceError

PROTOCOL = b"HTTP/1."
HEAD_END = re.compile(rb"\n\r?\n")  # llhttp is handed whole heads, and then judges how lines end
MAX_HEAD_BYTES = 64 * 1024
CHUNK_FRAME_BYTES = 16  # what a piece of a body may be framed by; more of it counts as head
CODING, LENGTH = b"transfer-encoding", b"content-length"
INFORMATIONAL, SWITCHING, FINAL = 100, 101, 200  # statuses


def _with_one_length(head: bytes) -> bytes:
    """Leave out lengths that repeat one: RFC 9112, 6.3 lets them pass, and llhttp does not."""
    kept: dict[bytes | int, bytes] = {}
    for number, line in enumerate(head.split(b"\r\n")):
        name, _, values = line.lower().partition(b":")
        lengths = {value.strip(b" \t") for value in values.split(b",")}
        if name == LENGTH and len(lengths) == 1:
            length = b"%b: %b" % (name, *lengths)
            kept.setdefault(length, length)
        else:
            kept[number] = line
    return b"\r\n".join(kept.values())


class AnswerParser:
    """Takes one answer after the other from the bytes of a connection.

    Attributes:
        status: None until the head is whole.
        headers: as they came, without the blanks around values.
        body: what came of it since it was taken last.
        has_begun: whether a byte came.
        is_whole: whether all came.
        is_last: whether the connection can carry no other answer, or holds more than this one.
        fault: why no more of it can come; what came until then may be taken.
    """

    def __init__(self) -> None:
        self._renew()
        self.begin()

    def _renew(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.fault: SourceError | None = None
        self._http = httptools.HttpResponseParser(self)
        # RFC 9112, 6.3: chunks win over a length.
        self._http.set_dangerous_leniencies(lenient_chunked_length=True)

    def begin(self) -> None:
        """Forget the answer before: another one is awaited."""
        self.headers = []
        self.status: int | None = None
        self.body = bytearray()
        self.has_begun = self.is_whole = self.is_last = self._is_informed = False
        self._head = b""
        self._room = MAX_HEAD_BYTES  # for what frames the chunks

    def take_body(self) -> bytes:
        """Give what came of the body since this was asked last."""
        body, self.body = bytes(self.body), bytearray()
        return body

    def feed(self, data: bytes) -> None:
        """Take *data*; its last byte goes alone, so that what is whole before it has a surplus."""
        self.has_begun = True
        while data and self.status is None:
            data = self._feed_head(data)
        for piece in (data[:-1], data[-1:]):
            if self.fault or not piece:
                continue
            if self.is_whole:
                self.is_last = True
                return
            self._room -= len(piece)
            self._parse(piece)
            if self._room < 0 and not self.is_whole:
                self._refuse(f"what frames its chunks is over {MAX_HEAD_BYTES} bytes long")

    def end(self) -> None:
        """Take the end of the stream, which ends a body without a length as well."""
        is_bounded = any(name.lower() in (CODING, LENGTH) for name, _ in self.headers)
        if self.status is None or is_bounded:
            detail = "the connection ended before the answer did"
            self.fault = SourceError(ErrorName.INCOMPLETE, detail)
        else:
            self.is_whole = self.is_last = True

    def _feed_head(self, data: bytes) -> bytes:
        """Take what of *data* belongs to the head, and give the rest."""
        text = self._head + data
        if self._is_informed:  # some servers write a line end too many after such an answer
            text = text.lstrip(b"\r\n")
        found = HEAD_END.search(text)
        size = found.end() if found else len(text)
        self._head = b"" if found else text
        if not PROTOCOL.startswith(text[: len(PROTOCOL)]):
            # Not quoted: cut short, a key that is repeated there could not be recognised.
            self._refuse("this is not HTTP/1")
        elif size > MAX_HEAD_BYTES:
            self._refuse(f"the head is over {MAX_HEAD_BYTES} bytes long")
        elif found:
            self._parse_head(text[:size])
        return b"" if self.fault else text[size:]

    def _parse_head(self, head: bytes) -> None:
        self._parse(head)
        if self.fault and (other := _with_one_length(head)) != head:
            self._renew()
            self._parse(other)
        if self.status is None and not self.fault:
            self._renew()
            self._is_informed = True

    def _parse(self, data: bytes) -> None:
        try:
            self._http.feed_data(data)
        except httptools.HttpParserError as exc:
            if not self.is_whole:
                is_ours = isinstance(exc, httptools.HttpParserCallbackError)
                self._refuse(str(exc.__context__ if is_ours else exc))

    def _refuse(self, why: str) -> None:
        self.fault = SourceError(ErrorName.PROTOCOL, why)

    # What llhttp calls.

    def on_message_begin(self) -> None:
        """Stop at what comes after the answer."""
        if self.is_whole:
            raise ValueError("a surplus answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; in a trailer it comes too late."""
        if self.status is None:
            self.headers.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """Take the status, and refuse what llhttp would let pass."""
        status = self._http.get_status_code()
        codings = [value.lower() for name, value in self.headers if name.lower() == CODING]
        if codings and codings != [b"chunked"]:
            raise ValueError("its transfer coding is not chunked, and only that")
        if status >= FINAL:
            self.status = status
            self.is_last = self._is_informed or not self._http.should_keep_alive()
        elif status < INFORMATIONAL or status == SWITCHING:
            raise ValueError(f"status {status} answers no request of ours")

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        self.body += data
        self._room += len(data) + CHUNK_FRAME_BYTES

    def on_message_complete(self) -> None:
        """Note that the answer is whole, unless it is only foretold."""
        self.is_whole = self.status is not None
