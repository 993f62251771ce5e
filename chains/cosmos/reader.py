"""Fetches from named endpoints over CometBFT's RPC, believes nothing.

Every call names its endpoint, so that every error carries the name of who caused it. What a node says is decoded strictly and handed on as a
claim; a node that is behind, silent or has forgotten is Unavailable, one that says something malformed or something else than asked is Rejected.

Updates: the newest block of the source if enough of the validators that the trusted header announced *claim* to have signed it, else the block
half-way, and so on: the source is asked for candidates, the verifier alone decides. One step to the newest block a round: a chain that makes a
block a second is not chased. At the end of a round every other source is asked for the trusted height too, and a second header that the
validators really signed stops the chain at once, whoever shows it (F1, F3).

Heads: header h carries the state after block h - 1, so the store is asked at h - 1. Packets: `tx_search` by the vault's own event, in ranges of
heights; where a node keeps no index, the results of each block. Where that fails, the vault's own record of its newest packets, one by one: the
sender of a transaction can write so much beside the vault's events that no node can tell them, and must not hold up the vault by that. A record
shows no inbox packet, so an Ack comes without; who certified it knows it. Whether a node told everything is not its word to give: the numbers
must be without gaps, and the fold under the proven head decides (incident E5).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from chains.base import Head, Reader, Span
from chains.claims import make_claims, make_missing, make_shown_claims
from chains.cosmos.client import CosmosClient, CosmosEndpoint
from chains.cosmos.codec import parse_commit, parse_header, parse_validators
from chains.cosmos.comet_json import (
    MAX_VALIDATOR_PAGES,
    TRANSACTIONS_PER_PAGE,
    VALIDATORS_PER_PAGE,
    PacketEvent,
    build_search,
    parse_block_results,
    parse_signed_header,
    parse_tx_search,
    parse_validator_page,
)
from chains.cosmos.evidence import verify_no_conflict
from chains.cosmos.hashing import compute_address, compute_header_hash, compute_validators_hash
from chains.cosmos.light_client import LightClientConfig, choose_pivot, is_adjacent
from chains.cosmos.proofs import KEPT_PACKETS, OUTBOX_HEAD_KEY, compute_contract_key, compute_packet_key
from chains.cosmos.transport import TIMEOUT_S, RpcError
from chains.cosmos.types import Bootstrap, Flag, Header, LightBlock, Proof, Trusted, Update, ValidatorSet
from chains.cosmos.validators import is_above
from chains.cosmos.vault_json import parse_outbox_sequence, parse_stored_packet
from chains.cosmos.verifier import CosmosRules
from messages.errors import Rejected, RelayerError, Unavailable
from messages.outbox import Claim
from messages.packet import Packet

ResultT = TypeVar("ResultT")

STORE_PATH = "/store/wasm/key"
MAX_LOG_RANGE = 10_000
"""Heights per `tx_search` to begin with."""
MAX_TRANSACTIONS = 50_000
"""Transactions of one `packets`: one for each packet of the largest collect, with room."""
MAX_PACKET_EVENTS = 100_000
MAX_PACKET_BYTES = 512 << 20
"""Events of one `packets` that may matter, and their payloads: far above what the largest collect needs (about 50 MB)."""
MAX_QUERIES = 10_000
"""Requests of one `packets`: a node that makes us ask for more is not usable."""
RECORDS_AT_ONCE = 16
"""Records of packets that are asked for at the same time."""
MAX_CANDIDATES = 64
"""Halvings between two heights of 63 bits."""
KNOWN_SETS = 8
"""Validator sets that are kept by their hash: as long as a set stands, it is not fetched again."""
RETRIES = 3
PATIENT_BLOCKS = 500
"""Heights of a span for which one more time-out may pass: a node that answers each small range just in time is not usable."""
PATIENT_ANSWERS = 6
"""Time-outs that all answers behind one header may take together."""
_NO_INDEX = re.compile(r"indexing is disabled|transaction indexing|kv event sink", re.IGNORECASE)


@dataclass(frozen=True)
class ReaderSettings:
    """How patiently to ask. ``retry_s``: first pause before the same request is tried again; it doubles.

    witness_s: how long a round may wait for the other sources' word; rest_s: how long one that had none is left alone then.
    """

    timeout_s: float = TIMEOUT_S
    retry_s: float = 0.25
    log_range: int = MAX_LOG_RANGE
    witness_s: float = 2.0
    rest_s: float = 60.0


class CosmosReader(Reader[Bootstrap, Trusted, Update, Proof]):
    """Reader of one vault over several endpoints."""

    lag_s = 60  # a committed block is final at once

    def __init__(
        self, rules: CosmosRules, endpoints: Sequence[CosmosEndpoint], settings: ReaderSettings | None = None
    ) -> None:
        self._rules = rules
        self._settings = settings or ReaderSettings()
        self._client = CosmosClient(rules, endpoints, self._settings.timeout_s)
        self._unindexed: set[str] = set()
        self._range = {endpoint.name: self._settings.log_range for endpoint in endpoints}
        self._sets: dict[bytes, ValidatorSet] = {}
        self._given: dict[str, bytes] = {}
        """Hash of the newest header that a source gave in this round."""
        self._rests: dict[str, float] = {}
        """Until when (the event loop's seconds) a source is not asked as a witness, because it was silent."""

    @property
    def sources(self) -> Sequence[str]:
        """Names of the endpoints in the order of configuration."""
        return self._client.sources

    async def close(self) -> None:
        """Close the connections of every endpoint; the next question opens them again."""
        await self._client.close()

    # ------------------------------------------------------------------ the four questions

    async def bootstrap(self, source: str) -> Bootstrap:
        """The light block at the configured checkpoint's height."""
        return await _named(source, self._in_time(self._get_bootstrap(source)))

    async def update(self, source: str, trusted: Trusted) -> Update | None:
        """The farthest block that the announced validators claim to have signed, a contradiction of the trusted header, or None.

        Raises Conflict too: where another source shows a second header of the trusted height that the validators really signed.
        """
        return await _named(source, self._in_time(self._get_update(source, trusted)))

    async def head(self, source: str, trusted: Trusted) -> tuple[Head, Proof]:
        """Outbox head and number in the state under ``trusted``, with the proof of the head (`abci_query`)."""
        return await _named(source, self._get_head(source, trusted))

    async def packets(self, source: str, span: Span) -> Sequence[Claim]:
        """The vault's packets of the span, in order and without a gap, Acks with what they answer."""
        return await _named(source, self._get_packets(source, span))

    async def walk(self, source: str, span: Span) -> AsyncGenerator[Sequence[Claim]]:
        """The packets of a long span, range of heights by range of heights; one range is in memory at a time. See `Reader.walk`.

        The newest, where their events cannot be had, from the vault's records.
        """
        wanted = span
        first, spent_s = max(span.from_height, 1), 0.0
        clock = asyncio.get_running_loop().time
        while wanted.after_sequence < span.upto_sequence and first <= span.to_height:
            begin, blocks = clock(), first + self.get_range(source) - span.from_height
            search = _EventSearch(self, source, self._rules.vault_address, may_shrink=True)
            try:
                # only the endpoint's own time counts, and not that of whoever reads
                async with asyncio.timeout(max(self._get_patience_s(blocks) - spent_s, 0.0)):
                    last, events = await _named(source, search.search_some(first, wanted))
                spent_s += clock() - begin
                claims = make_shown_claims(events, wanted.after_sequence, wanted.upto_sequence, source)
            except (Rejected, Unavailable, TimeoutError) as error:
                found = await self._read_records(source, wanted)
                if found is not None:
                    yield found
                    return
                if isinstance(error, TimeoutError):
                    raise _too_slow(source, self._get_patience_s(blocks)) from error
                raise
            if claims:
                wanted = replace(wanted, after_sequence=claims[-1].packet.sequence)
            yield claims  # none is news too: the endpoint is at work
            first = last + 1
        if wanted.after_sequence < span.upto_sequence:
            found = await self._read_records(source, wanted)
            if found is None:
                raise make_missing(source, span.after_sequence, span.upto_sequence, wanted.after_sequence)
            yield found

    async def follow(self, source: str, hint: Callable[[], None]) -> None:
        """Hint when the node tells of packets of the vault that are provable now; see `Reader.follow`."""
        await self._client.follow(source, hint)

    # ------------------------------------------------------------------ asking

    async def _in_time(self, work: Awaitable[ResultT]) -> ResultT:
        """A header's many small answers in a bounded time: pages of validators and halvings, each just in time, would take hours."""
        patience_s = self._settings.timeout_s * PATIENT_ANSWERS
        try:
            async with asyncio.timeout(patience_s):
                return await work
        except TimeoutError as error:
            raise Unavailable(
                "the endpoint is too slow for a header", expected=f"within {patience_s:.0f} s", reason="timeout"
            ) from error

    async def get_block(self, source: str, height: int) -> LightBlock:
        """The light block of a height; Unavailable ("no_block") where the node has it not (yet, or no more)."""
        signed = await self._get_signed_header(source, height)
        header = parse_header(signed.get("header"))
        own = await self._get_validators(source, height, header.validators_hash)
        following: ValidatorSet | None = None
        if header.next_validators_hash != header.validators_hash:
            following = await self._get_validators(source, height + 1, header.next_validators_hash)
        return LightBlock(header, parse_commit(signed.get("commit")), own, following)

    async def _get_signed_header(self, source: str, height: int) -> Mapping[str, Any]:
        return parse_signed_header(await self._ask_at(source, "commit", {"height": str(height)}, height))

    async def _get_validators(self, source: str, height: int, expected: bytes) -> ValidatorSet:
        """The set of a height: from memory where the header names one that is known, else page by page."""
        known = self._sets.get(expected)
        if known is not None:
            return known
        members: list[Any] = []
        for page in range(1, MAX_VALIDATOR_PAGES + 1):
            params = {"height": str(height), "page": str(page), "per_page": str(VALIDATORS_PER_PAGE)}
            answer = await self._ask_at(source, "validators", params, height)
            found, total = parse_validator_page(answer, height)
            members += found
            if len(members) >= total or not found:
                break
        validators = parse_validators(members)
        if compute_validators_hash(validators) == expected:
            self._remember(validators, expected)
        return validators

    def _remember(self, validators: ValidatorSet, validators_hash: bytes) -> None:
        if validators_hash not in self._sets:
            while len(self._sets) >= KNOWN_SETS:
                del self._sets[next(iter(self._sets))]
            self._sets[validators_hash] = validators

    async def _ask_at(self, source: str, method: str, params: Mapping[str, Any], height: int) -> Any:
        try:
            return await self._client.ask(source, method, params)
        except RpcError as error:
            # a node that is behind or has pruned: it cannot help, but it has not lied
            raise Unavailable(
                f"the endpoint does not have this height: {error.what}", got=height, reason="no_block"
            ) from error

    # ------------------------------------------------------------------ headers

    async def _get_bootstrap(self, source: str) -> LightBlock:
        await self._client.get_status(source)
        return await self.get_block(source, self._rules.settings.checkpoint_height)

    async def _get_update(self, source: str, trusted: Trusted) -> LightBlock | None:
        status, other = await self._client.ask_both(self._client.get_status(source), self._find_other(source, trusted))
        if status.height < trusted.height:
            return None
        if other is not None:
            return other  # what contradicts the trusted state is handed on first: the verifier must see it
        is_done = self._given.pop(source, b"") == trusted.header_hash
        if status.height == trusted.height or is_done:
            await self._watch_witnesses(source, trusted)
            return None
        block = await self._find_candidate(source, trusted, status.height)
        if block.header.height == status.height:
            self._given[source] = block.commit.block_id.hash
        return block

    async def _find_candidate(self, source: str, trusted: Trusted, newest: int) -> LightBlock:
        if trusted.next_validators is not None:
            self._remember(trusted.next_validators, trusted.next_validators_hash)
        height = newest
        for _ in range(MAX_CANDIDATES):
            block = await self.get_block(source, height)
            if block.header.height != height:
                raise Rejected(
                    "a block of another height", got=block.header.height, expected=height, reason="wrong_height"
                )
            if is_within_reach(trusted, block, self._rules.config):
                return block
            height = trusted.height + 1 if trusted.next_validators is None else choose_pivot(trusted, height)
        raise AssertionError("halving reaches the next block, and that is always within reach")

    async def _find_other(self, source: str, trusted: Trusted) -> LightBlock | None:
        """The source's block of the trusted height, if it is not the trusted one."""
        try:
            header = parse_header((await self._get_signed_header(source, trusted.height)).get("header"))
            if _is_same(header, trusted):
                return None
            return await self.get_block(source, trusted.height)
        except Unavailable as error:
            if error.reason == "no_block":
                return None  # pruned: nothing to compare
            raise

    async def _watch_witnesses(self, source: str, trusted: Trusted) -> None:
        """Ask every other source for the trusted height; Conflict where one shows another header that the validators signed.

        A witness that is silent, behind, or shows what nobody signed changes nothing: it is blamed when it is the one that is asked.
        """
        now = asyncio.get_running_loop().time()
        others = [name for name in self.sources if name != source and self._rests.get(name, 0.0) <= now]
        answers = await asyncio.gather(*(self._ask_witness(name, trusted) for name in others))
        for name, answer in zip(others, answers, strict=True):
            if answer is None:
                continue
            try:
                verify_no_conflict(trusted, answer, trusted.time_ns, self._rules.config)
            except Rejected:
                continue
            except RelayerError as error:
                error.source = name
                raise

    async def _ask_witness(self, name: str, trusted: Trusted) -> LightBlock | None:
        """The other block of a witness, None where it agrees or has no word in time; then it rests."""
        try:
            async with asyncio.timeout(self._settings.witness_s):
                return await self._find_other(name, trusted)
        except (Rejected, Unavailable, TimeoutError):
            self._rests[name] = asyncio.get_running_loop().time() + self._settings.rest_s
            return None

    # ------------------------------------------------------------------ state

    async def _get_head(self, source: str, trusted: Trusted) -> tuple[Head, Proof]:
        height = trusted.height - 1
        key = compute_contract_key(self._rules.vault, OUTBOX_HEAD_KEY)
        # the proof's failure is told before that of the number, which says less
        (head, proof), cursors = await self._client.ask_both(
            self._query_head(source, key, height), self._client.query_vault(source, {"cursors": {}}, height=height)
        )
        return Head(parse_outbox_sequence(cursors), head), proof

    async def _query_head(self, source: str, key: bytes, height: int) -> tuple[bytes, Proof]:
        try:
            answer = await self._client.query(source, STORE_PATH, key, height=height, prove=True)
        except RpcError as error:
            raise Unavailable(
                f"the endpoint gives no proof at this height: {error.what}", got=height, reason="no_proof"
            ) from error
        if answer.code or not answer.height:
            # a node that is behind or has pruned the state: it cannot help, but it has not lied
            raise Unavailable(
                f"the endpoint gives no proof at this height: {answer.log}", got=height, reason="no_proof"
            )
        if answer.height != height or answer.proof is None:
            raise Rejected("not a proof at this height", got=answer.height, expected=height, reason="malformed")
        if len(answer.value) != 32:
            raise Rejected("the vault's outbox head has 32 bytes", got=answer.value, reason="malformed")
        return answer.value, answer.proof

    # ------------------------------------------------------------------ packets

    async def _get_packets(self, source: str, span: Span) -> tuple[Claim, ...]:
        """From the events, else from the vault's records; what is raised is what the events failed by."""
        if span.upto_sequence <= span.after_sequence:
            return ()
        try:
            return await self._find_packets_in_time(source, span)
        except (Rejected, Unavailable):
            claims = await self._read_records(source, span)
            if claims is None:
                raise
            return claims

    async def _find_packets_in_time(self, source: str, span: Span) -> tuple[Claim, ...]:
        patience_s = self._get_patience_s(span.to_height - span.from_height)
        try:
            async with asyncio.timeout(patience_s):
                return await self._find_packets(source, span)
        except TimeoutError as error:
            raise _too_slow(source, patience_s) from error

    def _get_patience_s(self, blocks: int) -> float:
        """How long an endpoint may take for so many blocks."""
        return self._settings.timeout_s * (RETRIES + 1 + max(blocks, 0) / PATIENT_BLOCKS)

    async def _find_packets(self, source: str, span: Span) -> tuple[Claim, ...]:
        """The packets as the events of transactions tell them."""
        events = await _EventSearch(self, source, self._rules.vault_address).run(span)
        claims = make_claims(events, span.after_sequence, span.upto_sequence)
        wanted = span.upto_sequence - span.after_sequence
        if len(claims) != wanted:
            told_upto = span.after_sequence + len(claims)
            raise make_missing(source, span.after_sequence, span.upto_sequence, told_upto)
        return claims

    async def _read_records(self, source: str, span: Span) -> tuple[Claim, ...] | None:
        """The packets as the vault keeps them in the state under the header; None where the source does not give one of them."""
        numbers = range(span.after_sequence + 1, span.upto_sequence + 1)
        if len(numbers) > KEPT_PACKETS:
            return None
        packets: list[Packet | None] = []
        try:
            async with asyncio.timeout(self._settings.timeout_s * PATIENT_ANSWERS):
                for begin in range(0, len(numbers), RECORDS_AT_ONCE):
                    some = numbers[begin : begin + RECORDS_AT_ONCE]
                    packets += await asyncio.gather(*(self._read_record(source, n, span.to_height - 1) for n in some))
        except (Rejected, Unavailable, RpcError, TimeoutError):
            return None
        claims = tuple(Claim(packet) for packet in packets if packet is not None)
        return claims if len(claims) == len(numbers) else None

    async def _read_record(self, source: str, number: int, height: int) -> Packet | None:
        key = compute_packet_key(self._rules.vault, number)
        answer = await self._client.query(source, STORE_PATH, key, height=height)
        if answer.code or not answer.value:
            return None
        return parse_stored_packet(self._rules.vault_id, number, answer.value)

    async def ask_patiently(self, source: str, method: str, params: Mapping[str, Any]) -> Any:
        """One question, asked again a few times while the node is busy. RpcError: the node refuses it."""
        pause_s = self._settings.retry_s
        for attempt in range(RETRIES):
            try:
                return await self._client.ask(source, method, params)
            except Unavailable:
                if attempt == RETRIES - 1:
                    raise
                await asyncio.sleep(pause_s)
                pause_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def is_indexed(self, source: str) -> bool:
        """Whether a source is not known to keep no index of transactions."""
        return source not in self._unindexed

    def note_unindexed(self, source: str) -> None:
        """Remember that a source keeps no index of transactions."""
        self._unindexed.add(source)

    def get_range(self, source: str) -> int:
        """How many heights to ask a source for at once."""
        return self._range[source]

    def set_range(self, source: str, heights: int) -> None:
        """Remember how many heights a source lets one ask for at once."""
        self._range[source] = min(max(heights, 1), self._settings.log_range)


class _EventSearch:
    """One search for the vault's events in a range of heights, with its bounds; ``may_shrink``: a range above them is halved, else refused."""

    def __init__(self, reader: CosmosReader, source: str, address: str, *, may_shrink: bool = False) -> None:
        self._reader = reader
        self._may_shrink = may_shrink
        self._source = source
        self._address = address
        self._queries = 0
        self._transactions = 0
        self._events = 0
        self._bytes = 0

    async def run(self, span: Span) -> list[PacketEvent]:
        events: list[PacketEvent] = []
        first = max(span.from_height, 1)
        while first <= span.to_height:
            last, found = await self.search_some(first, span)
            events += found
            first = last + 1
        return events

    async def search_some(self, first: int, span: Span) -> tuple[int, list[PacketEvent]]:
        """The events of as many heights from ``first`` on as the endpoint gives at once and we take, with the last of these heights."""
        reader, source = self._reader, self._source
        while True:
            if not reader.is_indexed(source):
                return first, self._select(await self._read_block(first), span)
            last = min(first + reader.get_range(source) - 1, span.to_height)
            try:
                found = await self._search(first, last, span)
            except RpcError as error:
                if _NO_INDEX.search(error.what):
                    reader.note_unindexed(source)
                    continue
                if last == first:
                    raise Unavailable(
                        f"the endpoint searches not even one block: {error.what}", got=first, reason="log_limit"
                    ) from error
            except Rejected as error:
                # a busy vault in a wide range is no lie
                if error.reason != "size" or last == first or not self._may_shrink:
                    raise
                self._transactions = self._events = self._bytes = 0
            else:
                reader.set_range(source, reader.get_range(source) * 2)
                return last, found
            reader.set_range(source, (last - first + 1) // 2)

    async def _search(self, first: int, last: int, span: Span) -> list[PacketEvent]:
        events: list[PacketEvent] = []
        seen, page, per_page = 0, 1, TRANSACTIONS_PER_PAGE
        while True:
            params = {
                "query": build_search(self._address, first, last),
                "prove": False,
                "page": str(page),
                "per_page": str(per_page),
                "order_by": "asc",
            }
            try:
                answer = await self._ask("tx_search", params)
            except Rejected as error:
                if error.reason != "size" or per_page == 1:
                    raise
                # whoever calls the vault may write much beside its events: a page of fewer transactions is no lie
                events, seen, page, per_page = [], 0, 1, max(per_page // 10, 1)
                continue
            found, number, total = parse_tx_search(answer, self._address, first, last)
            self._count(number)
            events += self._select(found, span)
            seen, page = seen + number, page + 1
            if seen >= total or not number:
                return events

    async def _read_block(self, height: int) -> list[PacketEvent]:
        try:
            answer = await self._ask("block_results", {"height": str(height)})
        except RpcError as error:
            raise Unavailable(
                f"the endpoint has neither an index nor the results of this block: {error.what}",
                got=height,
                reason="no_results",
            ) from error
        found = parse_block_results(answer, self._address, height)
        self._count(len(found))
        return found

    async def _ask(self, method: str, params: Mapping[str, Any]) -> Any:
        self._queries += 1
        if self._queries > MAX_QUERIES:
            raise Unavailable("the endpoint makes us ask too often", got=self._queries, reason="log_limit")
        return await self._reader.ask_patiently(self._source, method, params)

    def _select(self, found: Sequence[PacketEvent], span: Span) -> list[PacketEvent]:
        """What may matter for the span, within bounds: a few transactions can show many packets, and nobody asked for other numbers."""
        wanted = [
            event
            for event in found
            if not event.is_outbox or span.after_sequence < event.packet.sequence <= span.upto_sequence
        ]
        self._events += len(wanted)
        self._bytes += sum(len(event.packet.payloads[0].value) for event in wanted)
        if self._events > MAX_PACKET_EVENTS or self._bytes > MAX_PACKET_BYTES:
            raise Rejected(
                "more packets than were asked for",
                got=(self._events, self._bytes),
                expected=(MAX_PACKET_EVENTS, MAX_PACKET_BYTES),
                reason="size",
            )
        return wanted

    def _count(self, transactions: int) -> None:
        self._transactions += transactions
        if self._transactions > MAX_TRANSACTIONS:
            raise Rejected(
                "more transactions than a vault has", got=self._transactions, expected=MAX_TRANSACTIONS, reason="size"
            )


def _too_slow(source: str, patience_s: float) -> Unavailable:
    return Unavailable(
        "the endpoint is too slow for the range", expected=f"within {patience_s:.0f} s", reason="timeout", source=source
    )


def is_within_reach(trusted: Trusted, block: LightBlock, config: LightClientConfig) -> bool:
    """Ask whether the verifier may accept a block if its signatures are real: the next one, or claimed by enough of the announced power."""
    if is_adjacent(trusted, block.header):
        return True
    if trusted.next_validators is None:
        return False
    signers = {vote.address for vote in block.commit.signatures if vote.flag == Flag.COMMIT}
    members = trusted.next_validators.validators
    power = sum(member.power for member in members if compute_address(member.key) in signers)
    return is_above(power, trusted.next_validators.total_power, config.trust_level)


def _is_same(header: Header, trusted: Trusted) -> bool:
    return compute_header_hash(header) == trusted.header_hash


async def _named(source: str, work: Awaitable[ResultT]) -> ResultT:
    """Put the endpoint's name on whatever error ends the work."""
    try:
        return await work
    except RelayerError as error:
        if not error.source:
            error.source = source
        raise
