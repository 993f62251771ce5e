"""Fetches from named endpoints, believes nothing. The only place where answers of nodes become values of ours.

An endpoint is a pair: a beacon transport (light-client routes) and an execution provider (JSON-RPC). Every call names its endpoint, so that
every error carries the name of who caused it. What a node says is decoded strictly and handed on as a claim; a node that is behind,
silent or limited is Unavailable, one that says something malformed or something else than asked is Rejected.

eth_getLogs is asked in ranges that shrink when a node refuses them and grow again when it does not; whether it told everything is not its
word to give: the numbers must be without gaps, and the fold under the proven head decides (incident E5).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from web3.providers.async_base import AsyncBaseProvider

from chains.base import Head, Reader, Span
from chains.claims import make_claims, make_missing, make_shown_claims
from chains.evm.beacon_json import (
    parse_bootstrap_json,
    parse_proof_json,
    parse_storage_claims_json,
    parse_update_json,
    parse_updates_json,
)
from chains.evm.codec import (
    CURSORS_SLOT,
    OUTBOX_HEAD_SLOT,
    VaultLog,
    build_log_filter,
    decode_log,
    encode_data,
    get_outbox_sequence,
)
from chains.evm.forks import ForkSchedule
from chains.evm.light_client import is_finalized_conflict, is_finalized_news
from chains.evm.transport import (
    TIMEOUT_S,
    BeaconTransport,
    HttpBeaconTransport,
    RpcError,
    call,
    decode_json,
    get,
    verify_chain_id,
)
from chains.evm.types import Bootstrap, Proof, Trusted, Update
from messages.errors import Rejected, RelayerError, Unavailable
from messages.outbox import Claim

ResultT = TypeVar("ResultT")

MAX_LOG_RANGE = 10_000
"""Blocks per eth_getLogs to begin with; most providers allow 500 to 10,000."""
MAX_LOGS = 50_000
"""Logs of one answer: two for each packet of the largest collect, with room."""
MAX_QUERIES = 10_000
"""Requests of one `packets`: a node that makes us ask for more is not usable."""
RETRIES = 3
AHEAD_PAUSE_S = 0.5
"""After news of a block its logs are read so much later, or with the next one: what is final goes first."""
READS_PER_EPOCH = 4
MAX_LOGS_AHEAD = 20_000
MAX_HEADS_AHEAD = 4
"""Blocks of a source whose proofs are kept until one of them is final: finality lies two epochs behind, more where it lags."""
PATIENT_BLOCKS = 500
"""Blocks of a span for which one more time-out may pass: a node that answers each small range just in time is not usable."""


@dataclass(frozen=True)
class EvmEndpoint:
    """A named source: its two doors."""

    name: str
    beacon: BeaconTransport
    execution: AsyncBaseProvider


@dataclass
class _Ahead:
    """The vault's logs of the blocks ``first`` to ``last``, read before those were final."""

    first: int
    last: int
    logs: list[VaultLog]


@dataclass(frozen=True)
class ReaderSettings:
    """How patiently to ask. ``retry_s``: first pause before the same request is tried again; it doubles."""

    timeout_s: float = TIMEOUT_S
    retry_s: float = 0.25
    log_range: int = MAX_LOG_RANGE


