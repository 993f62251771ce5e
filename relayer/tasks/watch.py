"""watch: bring a chain's light client forward, prove the vault's head, fold, record (style.md 3.5).

An acknowledgement is read here like a deposit: it is another outbox packet, and then its packet is done.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from chains.base import (
    FAR,
    FORMER_SET,
    Chain,
    Collected,
    Head,
    Point,
    Reader,
    Span,
    advance,
    bootstrap,
    collect,
    collect_parts,
    trace,
)
from messages.bodies import (
    CLEARING_CLIENT,
    ENCODING,
    PORT,
    VERSION,
    Ack,
    AckStatus,
    decode_outbox_body,
    get_kind,
)
from messages.errors import Rejected, Unavailable
from messages.ids import get_vault_client
from messages.outbox import Claim, Fact
from messages.packet import Packet, Payload
from relayer.node import Node
from relayer.rules.quorum import Fate, get_fate
from relayer.rules.statements import ArchiveRequest
from relayer.store import HeaderRecord, HeadRecord, Store

ASK_EVERY_S = 15
"""Seconds between two requests to the peers for packets that the own endpoints withhold."""

TELL_EVERY_S = 30
"""Seconds between two sentences in the log while a vault's head is far away."""

RECORD_EVERY_S = 20
"""Time of a chain between two recorded steps that prove nothing but that time went by: one that makes a block a second has a step a second,
each with the signatures of all its validators."""


async def step(node: Node, vault_id: bytes) -> bool:
    """One look at one chain; True if something new was recorded.

    Raises:
        Unavailable, Rejected, Conflict: as `chains.base`; handled by `relayer.node.run_step`.
    """
    node.log.debug("look", chain=node.chains[vault_id].chain_id)
    async with node.take_turn(vault_id):
        return await _look(node, vault_id)


async def _look(node: Node, vault_id: bytes) -> bool:
    chain = node.chains[vault_id]
    now = node.clock.now()
    if node.store.is_halted(f"chain:{chain.chain_id}"):
        return False
    headers: list[HeaderRecord] = []
    trusted = get_newest_trusted(node, chain)
    if trusted is None:
        claim, trusted, blames = await bootstrap(chain, now)
        headers.append(_make_header(chain, "bootstrap", chain.codec.encode_bootstrap(claim), trusted))
        node.store.record_blames(blames, now)
    elif not chain.verifier.is_fresh(trusted, now):
        raise Rejected(
            f"the trusted state of {chain.chain_id} is too old to build on: give a new checkpoint that several operators"
            " confirm",
            got=chain.verifier.get_point(trusted).time,
            expected=now,
            reason="stale_trusted",
        )
    base = chain.verifier.get_point(trusted)
    advanced = await advance(chain, trusted, now)
    node.store.record_blames(advanced.blames, now)
    for update, after in advanced.steps:
        headers.append(_make_header(chain, "update", chain.codec.encode_update(update), after))
        trusted = after
    point = chain.verifier.get_point(trusted)
    last = node.store.get_head(vault_id)
    if not headers and last is not None and last.point.height == point.height:
        return False
    try:
        collected = await collect_here_or_from_peers(node, chain, trusted)
    except Unavailable as error:
        # The headers are verified whatever the packets do: an outage of packets must not let the light client expire.
        is_far = error.reason == FAR
        is_unsound = error.reason == FORMER_SET  # whoever says so was no operator any more: not even the time counts
        if headers and not is_unsound and (is_far or _are_worth_recording(headers, base, point)):
            node.store.record_headers(chain.chain_id, headers)
            node.trusted[chain.chain_id] = trusted
        if is_far:
            return await catch_up(node, chain, trusted)
        raise
    if node.store.get_cursor(vault_id).sequence != collected.cursor.sequence - len(collected.facts):
        return True  # the evidence of a proposal was faster while we waited: nobody's fault, look again
    if (
        not collected.facts
        and last is not None
        and not _are_worth_recording(headers, last.point, point)
        and not _is_waited_for(node, vault_id, last.point, point)
    ):
        return False  # the next look begins at the same recorded state: what is on record always leads from one step to the next
    record(node, chain, headers, point, collected)
    return True


