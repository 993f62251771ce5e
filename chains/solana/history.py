"""The packets of a vault out of one source's list of transactions, newest first, page by page. Believes nothing.

Anybody can make transactions that name the vault's account, for a few thousand lamports each, and every one of them must be looked at: the list
does not say which ones the vault acted in. So work is never done twice: what has been read of a source is kept while its list goes on from
there, also where one call's time was over, and a transaction that held nothing is not asked for again.

Whether the source told everything is not its word to give: the numbers must be without gaps, and the fold under the proven head decides
(incident E5). Where a number is missing after everything was read, the source is asked for everything again next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from chains.claims import make_claims
from chains.solana.client import SolanaClient
from chains.solana.rpc_json import MAX_SIGNATURES, Listed, PacketEvent
from chains.solana.transport import TIMEOUT_S, RpcError
from messages.errors import Rejected, Unavailable
from messages.outbox import Claim

ResultT = TypeVar("ResultT")

PARALLEL = 8
"""Transactions that are asked for at the same time."""
RETRIES = 3
MAX_PACKETS = 50_000
"""Events that are kept of one source: of the largest collect, with room for those that answer and those that links need."""
MAX_PACKET_BYTES = 256 << 20
"""Their payloads: far above what the largest collect needs (about 50 MB)."""
MIN_DEEPER_SLOTS = 1_000
MAX_DEEPER_SLOTS = 256_000
"""How far below the floor a number is looked for that stays missing: seven minutes, doubled each time, up to a day and more."""
MAX_PAGES = 100_000
"""Pages of a list that is gone through: a hundred million transactions."""
MAX_AHEAD = 20_000
"""Events that wait for a number before them while the list is gone through upwards."""
PATIENT_PAGE = 12
"""Time-outs that one page and its transactions may take together."""
PATIENCE_PER_PACKET_S = 0.25
"""What a long list and its transactions may take for each packet that is wanted, in all: the time of a page alone bounds no list of pages."""
MAX_DOUBLINGS = 12
"""Of that time, once each time that it was not enough: an honest source that is slow gets there too."""
MAX_SEEN = 50_000
"""Transactions without a packet that are remembered of one source."""


@dataclass
class _Walk:
    """A stretch of the list that is being read downwards: its newest transaction, and the last one above which all were read."""

    newest: Listed | None = None
    last: Listed | None = None
    is_whole: bool = True
    """Whether nothing was left out below ``last``."""


@dataclass
class _Patience:
    """Seconds that a source may still take for a list that is gone through; only its own time counts."""

    left_s: float


class VaultHistory:
    """What one source has told of one vault's packets. One `collect` at a time."""

    def __init__(self, client: SolanaClient, source: str, retry_s: float = 0.25, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._page_s = timeout_s * PATIENT_PAGE
        self._source = source
        self._retry_s = retry_s
        self._lock = asyncio.Lock()
        self._events: dict[str, tuple[PacketEvent, ...]] = {}
        """By signature, of transactions with packets."""
        self._counts = [0, 0]
        """Packets and bytes in `_events`."""
        self._empty: dict[str, None] = {}
        self._top: Listed | None = None
        """Everything from here down to `_floor` that may hold a number above `_after` has been read."""
        self._walk: _Walk | None = None
        """The stretch above `_top` that is being read."""
        self._after = 0
        self._floor = 0
        self._has_missed = False
        self._deeper = 0
        """Slots below the floor that are read too while a number stays missing."""
        self._slow = 0
        """How often in a row it took too long to go through the list."""

    async def collect(self, after: int, upto: int, floor: int) -> tuple[Claim, ...]:
        """Claims of the numbers ``after`` < n <= ``upto``, in order and without a gap.

        Args:
            after: number of the last packet that is known.
            upto: number of the last packet that is wanted.
            floor: slot at or below which packet ``after`` was made, as far as known: an operator that says a low number at a late slot makes it
                too high. Nothing older is read, unless a number stays missing.

        Raises:
            Unavailable: "packets_missing" after everything was read; and of the source. What was read by then is kept.
            Rejected: "log_twice", "missing_inbox", "size", "order" and others: the source lies, and nothing of it is kept.
        """
        async with self._lock:
            try:
                return await self._collect(after, upto, floor)
            except RpcError:
                raise  # a node that refuses to answer has not lied
            except Rejected:
                self._forget(everything=True)
                raise

    async def _collect(self, after: int, upto: int, floor: int) -> tuple[Claim, ...]:
        wanted = range(after + 1, upto + 1)
        self._drop_old(after)
        if after < self._after or floor < self._floor or (self._top is None and self._walk is None):
            self._forget(everything=False)
            self._after, self._floor = after, max(floor - self._deeper, 0)
        is_newest = False
        missing = self._find_missing(wanted)
        while missing:
            if self._walk is None:
                if is_newest:
                    raise self._miss(len(wanted) - len(missing), len(wanted), min(missing))
                self._walk, is_newest = _Walk(), True
            await self._read_page(self._walk, missing)
        if self._walk is not None:
            # What lies below in this stretch is older than everything that was asked for; where one above it is unread, nothing is settled.
            self._top, self._walk = (self._walk.newest if self._walk.is_whole else None) or self._top, None
        self._has_missed, self._deeper = False, 0
        events = [event for found in self._events.values() for event in found]
        return make_claims(events, after, upto)

    async def go_through(self, after: int, upto: int, floor: int) -> AsyncGenerator[tuple[Claim, ...]]:
        """Claims of the numbers ``after`` < n <= ``upto``, in order, page by page of the list; one page is in memory at a time.

        For more packets than `collect` keeps. The list goes from the newest down, and the packets are wanted from the oldest up: so it is
        gone down once for the places where its pages begin, and each page is listed again when its turn comes. Arguments as `collect`.

        Raises:
            Unavailable: "packets_missing", "timeout", and of the source. Rejected: the source lies, as `collect`.
        """
        bottom = max(floor - self._deeper, 0)
        left: list[PacketEvent] = []
        at = after
        patience = _Patience((self._page_s + PATIENCE_PER_PACKET_S * (upto - after)) * 2**self._slow)
        newest, begins = await self._find_pages(bottom, patience)
        for begin in [*reversed(begins), None]:
            page = newest if begin is None else await self._in_time(self._list_from(begin), patience)
            events = [*left, *await self._in_time(self._read_whole(page, bottom), patience)]
            claims = make_claims(events, at, upto)
            at += len(claims)
            yield claims  # none is news too: the endpoint is at work
            # packets of one slot may stand in any order: what does not follow yet is kept for the next page
            left = [e for e in events if e.is_outbox and at < e.packet.sequence <= upto]
            if left:
                names = {e.transaction for e in left}
                left = [e for e in events if e.transaction in names]
            if len(left) > MAX_AHEAD:
                break
        if at < upto:
            raise self._miss(at - after, upto - after, at + 1)
        self._has_missed, self._deeper, self._slow = False, 0, 0

    async def _find_pages(self, bottom: int, patience: _Patience) -> tuple[tuple[Listed, ...], list[Listed]]:
        """The newest page of the list, and after which transaction each further page begins, down to a slot."""
        newest: tuple[Listed, ...] = ()
        begins: list[Listed] = []
        walk = _Walk()
        while True:
            page = await self._in_time(self._list_below(walk.last), patience)
            _verify_order(page, walk, self._source)
            newest = newest or page
            if not page or page[-1].slot < bottom:
                return newest, begins
            if len(begins) >= MAX_PAGES:
                raise Rejected(
                    "a list of transactions without end",
                    got=len(begins),
                    expected=MAX_PAGES,
                    reason="size",
                    source=self._source,
                )
            walk.newest, walk.last = newest[0], page[-1]
            begins.append(walk.last)

    async def _list_from(self, begin: Listed) -> tuple[Listed, ...]:
        page = await self._list_below(begin)
        _verify_order(page, _Walk(begin, begin), self._source)
        return page

    async def _read_whole(self, page: Sequence[Listed], bottom: int) -> list[PacketEvent]:
        """The packets of a page, oldest transaction first."""
        rows = [row for row in reversed(page) if row.slot >= bottom and not row.is_failed]
        events: list[PacketEvent] = []
        for start in range(0, len(rows), PARALLEL):
            for found in await asyncio.gather(*(self._read(row) for row in rows[start : start + PARALLEL])):
                events += found
        return events

    async def _in_time(self, work: Coroutine[Any, Any, ResultT], patience: _Patience) -> ResultT:
        """A page and its transactions in bounded time, and all of them together: each just in time would take months."""
        clock = asyncio.get_running_loop().time
        begin, limit_s = clock(), min(self._page_s, max(patience.left_s, 0.0))
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except TimeoutError as error:
            if limit_s < self._page_s:
                self._slow = min(self._slow + 1, MAX_DOUBLINGS)
            raise Unavailable(
                "the endpoint is too slow for the packets",
                expected=f"a page within {self._page_s:.0f} s, and all of them in the time of so many packets",
                reason="timeout",
                source=self._source,
            ) from error
        finally:
            patience.left_s -= clock() - begin

    async def _read_page(self, walk: _Walk, missing: set[int]) -> None:
        """Read on downwards by one page, or until nothing is missing; the walk ends at what is known already or at the floor."""
        page = await self._list(walk)
        _verify_order(page, walk, self._source)
        if walk.newest is None and page:
            walk.newest = page[0]
        bottom = max(self._floor, self._top.slot if self._top is not None else 0)
        rows = [row for row in page if row.slot >= bottom]
        unread = [row for row in rows if self._is_unread(row)]
        for start in range(0, len(unread), PARALLEL):
            part = unread[start : start + PARALLEL]
            found = await asyncio.gather(*(self._read(row) for row in part), return_exceptions=True)
            failures = [events for events in found if isinstance(events, BaseException)]
            for row, events in zip(part, found, strict=True):
                # where a busy node gives only some of them, these are not asked for again
                if not isinstance(events, BaseException):
                    self._keep(row, events, missing)
            walk.is_whole = not failures
            if not missing:
                return
            if failures:
                raise failures[0]
            walk.last = part[-1]
        if rows:
            walk.last = rows[-1]
        if len(rows) < len(page) or not page:
            self._top, self._walk = walk.newest or self._top, None

    async def _list(self, walk: _Walk) -> tuple[Listed, ...]:
        return await self._list_below(walk.last, self._top)

    async def _list_below(self, last: Listed | None, top: Listed | None = None) -> tuple[Listed, ...]:
        before = last.signature if last is not None else ""
        until = top.signature if top is not None else ""
        for attempt in range(RETRIES):
            try:
                return await self._client.list_transactions(
                    self._source, self._client.rules.vault, before=before, until=until, limit=MAX_SIGNATURES
                )
            except (Unavailable, RpcError):
                if attempt == RETRIES - 1:
                    raise
                await asyncio.sleep(self._retry_s * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    async def _read(self, row: Listed) -> tuple[PacketEvent, ...]:
        for attempt in range(RETRIES):
            try:
                return await self._client.read_events(self._source, row)
            except (Unavailable, RpcError) as error:
                if attempt == RETRIES - 1 or error.reason == "no_inner_instructions":
                    raise
                await asyncio.sleep(self._retry_s * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _is_unread(self, row: Listed) -> bool:
        return not row.is_failed and row.signature not in self._events and row.signature not in self._empty

    def _keep(self, row: Listed, events: Sequence[PacketEvent], missing: set[int]) -> None:
        if not events:
            self._empty[row.signature] = None
            if len(self._empty) > MAX_SEEN:
                del self._empty[next(iter(self._empty))]
            return
        self._events[row.signature] = tuple(events)
        self._count(events, 1)
        missing -= {event.packet.sequence for event in events if event.is_outbox}
        if self._counts[0] > MAX_PACKETS or self._counts[1] > MAX_PACKET_BYTES:
            raise Rejected(
                "more packets than were asked for",
                got=tuple(self._counts),
                expected=(MAX_PACKETS, MAX_PACKET_BYTES),
                reason="size",
                source=self._source,
            )

    def _count(self, events: Sequence[PacketEvent], sign: int) -> None:
        self._counts[0] += sign * len(events)
        self._counts[1] += sign * sum(len(event.packet.payloads[0].value) for event in events)

    def _find_missing(self, wanted: range) -> set[int]:
        known = {event.packet.sequence for found in self._events.values() for event in found if event.is_outbox}
        return {number for number in wanted if number not in known}

    def _drop_old(self, after: int) -> None:
        """Make room for what is asked for now; what is dropped would have to be read again."""
        if self._counts[0] <= MAX_PACKETS // 2 and self._counts[1] <= MAX_PACKET_BYTES // 2:
            return
        for signature, events in list(self._events.items()):
            if all(event.packet.sequence <= after for event in events if event.is_outbox):
                del self._events[signature]
                self._count(events, -1)
        self._after = max(self._after, after)

    def _miss(self, told: int, wanted: int, first: int) -> Unavailable:
        # an index that lags behind looks like "nothing happened": read the list again next time, and the second time the transactions too
        self._forget(everything=self._has_missed)
        if self._has_missed:
            self._deeper = min(max(2 * self._deeper, MIN_DEEPER_SLOTS), MAX_DEEPER_SLOTS)
        self._has_missed = not self._has_missed
        return Unavailable(
            "the endpoint does not tell every packet: it lags or withholds",
            got=f"{told}, without number {first}",
            expected=f"{wanted}",
            reason="packets_missing",
            source=self._source,
        )

    def _forget(self, *, everything: bool) -> None:
        self._top = self._walk = None
        self._after = self._floor = 0
        if everything:
            self._events.clear()
            self._empty.clear()
            self._counts = [0, 0]


def _verify_order(page: Sequence[Listed], walk: _Walk, source: str) -> None:
    """Refuse a page that does not go on below the one before it: a list that turns in a circle has no end."""
    last, newest = walk.last, walk.newest
    if last is None or newest is None or not page:
        return
    if page[0].slot > last.slot or any(row.signature in (last.signature, newest.signature) for row in page):
        raise Rejected(
            "a page that does not go on where the one before it ended",
            got=(page[0].signature, page[0].slot),
            expected=f"before {last.signature}, slot <= {last.slot}",
            reason="order",
            source=source,
        )