class EvmReader(Reader[Bootstrap, Trusted, Update, Proof]):
    """Reader of one vault over several endpoints."""

    def __init__(
        self,
        chain_id: int,
        vault: bytes,
        checkpoint_root: bytes,
        schedule: ForkSchedule,
        endpoints: Sequence[EvmEndpoint],
        settings: ReaderSettings | None = None,
    ) -> None:
        self._chain_id = chain_id
        self._vault = vault
        self._checkpoint_root = checkpoint_root
        self._schedule = schedule
        self._endpoints = {endpoint.name: endpoint for endpoint in endpoints}
        self._settings = settings or ReaderSettings()
        self._checked: set[str] = set()
        self._told: dict[str, bytes] = {}  # text of the finalized header that a source's stream told last
        self._newest_event: dict[str, bytes] = {}
        self._ahead: dict[str, _Ahead] = {}
        self._used_ahead: set[str] = set()  # sources whose last packets came of what was read ahead
        self._heads_ahead: dict[str, dict[int, tuple[Head, Proof]]] = {}  # by source and block
        self._used_head_ahead: set[str] = set()  # sources whose last head came of what was read ahead
        self._heard: dict[str, bytes] = {}  # the event with it, until it was looked at
        self._newest: dict[str, int] = {}  # slot of the finalized header that a source last called its newest
        self._range = {endpoint.name: self._settings.log_range for endpoint in endpoints}
        if len(self._endpoints) != len(endpoints) or not endpoints:
            raise Rejected("endpoints need distinct names", got=[e.name for e in endpoints], reason="bad_config")

    @property
    def sources(self) -> Sequence[str]:
        """Names of the endpoints in the order of configuration."""
        return tuple(self._endpoints)

    async def close(self) -> None:
        """Close the connections of every endpoint; the next question opens them again."""
        for endpoint in self._endpoints.values():
            if isinstance(endpoint.beacon, HttpBeaconTransport):
                await endpoint.beacon.close()
            await endpoint.execution.disconnect()

    # ------------------------------------------------------------------ the four questions

    async def bootstrap(self, source: str) -> Bootstrap:
        """The bootstrap at the configured checkpoint root (Beacon API getLightClientBootstrap)."""
        return await _named(source, self._get_bootstrap(source))

    async def update(self, source: str, trusted: Trusted) -> Update | None:
        """The next update that brings a new finalized header, the missing committee or a contradiction, or None (sync-protocol)."""
        return await _named(source, self._get_update(source, trusted))

    async def head(self, source: str, trusted: Trusted) -> tuple[Head, Proof]:
        """Outbox head and number at the finalized execution block of ``trusted``, with the proof of the head (EIP-1186)."""
        return await _named(source, self._get_head(source, trusted))

    async def packets(self, source: str, span: Span) -> Sequence[Claim]:
        """The vault's packets of the span, in order and without a gap, Acks with what they answer (eth_getLogs)."""
        return await _named(source, self._get_packets_in_time(source, span))

    async def walk(self, source: str, span: Span) -> AsyncGenerator[Sequence[Claim]]:
        """The packets of a long span, range of blocks by range of blocks; one range is in memory at a time. See `Reader.walk`."""
        wanted = span
        first, spent_s = span.from_height, 0.0
        clock = asyncio.get_running_loop().time
        while wanted.after_sequence < span.upto_sequence and first <= span.to_height:
            begin, patience_s = clock(), self._get_patience_s(first + self._range[source] - span.from_height)
            try:
                # only the endpoint's own time counts, and not that of whoever reads
                async with asyncio.timeout(max(patience_s - spent_s, 0.0)):
                    last, logs = await _named(source, self._get_some(source, first, span.to_height, may_shrink=True))
            except TimeoutError as error:
                raise _too_slow(source, patience_s) from error
            spent_s += clock() - begin
            claims = make_shown_claims(logs, wanted.after_sequence, wanted.upto_sequence, source)
            if claims:
                wanted = replace(wanted, after_sequence=claims[-1].packet.sequence)
            yield claims  # none is news too: the endpoint is at work
            first = last + 1
        if wanted.after_sequence < span.upto_sequence:
            raise make_missing(source, span.after_sequence, span.upto_sequence, wanted.after_sequence)

    def has_more(self, source: str, trusted: Trusted) -> bool:
        """Not beyond what the source just called its newest, once the next committee is known too; see `Reader.has_more`."""
        return trusted.next_committee is None or self._newest.get(source) != trusted.finalized.beacon.slot

    async def follow(self, source: str, hint: Callable[[], None]) -> None:
        """Hint when the beacon API tells of another finalized header (topic light_client_finality_update); see `Reader.follow`."""
        beacon = self._endpoints[source].beacon
        if not isinstance(beacon, HttpBeaconTransport):
            return

        wake = asyncio.Event()

        def hear(data: bytes) -> None:
            if self.hear(source, data):
                hint()
            wake.set()

        self._told.pop(source, None)  # what came while nobody listened may be news
        following = _named(source, beacon.follow("light_client_finality_update", hear))
        tasks = [asyncio.create_task(work) for work in (following, self._read_ahead_often(source, wake))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    def hear(self, source: str, event: bytes) -> bool:
        """Take an event (the data of light_client_finality_update); True if it tells of another finalized header than the last.

        What is news is kept for the next `update`, which reads it in place of the route that says the same, and verifies it as much.
        """
        self._newest_event[source] = event
        # an event comes each slot, a new finalized header once in an epoch
        header = _cut_finalized(event)
        if header and header == self._told.get(source):
            return False
        self._told[source] = header
        self._heard[source] = event
        return True

    # ------------------------------------------------------------------ ahead of finality

    async def _read_ahead_often(self, source: str, wake: asyncio.Event) -> None:
        while True:
            await wake.wait()
            wake.clear()
            await asyncio.sleep(AHEAD_PAUSE_S)
            # nobody is blamed for what is not final: at the latest the next look asks for it
            with suppress(Rejected, Unavailable):
                await self.read_ahead(source)

    async def read_ahead(self, source: str) -> None:
        """Read the vault's logs up to the block that the newest event attests, so that they need not be read when it is final.

        Of the first block of an epoch the outbox head with its proof too, for that is the block which becomes final. Both are believed
        even less than others: `head` and `packets` take them, the finalized header and the fold decide, and `forget` drops them.

        Raises:
            Rejected, Unavailable: as `packets`.
        """
        event = self._newest_event.pop(source, None)
        if event is None:
            return
        update = parse_update_json(decode_json(event), self._schedule)
        newest, final = update.attested.execution, None if update.finalized is None else update.finalized.execution
        if newest is None or final is None:
            return
        if update.attested.beacon.slot % self._schedule.preset.slots_per_epoch == 0:
            await self._read_head_ahead(source, newest.block_number)
        ahead = self._ahead.get(source)
        if ahead is None or not ahead.first <= final.block_number <= ahead.last + 1:
            ahead = self._ahead[source] = _Ahead(final.block_number, final.block_number - 1, [])
        step = max(1, self._schedule.preset.slots_per_epoch // READS_PER_EPOCH)
        first, last = ahead.last + 1, newest.block_number
        if not step <= last - first + 1 <= self._range[source] or len(ahead.logs) > MAX_LOGS_AHEAD:
            return
        answer = await self._get_logs(source, first, last)
        logs = [decode_log(log, self._vault, first, last) for log in answer[:MAX_LOGS_AHEAD]]
        if len(logs) == len(answer) and self._ahead.get(source) is ahead:
            ahead.logs += logs
            ahead.last = last

    async def _read_head_ahead(self, source: str, block: int) -> None:
        heads = self._heads_ahead.setdefault(source, {})
        if block not in heads:
            heads[block] = await self._ask_head(source, block)
        while len(heads) > MAX_HEADS_AHEAD:
            del heads[min(heads)]

    def forget(self, source: str) -> bool:
        """See `Reader.forget`."""
        self._ahead.pop(source, None)
        self._heads_ahead.pop(source, None)
        was_used = source in self._used_ahead or source in self._used_head_ahead
        self._used_ahead.discard(source)
        self._used_head_ahead.discard(source)
        return was_used

    # ------------------------------------------------------------------ beacon

    async def _beacon(self, source: str, path: str, params: Mapping[str, str] | None = None) -> Any:
        return await get(
            self._endpoints[source].beacon, "/eth/v1/beacon/light_client/" + path, params, self._settings.timeout_s
        )

    async def _get_bootstrap(self, source: str) -> Bootstrap:
        answer = await self._beacon(source, "bootstrap/" + encode_data(self._checkpoint_root))
        return parse_bootstrap_json(answer, self._schedule)

    async def _get_update(self, source: str, trusted: Trusted) -> Update | None:
        schedule = self._schedule
        period = schedule.get_period(trusted.finalized.beacon.slot)
        if trusted.next_committee is None:
            # the committee of the next period first: without it the client stands still when the period ends
            found = await self._get_period_update(source, period)
            if found is not None and is_finalized_news(trusted, found, schedule):
                return found
        newest = self._get_heard_update(source, trusted)
        if newest is None:
            newest = parse_update_json(await self._beacon(source, "finality_update"), schedule)
        if newest.finalized is not None:
            self._newest[source] = newest.finalized.beacon.slot
        if schedule.get_period(newest.signature_slot) > period + 1:
            # more than a committee ahead: step through the periods between
            found = await self._get_period_update(source, period + 1)
            if found is None:
                raise Unavailable(
                    "the endpoint has no update of a period that is over", got=period + 1, reason="behind"
                )
            return found
        # what contradicts the trusted state is handed on too: the verifier must see it
        is_worth_telling = is_finalized_news(trusted, newest, schedule) or is_finalized_conflict(trusted, newest)
        return newest if is_worth_telling else None

    def _get_heard_update(self, source: str, trusted: Trusted) -> Update | None:
        """The update of the last event, once, if it can be read and finalizes something newer: a stream is a convenience, nobody is blamed."""
        event = self._heard.pop(source, None)
        if event is None:
            return None
        try:
            update = parse_update_json(decode_json(event), self._schedule)
        except Rejected:
            return None
        return update if is_finalized_news(trusted, update, self._schedule) else None

    async def _get_period_update(self, source: str, period: int) -> Update | None:
        answer = await self._beacon(source, "updates", {"start_period": str(period), "count": "1"})
        updates = parse_updates_json(answer, self._schedule)
        if len(updates) > 1:
            raise Rejected("more updates than asked for", got=len(updates), expected=1, reason="malformed")
        return updates[0] if updates else None

    # ------------------------------------------------------------------ execution

    async def _call(self, source: str, method: str, *params: Any) -> Any:
        provider = self._endpoints[source].execution
        if source not in self._checked:
            await verify_chain_id(provider, self._chain_id, self._settings.timeout_s)
            self._checked.add(source)
        return await call(provider, method, params, self._settings.timeout_s)

    async def _get_head(self, source: str, trusted: Trusted) -> tuple[Head, Proof]:
        execution = trusted.finalized.execution
        if execution is None:
            raise Rejected(
                "the trusted header is older than Capella and names no execution block", reason="no_execution"
            )
        known = self._heads_ahead.get(source, {}).get(execution.block_number)
        if known is not None:
            self._used_head_ahead.add(source)
            return known
        self._used_head_ahead.discard(source)
        return await self._ask_head(source, execution.block_number)

    async def _ask_head(self, source: str, block: int) -> tuple[Head, Proof]:
        # whole words: some nodes (anvil) take no shorter keys
        slots = [encode_data(slot.to_bytes(32, "big")) for slot in (OUTBOX_HEAD_SLOT, CURSORS_SLOT)]
        try:
            answer = await self._call(source, "eth_getProof", encode_data(self._vault), slots, hex(block))
        except RpcError as error:
            # a node that is behind or has pruned the state: it cannot help, but it has not lied
            raise Unavailable(
                f"the endpoint gives no proof at this block: {error.what}",
                got=block,
                reason="no_proof",
            ) from error
        proof = parse_proof_json(answer, self._vault, OUTBOX_HEAD_SLOT)
        values = parse_storage_claims_json(answer)
        if not values.keys() >= {OUTBOX_HEAD_SLOT, CURSORS_SLOT}:
            raise Rejected("the endpoint names no value of a slot", got=sorted(values)[:8], reason="malformed")
        sequence = get_outbox_sequence(values[CURSORS_SLOT])
        return Head(sequence, values[OUTBOX_HEAD_SLOT].to_bytes(32, "big")), proof

    async def _get_packets_in_time(self, source: str, span: Span) -> tuple[Claim, ...]:
        patience_s = self._get_patience_s(span.to_height - span.from_height)
        try:
            async with asyncio.timeout(patience_s):
                return await self._get_packets(source, span)
        except TimeoutError as error:
            raise _too_slow(source, patience_s) from error

    def _get_patience_s(self, blocks: int) -> float:
        """How long an endpoint may take for so many blocks."""
        return self._settings.timeout_s * (RETRIES + 1 + max(blocks, 0) / PATIENT_BLOCKS)

    async def _get_packets(self, source: str, span: Span) -> tuple[Claim, ...]:
        if span.upto_sequence <= span.after_sequence:
            return ()
        wanted = span.upto_sequence - span.after_sequence
        self._used_ahead.discard(source)
        ahead = self._ahead.get(source)
        if ahead is not None and ahead.first <= span.to_height and ahead.last >= span.from_height:
            claims = await self._get_claims_ahead(source, span, ahead)
            if len(claims) == wanted:
                self._used_ahead.add(source)
                ahead.first = max(ahead.first, span.to_height)
                ahead.logs = [log for log in ahead.logs if log.place[0] >= ahead.first]
                return claims
            self._ahead.pop(source, None)
        logs = await self._get_range(source, span.from_height, span.to_height)
        claims = make_claims(logs, span.after_sequence, span.upto_sequence)
        if len(claims) != wanted:
            told_upto = span.after_sequence + len(claims)
            raise make_missing(source, span.after_sequence, span.upto_sequence, told_upto)
        return claims

    async def _get_claims_ahead(self, source: str, span: Span, ahead: _Ahead) -> tuple[Claim, ...]:
        """The packets of a span whose blocks were read ahead as far as they were; () where those make no sense."""
        logs = [log for log in ahead.logs if span.from_height <= log.place[0] <= span.to_height]
        for first, last in ((span.from_height, ahead.first - 1), (ahead.last + 1, span.to_height)):
            if first <= last:
                logs += await self._get_range(source, first, last)
        try:
            return make_claims(logs, span.after_sequence, span.upto_sequence)
        except Rejected:
            return ()

    async def _get_range(self, source: str, first: int, to_height: int) -> list[VaultLog]:
        logs: list[VaultLog] = []
        queries = 0
        while first <= to_height:
            queries += 1
            if queries > MAX_QUERIES:
                raise Unavailable("the endpoint allows too small ranges", got=self._range[source], reason="log_limit")
            last, found = await self._get_some(source, first, to_height, may_shrink=False)
            if len(found) + len(logs) > MAX_LOGS:
                raise Rejected("more logs than a vault makes", got=len(found), expected=MAX_LOGS, reason="size")
            logs += found
            first = last + 1
        return logs

    async def _get_some(
        self, source: str, first: int, to_height: int, *, may_shrink: bool
    ) -> tuple[int, list[VaultLog]]:
        """The logs of as many blocks from ``first`` on as the endpoint gives at once, with the last of these blocks.

        ``may_shrink``: a range with more than we take at once is halved, else refused.
        """
        while True:
            last = min(first + self._range[source] - 1, to_height)
            try:
                answer = await self._get_logs(source, first, last)
                if len(answer) > MAX_LOGS:
                    raise Rejected("more logs than a vault makes", got=len(answer), expected=MAX_LOGS, reason="size")
            except RpcError as error:
                if last == first:
                    raise Unavailable(
                        f"the endpoint gives no logs even of one block: {error.what}", got=first, reason="log_limit"
                    ) from error
            except Rejected as error:
                # a busy vault in a wide range is no lie
                if error.reason != "size" or last == first or not may_shrink:
                    raise
            else:
                self._range[source] = min(self._range[source] * 2, self._settings.log_range)
                return last, [decode_log(log, self._vault, first, last) for log in answer]
            self._range[source] = max((last - first + 1) // 2, 1)

    async def _get_logs(self, source: str, first: int, last: int) -> list[Any]:
        """One range, asked again a few times while the node is busy. RpcError: the node refuses the range."""
        pause_s = self._settings.retry_s
        for attempt in range(RETRIES):
            try:
                answer = await self._call(source, "eth_getLogs", build_log_filter(self._vault, first, last))
            except Unavailable:
                if attempt == RETRIES - 1:
                    raise
                await asyncio.sleep(pause_s)
                pause_s *= 2
                continue
            if not isinstance(answer, list):
                raise Rejected("logs are an array", got=type(answer).__name__, reason="malformed")
            return answer
        raise AssertionError("the last attempt returns or raises")


def _too_slow(source: str, patience_s: float) -> Unavailable:
    return Unavailable(
        "the endpoint is too slow for the range", expected=f"within {patience_s:.0f} s", reason="timeout", source=source
    )


def _cut_finalized(data: bytes) -> bytes:
    """The text of an event's finalized beacon header, unread, or b"" if it is not where it usually is: only to tell two events apart."""
    _, found, rest = data.partition(b'"finalized_header"')
    return rest[: rest.find(b"}")] if found else b""


async def _named(source: str, work: Awaitable[ResultT]) -> ResultT:
    """Put the endpoint's name on whatever error ends the work."""
    try:
        return await work
    except RelayerError as error:
        if not error.source:
            error.source = source
        raise