def _are_worth_recording(headers: Sequence[HeaderRecord], before: Point, point: Point) -> bool:
    """Whether steps moved far enough, began at a checkpoint, or took more than one leap and would take as many again."""
    return point.time - before.time >= RECORD_EVERY_S or len(headers) > 1 or any(h.kind == "bootstrap" for h in headers)


def _is_waited_for(node: Node, vault_id: bytes, last: Point, point: Point) -> bool:
    """Whether the time that went by ends an open packet, or the last agreed cut lies above what is on record here."""
    floor = node.get_cut_floor()
    if floor is not None and any(
        e.vault_id == vault_id and (e.height > last.height or e.time > last.time) for e in floor.entries
    ):
        return True
    timeouts = [p.timeout for p in node.store.get_packets("open") if p.vault_id == vault_id]
    return any(last.time < timeout <= point.time for timeout in timeouts)


def get_newest_trusted(node: Node, chain: Chain[Any, Any, Any, Any]) -> Any:
    """The newest light-client state, decoded; None before the first."""
    if chain.chain_id not in node.trusted:
        known = node.store.get_trusted(chain.chain_id)
        if known is None:
            return None
        node.trusted[chain.chain_id] = chain.codec.decode_trusted(known[1])
    return node.trusted[chain.chain_id]


async def collect_here_or_from_peers(
    node: Node, chain: Chain[Any, Any, Any, Any], trusted: Any, claimed: tuple[Head, Any] | None = None
) -> Collected[Any]:
    """Collect from the own endpoints; where they withhold packets, from what peers sent (protocol.md 12).

    Args:
        node: with its records.
        chain: the chain.
        trusted: verified state of its light client.
        claimed: head and proof that a proposal names; None asks the own endpoints for them too.

    Raises:
        Unavailable: neither has them; the peers have been asked.
    """
    cursor = node.store.get_cursor(chain.vault_id)
    last = node.store.get_head(chain.vault_id)
    from_height = chain.start_height if last is None else last.point.height
    reader = OwnInboxReader(chain.reader, node.store, chain.vault_id)
    own = reader if claimed is None else EvidenceReader(reader, claimed)
    try:
        collected = await collect(replace(chain, reader=own), trusted, cursor, from_height)
    except Unavailable as error:
        if error.reason in (FAR, FORMER_SET):
            raise  # `catch_up` goes there; what is missing otherwise are no packets
        held = node.peer_packets.get(chain.vault_id, {})
        if cursor.sequence + 1 in held:
            peers = PeerReader(own, held)
            try:
                collected = await collect(replace(chain, reader=peers), trusted, cursor, from_height)
            except Unavailable:
                after = _doubt_or_wait(node, chain.vault_id, cursor.sequence, peers.missing)
                await ask_peers(node, chain.vault_id, after)
                raise
            else:
                node.store.record_blames(collected.blames, node.clock.now())
                return collected
        await ask_peers(node, chain.vault_id, cursor.sequence)
        raise
    node.store.record_blames(collected.blames, node.clock.now())
    return collected


