"""Sources of signed prices: a file that somebody appends to, or an address that answers with lines (data.md 3).

Each line is the canonical JSON of a `SignedReport` or a `SignedMark`. A feed is believed as little as any endpoint: the node
checks every signature before it keeps a price.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import aiohttp

from messages.canonical import decode_canonical
from messages.documents import SignedMark, SignedReport, from_object
from messages.errors import Rejected, Unavailable

MAX_LINE_BYTES = 65_536
MAX_ANSWER_BYTES = 8 * 1024 * 1024
MAX_LINES_PER_FETCH = 20_000
HTTP_TIMEOUT_S = 10


def decode_line(line: bytes, source: str) -> SignedReport | SignedMark:
    """One signed price.

    Raises:
        Rejected: not the canonical form of a report or a mark with signatures.
    """
    try:
        obj = decode_canonical(line, max_bytes=MAX_LINE_BYTES, max_depth=8)
        if isinstance(obj, dict) and "mark" in obj:
            return from_object(SignedMark, obj)
        return from_object(SignedReport, obj)
    except Rejected as error:
        error.source = error.source or source
        raise


def _split(lines: Sequence[bytes], source: str) -> tuple[list[SignedReport], list[SignedMark]]:
    reports: list[SignedReport] = []
    marks: list[SignedMark] = []
    for line in lines:
        if line.strip():
            price = decode_line(line, source)
            if isinstance(price, SignedReport):
                reports.append(price)
            else:
                marks.append(price)
    return reports, marks


class FileFeed:
    """Lines of a file, each once, in the order they were appended; a line without its end is left for the next time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    async def fetch(self, now: int) -> tuple[Sequence[SignedReport], Sequence[SignedMark]]:
        """What was appended since the last time.

        Raises:
            Unavailable: there is no such file. Rejected: a line is no signed price (the file is read on behind it).
        """
        del now
        name = self._path.name
        if not self._path.is_file():
            raise Unavailable(f"there is no price file {self._path}", reason="no_file", source=name)
        if self._path.stat().st_size < self._offset:
            self._offset = 0  # a new file took its place
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(MAX_ANSWER_BYTES)
        end = data.rfind(b"\n") + 1
        self._offset += end
        return _split(data[:end].split(b"\n"), name)


class HttpFeed:
    """``GET url?since=<stamp>``: lines with stamps from there on."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._since = 0

    async def fetch(self, now: int) -> tuple[Sequence[SignedReport], Sequence[SignedMark]]:
        """What is new since the newest stamp seen; an hour back at the first time.

        Raises:
            Unavailable: no answer. Rejected: too large, or a line is no signed price.
        """
        since = self._since or now - 3600
        timeout = aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                # A feed is the address that the operator wrote: it sends nobody elsewhere, into this machine's network say.
                session.get(self._url, params={"since": str(since)}, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise Unavailable("a price feed fails", got=answer.status, expected=200, reason="http",
                                      source=self._name)  # fmt: skip
                data = await answer.content.read(MAX_ANSWER_BYTES + 1)
                while len(data) <= MAX_ANSWER_BYTES and (more := await answer.content.read(MAX_ANSWER_BYTES)):
                    data += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"a price feed does not answer: {type(error).__name__}", reason="no_answer",
                              source=self._name) from None  # fmt: skip
        lines = data.split(b"\n")
        if len(data) > MAX_ANSWER_BYTES or len(lines) > MAX_LINES_PER_FETCH:
            raise Rejected("a price feed answers with too much", got=len(data), reason="size", source=self._name)
        reports, marks = _split(lines, self._name)
        # Nobody knows yet whether these are signed: a stamp from the future must not hide what comes before it.
        newest = [s for s in (*(r.report.stamp for r in reports), *(m.mark.stamp for m in marks)) if s <= now]
        self._since = max([self._since, *newest])
        return reports, marks