async def catch_up(node: Node, chain: Chain[Any, Any, Any, Any], trusted: Any) -> bool:
    """Go to a proven head that is more than one collect away, in parts; True once something was recorded.

    Each part is recorded by itself, under the head at the end of the way; that head and its time are recorded with the last part. In
    between the vault's newest proven head is the old one: it alone is in cuts, decides what is absent and is what others are told. A
    process that ends in between begins anew from the last part.

    Raises:
        Unavailable: no source has the way; what was recorded stands.
    """
    vault_id, now = chain.vault_id, node.clock.now()
    cursor, last = node.store.get_cursor(vault_id), node.store.get_head(vault_id)
    from_height = chain.start_height if last is None else last.point.height
    chain = replace(chain, reader=OwnInboxReader(chain.reader, node.store, vault_id))
    tell = _Progress(node, chain.chain_id).tell
    traced = await trace(chain, trusted, cursor, from_height, tell)
    node.store.record_blames(traced.blames, now)
    point = chain.verifier.get_point(trusted)
    async with aclosing(collect_parts(chain, traced, cursor, from_height, tell)) as parts:
        async for part in parts:
            node.store.record_blames(part.blames, node.clock.now())
            if node.store.is_halted(f"chain:{chain.chain_id}"):
                return False
            if node.store.get_cursor(vault_id) != cursor:
                return True  # the evidence of a proposal was faster while we waited: nobody's fault, look again
            chain.verifier.verify_facts(trusted, part.facts)
            if part.head == traced.head:
                record(node, chain, (), point, part)
            else:
                record_part(node, vault_id, part)
            cursor = part.cursor
    return True


class _Progress:
    """Says now and then in the log how far a long way was gone."""

    def __init__(self, node: Node, chain_id: str) -> None:
        self._node = node
        self._chain_id = chain_id
        self._told_at: dict[str, int] = {}

    def tell(self, what: str, done: int, total: int) -> None:
        """See `chains.base.Tell`."""
        now = self._node.clock.now()
        if done == total or now - self._told_at.setdefault(what, 0) >= TELL_EVERY_S:
            self._told_at[what] = now
            self._node.log.info("catching up", chain=self._chain_id, step=what, done=done, total=total)


def _doubt_or_wait(node: Node, vault_id: bytes, after: int, missing: int | None) -> int:
    """Judge what a peer sent and did not serve; returns the number after which to ask.

    Packets that only end too early are kept, because archives come in batches; packets that do not fold, or whose rest never
    came, are forgotten and their sender comes last from now on.
    """
    is_answer_due = node.clock.now() - node.asked_archive.get(vault_id, 0) >= ASK_EVERY_S
    if missing is not None and (node.peer_gaps.get(vault_id) != missing or not is_answer_due):
        node.peer_gaps[vault_id] = missing
        return missing - 1
    node.peer_packets.pop(vault_id, None)
    node.peer_gaps.pop(vault_id, None)
    source = node.peer_sources.pop(vault_id, None)
    doubted = node.doubted_peers.setdefault(vault_id, set())
    if source is not None:
        node.blame(
            node.chains[vault_id].chain_id, f"0x{source.hex()}", "bad_archive", "packets that serve no proven head"
        )
        doubted.add(source)
    if len(doubted) >= len(node.get_committee().operators) - 1:
        doubted.clear()  # everybody else failed too: begin again
    return after


async def ask_peers(node: Node, vault_id: bytes, after_sequence: int) -> None:
    """Ask every operator for the packets of a vault, not more often than `ASK_EVERY_S`."""
    now = node.clock.now()
    if now - node.asked_archive.get(vault_id, 0) >= ASK_EVERY_S:
        node.asked_archive[vault_id] = now
        await node.publish("archive_request", ArchiveRequest(vault_id, after_sequence, 2**53))


def record(
    node: Node,
    chain: Chain[Any, Any, Any, Any],
    headers: Sequence[HeaderRecord],
    point: Point,
    collected: Collected[Any],
) -> None:
    """Write headers, head, facts and snapshots in one transaction, then draw what follows from them.

    Facts that break conservation halt the node: they are true, so something is deeply wrong and a human must look.
    """
    vault_id = chain.vault_id
    headers = [*headers, *_make_succession(node, chain, headers, collected)]
    state, snapshots = node.states.compute_after(vault_id, collected.facts)
    proof = chain.codec.encode_proof(collected.proof)
    head = HeadRecord(vault_id, point, collected.head.sequence, collected.head.head, proof)
    node.store.record_collected(chain.chain_id, headers, head, collected.facts, snapshots)
    node.states.record(vault_id, state)
    if headers:
        node.trusted[chain.chain_id] = chain.codec.decode_trusted(headers[-1].trusted)
    held = node.peer_packets.get(vault_id)
    if held:
        node.peer_packets[vault_id] = {s: c for s, c in held.items() if s > collected.head.sequence}
    node.log.debug("header", chain=chain.chain_id, height=point.height)
    if collected.facts:
        node.log.info(
            "facts", chain=chain.chain_id, height=point.height, count=len(collected.facts), upto=collected.head.sequence
        )
    settle_packets(node, vault_id, point, collected.facts)
    node.verify_worth()
    node.settle_wake.set()
    node.submit_wake.set()


def _make_succession(
    node: Node, chain: Chain[Any, Any, Any, Any], headers: Sequence[HeaderRecord], collected: Collected[Any]
) -> list[HeaderRecord]:
    """The step by which facts that are about to be recorded change who is believed, to be recorded with them: none is lost in between."""
    if not collected.facts or chain.observer is None:
        return []
    trusted = chain.codec.decode_trusted(headers[-1].trusted) if headers else get_newest_trusted(node, chain)
    before = node.store.get_cursor(chain.vault_id).head
    update = chain.verifier.make_succession(trusted, before, collected.facts, collected.proof)
    if update is None:
        return []
    after = chain.verifier.verify_update(trusted, update, node.clock.now())
    node.log.info("next operators", chain=chain.chain_id, upto=collected.head.sequence)
    return [_make_header(chain, "update", chain.codec.encode_update(update), after)]


def record_part(node: Node, vault_id: bytes, collected: Collected[Any]) -> None:
    """Write the facts of a part and the snapshots among them in one transaction; nothing follows from them yet.

    No fate of a packet and no time: a part says nothing of the state that the head at the end of the way proves.
    """
    state, snapshots = node.states.compute_after(vault_id, collected.facts)
    node.store.record_part(vault_id, collected.facts, snapshots)
    node.states.record_part(vault_id, state)


def settle_packets(node: Node, vault_id: bytes, point: Point, facts: Sequence[Fact]) -> None:
    """Record what the new facts, or proven absence, say of open packets (protocol.md 2)."""
    acks = {f.body.inbox_sequence: f.body for f in facts if isinstance(f.body, Ack)}
    inbox_sequence = node.states.get_newest(vault_id).inbox_sequence
    for packet in node.store.get_packets("open"):
        if packet.vault_id != vault_id:
            continue
        fate = get_fate(packet.sequence, packet.timeout, inbox_sequence, point.time)
        if fate is Fate.OPEN:
            continue
        status = "absent"
        if fate is Fate.ANSWERED:
            ack = acks.get(packet.sequence) or find_ack(node, vault_id, packet.sequence)
            if ack is not None and ack.inbox_commitment == packet.commitment:
                status = "done" if ack.status == AckStatus.DONE else "refused"
        node.store.record_packet_status(vault_id, packet.sequence, packet.commitment, status)
        node.log.info("packet settled", vault=vault_id.hex()[:8], sequence=packet.sequence, status=status)


def find_ack(node: Node, vault_id: bytes, inbox_sequence: int) -> Ack | None:
    """The Ack of an inbox packet among recorded facts: a packet may become known after its Ack (newest facts first)."""
    upto = node.store.get_cursor(vault_id).sequence
    while upto > 0:
        after = max(0, upto - 256)
        for fact in node.store.iterate_facts(vault_id, after, upto):
            if isinstance(fact.body, Ack) and fact.body.inbox_sequence == inbox_sequence:
                return fact.body
        upto = after
    return None


def _make_header(chain: Chain[Any, Any, Any, Any], kind: str, claim: bytes, trusted: Any) -> HeaderRecord:
    return HeaderRecord(chain.verifier.get_point(trusted), kind, claim, chain.codec.encode_trusted(trusted))


class PeerReader(Reader[Any, Any, Any, Any]):
    """The own endpoints for headers and heads, the peers' archive for packets: believed only after the fold, as always."""

    def __init__(self, inner: Reader[Any, Any, Any, Any], held: dict[int, Claim]) -> None:
        self._inner = inner
        self._held = held
        self.missing: int | None = None
        """The first number that was asked for and is not held, once there was one."""

    @property
    def sources(self) -> Sequence[str]:
        """The own endpoints."""
        return self._inner.sources

    async def bootstrap(self, source: str) -> Any:
        """As the inner one."""
        return await self._inner.bootstrap(source)

    async def update(self, source: str, trusted: Any) -> Any:
        """As the inner one."""
        return await self._inner.update(source, trusted)

    async def head(self, source: str, trusted: Any) -> tuple[Head, Any]:
        """As the inner one."""
        return await self._inner.head(source, trusted)

    async def packets(self, source: str, span: Span) -> Sequence[Claim]:
        """From the peers, whatever the source."""
        del source
        wanted = range(span.after_sequence + 1, span.upto_sequence + 1)
        missing = [s for s in wanted if s not in self._held]
        if missing:
            self.missing = missing[0]
            raise Unavailable("the peers have not sent these packets yet", got=missing[0], reason="no_peer_packets")
        return [self._held[s] for s in wanted]


class OwnInboxReader(PeerReader):
    """A reader over the own endpoints that puts inbox packets beside the Acks that come without: operators keep every packet they open."""

    def __init__(self, inner: Reader[Any, Any, Any, Any], store: Store, vault_id: bytes) -> None:
        super().__init__(inner, {})
        self._store = store
        self._vault_id = vault_id

    async def packets(self, source: str, span: Span) -> Sequence[Claim]:
        """As the inner one, Acks with the open or settled packet of their commitment; without where it is not known here."""
        return [self._complete(claim) for claim in await self._inner.packets(source, span)]

    async def walk(self, source: str, span: Span) -> AsyncGenerator[Sequence[Claim]]:
        """As `packets`, piece by piece."""
        async with aclosing(self._inner.walk(source, span)) as pieces:
            async for claims in pieces:
                yield [self._complete(claim) for claim in claims]

    def _complete(self, claim: Claim) -> Claim:
        value = claim.packet.payloads[0].value if claim.inbox is None and claim.packet.payloads else b""
        try:
            if get_kind(value) != Ack.KIND:
                return claim
            ack = decode_outbox_body(value)
        except Rejected:
            return claim  # the fold says what a packet is worth that makes no sense
        assert isinstance(ack, Ack)  # the kind was read above
        known = self._store.get_packet(self._vault_id, ack.inbox_sequence, ack.inbox_commitment)
        if known is None:
            return claim
        payload = Payload(PORT, PORT, VERSION, ENCODING, known.value)
        client = get_vault_client(self._vault_id)
        return replace(claim, inbox=Packet(known.sequence, client, CLEARING_CLIENT, known.timeout, (payload,)))


class EvidenceReader(PeerReader):
    """A proposal's head and proof over another reader, which gives the packets."""

    def __init__(self, inner: Reader[Any, Any, Any, Any], claimed: tuple[Head, Any]) -> None:
        super().__init__(inner, {})
        self._claimed = claimed

    async def head(self, source: str, trusted: Any) -> tuple[Head, Any]:
        """As the proposal names it; the verifier judges it."""
        del source, trusted
        return self._claimed

    async def packets(self, source: str, span: Span) -> Sequence[Claim]:
        """As the inner one."""
        return await self._inner.packets(source, span)

    async def walk(self, source: str, span: Span) -> AsyncGenerator[Sequence[Claim]]:
        """As the inner one."""
        async with aclosing(self._inner.walk(source, span)) as pieces:
            async for claims in pieces:
                yield claims

    def forget(self, source: str) -> bool:
        """As the inner one."""
        return self._inner.forget(source)
