"""watch: bring a chain's light client forward, prove the vault's head, fold, record (style.md 3.5).

An acknowledgement is read here like a deposit: it is another outbox packet, and then its packet is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any

from chains.base import (
    FAR,
    FORMER_SET,
    PACKETS_PER_PART,
    Chain,
    Collected,
    FarHead,
    Head,
    Point,
    Reader,
    Span,
    Traced,
    advance,
    bootstrap,
    collect,
    collect_parts,
    make_traced,
    prove_far,
    trace,
    verify_vouched,
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
from messages.outbox import Claim, Fact, Walk, fold_part, get_next_mark, is_rotation
from messages.packet import Packet, Payload
from relayer.killpoints import reach
from relayer.node import Node
from relayer.rules.ledger import get_state_at
from relayer.rules.quorum import Fate, get_fate
from relayer.rules.statements import ArchiveRequest
from relayer.store import HeaderRecord, HeadRecord, Store

ASK_EVERY_S = 15
"""Seconds between two requests to the peers for packets that the own endpoints withhold."""

PEER_PATIENCE_S = 4 * ASK_EVERY_S
"""How long a peer that sends a long way may have nothing new, or less than `PEER_PACE`, before another one is heard."""

PEER_PACE = 64
"""Packets of a long way that a peer sends in `PEER_PATIENCE_S`, a fraction of what an honest one does: each just in time would take months."""

SUCCESSION_PACKETS = 2_000
"""Packets of earlier parts that may still say, with the last part, who become operators next: more than one handover spans."""

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
    with node.look(vault_id):
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
    if vault_id in node.peer_ways:
        with suppress(_StoppingError):
            return await _go_on_with_peers(node, chain, node.peer_ways[vault_id])
        return False
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
        try:
            if error.reason == FAR:
                with suppress(_StoppingError):
                    return await catch_up(node, chain, trusted, headers)
                return False
            raise
        except Unavailable as last_error:
            # The headers are verified whatever the packets do: an outage of packets must not let the light client expire. But where who
            # says so was no operator any more, not even the time counts.
            is_sound = last_error.reason != FORMER_SET
            if headers and is_sound and vault_id not in node.peer_ways and _are_worth_recording(headers, base, point):
                node.store.record_headers(chain.chain_id, headers)
                node.trusted[chain.chain_id] = trusted
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
            await ask_peers(node, chain.vault_id, cursor.sequence)
            raise
    node.store.record_blames(collected.blames, node.clock.now())
    verify_vouched(chain, trusted, (*await get_unfinished_rotations(node, chain), *collected.facts))
    return collected


async def catch_up(node: Node, chain: Chain[Any, Any, Any, Any], trusted: Any, headers: list[HeaderRecord]) -> bool:
    """Go to a proven head that is more than one collect away, in parts; True once something was recorded.

    Each part is recorded by itself, under the head at the end of the way; that head and its time are recorded with the last part. In
    between the vault's newest proven head is the old one: it alone is in cuts, decides what is absent and is what others are told. A
    process that ends in between begins anew from the last part. Where the own endpoints do not serve the packets, peers do (protocol.md 12).

    Args:
        node: with its records.
        chain: the chain.
        trusted: verified state of its light client.
        headers: steps to it that are not recorded yet; emptied once they are.

    Raises:
        Unavailable: no source has the way, and the peers have been asked; what was recorded stands. `FORMER_SET`.
    """
    vault_id, now = chain.vault_id, node.clock.now()
    cursor, last = node.store.get_cursor(vault_id), node.store.get_head(vault_id)
    from_height = chain.start_height if last is None else last.point.height
    chain = replace(chain, reader=OwnInboxReader(chain.reader, node.store, vault_id))
    beginning = _Beginning(trusted, tuple(headers), node.store.get_trusted(chain.chain_id))
    tell = _Progress(node, chain.chain_id).tell
    try:
        traced = await trace(chain, trusted, cursor, from_height, tell)
    except Unavailable as error:
        if error.reason != FORMER_SET:
            found, _ = await prove_far(chain, trusted, cursor, from_height)
            if found:
                walk, progress = Walk(cursor, chain.part_packets), _Progress(node, chain.chain_id)
                node.peer_ways[vault_id] = PeerWay(beginning, found[-1], walk, progress, now)
                await ask_peers(node, vault_id, cursor.sequence)
        raise
    node.store.record_blames(traced.blames, now)
    verify_vouched(chain, trusted, (*await get_unfinished_rotations(node, chain), *traced.trail.rotations))
    if not _begin_way(node, chain, beginning):
        return True
    headers.clear()
    point = chain.verifier.get_point(trusted)
    async with aclosing(collect_parts(chain, traced, cursor, from_height, tell)) as parts:
        async for part in parts:
            node.store.record_blames(part.blames, node.clock.now())
            if node.store.is_halted(f"chain:{chain.chain_id}"):
                return False
            if node.store.get_cursor(vault_id) != cursor:
                return True  # the evidence of a proposal was faster while we waited: nobody's fault, look again
            if part.head == traced.head:
                record(node, chain, (), point, part)
            else:
                record_part(node, vault_id, part, traced.head.sequence)
            cursor = part.cursor
    return True


@dataclass(frozen=True)
class _Beginning:
    """What a way is gone under: a state of the light client, the steps to it, and the newest state on record before those."""

    trusted: Any
    headers: tuple[HeaderRecord, ...]
    base: tuple[Point, bytes] | None


def _begin_way(node: Node, chain: Chain[Any, Any, Any, Any], beginning: _Beginning) -> bool:
    """Record the steps to the state that a way is gone under; False where others were recorded meanwhile: look again."""
    if beginning.headers:
        if node.store.get_trusted(chain.chain_id) != beginning.base:
            return False
        node.store.record_headers(chain.chain_id, beginning.headers)
        node.trusted[chain.chain_id] = beginning.trusted
    return True


async def get_unfinished_rotations(node: Node, chain: Chain[Any, Any, Any, Any]) -> Sequence[Fact]:
    """Facts that change operators and may say that somebody is none any more: found once after a start, then kept as facts are recorded.

    Only of vaults whose states operators stand for. Those beyond the newest proven head, all that were recorded since the start, and all on
    record where they name others than those whose word counts here: what nobody proved in time is on record, and true, all the same.
    """
    vault_id = chain.vault_id
    if chain.observer is None:
        return ()
    if vault_id not in node.unfinished_rotations:
        last = node.store.get_head(vault_id)
        upto = node.store.get_cursor(vault_id).sequence
        found: list[Fact] = []
        start = 0 if last is None or _is_unproven(node, chain) else last.sequence
        for begin in range(start, upto, PACKETS_PER_PART):
            facts = node.store.iterate_facts(vault_id, begin, min(begin + PACKETS_PER_PART, upto))
            found += [fact for fact in facts if is_rotation(fact)]
            await asyncio.sleep(0)  # others have work too
        node.unfinished_rotations[vault_id] = found
    return node.unfinished_rotations[vault_id]


def _is_unproven(node: Node, chain: Chain[Any, Any, Any, Any]) -> bool:
    """Whether the facts name operators, now or at an instant to come, whose word would not count here."""
    assert chain.observer is not None  # the caller has seen to it
    newest = node.states.get_newest(chain.vault_id)
    now = max(node.clock.now(), newest.last_stamp)
    named = [(now, get_state_at(newest, now).operators)]
    if newest.pending_operators is not None:
        named.append((newest.pending_operators.at, newest.pending_operators.operators))
    return any(tuple(chain.observer.get_operators(at)) != operators for at, operators in named)


@dataclass
class PeerWay:
    """The way to a proven head along packets that peers send in batches, gone twice like every long way (`chains.base.trace`).

    ``beginning``: what it is gone under. ``far``: the head as an own endpoint tells it, of the highest number that one of them claims. ``traced``: once the walk got there.
    ``reached``: whether the walk goes on, and the number up to which packets were there when the peer was last in time; ``waits_since``: unix
    seconds of that.
    """

    beginning: _Beginning
    far: FarHead[Any]
    walk: Walk
    progress: _Progress
    waits_since: int
    traced: Traced[Any] | None = None
    reached: tuple[bool, int] = (True, 0)


async def _go_on_with_peers(node: Node, chain: Chain[Any, Any, Any, Any], way: PeerWay) -> bool:
    """Take what peers have sent since the last look, and ask for what comes next.

    Raises:
        Unavailable: the rest is still to come (``no_peer_packets``).
    """
    vault_id, held, now = chain.vault_id, node.peer_packets.get(chain.vault_id, {}), node.clock.now()
    rotations = await get_unfinished_rotations(node, chain)
    try:
        found = _trace_held(chain, way, held) if way.traced is None else None
        if found is not None:
            del node.peer_ways[vault_id]
            verify_vouched(chain, way.beginning.trusted, (*rotations, *found.trail.rotations))
            way.traced = found
            if not _begin_way(node, chain, way.beginning):
                return True
            node.peer_ways[vault_id] = way
        if way.traced is not None and await _record_held(node, chain, way, held):
            return True
    except Rejected:
        _doubt(node, vault_id)
        if way.traced is None:
            del node.peer_ways[vault_id]  # any packet on the way may have been the lie
        raise
    begin = way.walk.at.sequence if way.traced is None else node.store.get_cursor(vault_id).sequence
    # the last one that was taken stays: while something is held, nobody else is heard, and a lie has one author
    held = node.peer_packets[vault_id] = {s: c for s, c in held.items() if s >= begin}
    reached = begin
    while reached + 1 in held:
        reached += 1
    is_tracing, last = way.traced is None, way.reached
    if is_tracing != last[0] or reached >= last[1] + min(PEER_PACE, chain.part_packets):
        way.reached, way.waits_since = (is_tracing, reached), now
    elif now - way.waits_since > PEER_PATIENCE_S:
        # one author for the whole way: the next look asks the own endpoints again, then another peer
        _doubt(node, vault_id)
        del node.peer_ways[vault_id]
        reached = begin
    await ask_peers(node, vault_id, reached)
    raise Unavailable("the peers have not sent these packets yet", got=reached + 1, reason="no_peer_packets")


def _trace_held(chain: Chain[Any, Any, Any, Any], way: PeerWay, held: Mapping[int, Claim]) -> Traced[Any] | None:
    """Walk over what is held; the way once it led to the head. Rejected where it went past every claimed end."""
    while (claim := held.get(way.walk.at.sequence + 1)) is not None:
        way.walk.take((claim,))
        is_there = way.walk.at.head == way.far.proven.head
        if is_there or way.walk.at.sequence >= way.far.head.sequence:
            return make_traced(way.walk.finish(way.far.proven, chain.limits), way.far, ())
    way.progress.tell("read from peers", way.walk.at.sequence, way.far.head.sequence)
    return None


async def _record_held(node: Node, chain: Chain[Any, Any, Any, Any], way: PeerWay, held: Mapping[int, Claim]) -> bool:
    """Record every part that is held whole; True once the last one is on record, or somebody else was faster."""
    traced, vault_id = way.traced, chain.vault_id
    assert traced is not None  # the caller has seen to it
    while True:
        cursor = node.store.get_cursor(vault_id)
        mark = get_next_mark(traced.trail, cursor.sequence)
        if mark is None or node.store.is_halted(f"chain:{chain.chain_id}"):
            del node.peer_ways[vault_id]
            return True
        claims = [held[s] for s in range(cursor.sequence + 1, mark.sequence + 1) if s in held]
        if len(claims) < mark.sequence - cursor.sequence:
            return False
        after, facts = fold_part(cursor, claims, traced.trail, chain.limits)
        part = Collected(Head(after.sequence, after.head), traced.proof, traced.trail.proven, after, facts, ())
        if part.head == traced.head:
            record(node, chain, (), chain.verifier.get_point(way.beginning.trusted), part)
        else:
            record_part(node, vault_id, part, traced.head.sequence)
        way.progress.tell("recorded from peers", after.sequence, traced.head.sequence)
        await asyncio.sleep(0)  # others have work too


def _doubt(node: Node, vault_id: bytes) -> None:
    """Forget what a peer sent; its packets do not fold or their rest never came, and it comes last from now on."""
    node.peer_packets.pop(vault_id, None)
    node.peer_gaps.pop(vault_id, None)
    node.peer_paces.pop(vault_id, None)
    source = node.peer_sources.pop(vault_id, None)
    doubted = node.doubted_peers.setdefault(vault_id, set())
    if source is not None:
        node.blame(
            node.chains[vault_id].chain_id, f"0x{source.hex()}", "bad_archive", "packets that serve no proven head"
        )
        doubted.add(source)
    if len(doubted) >= len(node.get_committee().operators) - 1:
        doubted.clear()  # everybody else failed too: begin again


class _StoppingError(Exception):
    """The node stops: a long way ends at the next piece."""


class _Progress:
    """Says now and then in the log how far a long way was gone, and that the loop is alive."""

    def __init__(self, node: Node, chain_id: str) -> None:
        self._node = node
        self._chain_id = chain_id
        self._told_at: dict[str, int] = {}

    def tell(self, what: str, done: int, total: int) -> None:
        """See `chains.base.Tell`. Raises _StoppingError."""
        now = self._node.clock.now()
        self._node.active_at[f"watch {self._chain_id}"] = now
        if self._node.is_stopping:
            raise _StoppingError
        if done == total or now - self._told_at.setdefault(what, 0) >= TELL_EVERY_S:
            self._told_at[what] = now
            self._node.log.info("catching up", chain=self._chain_id, step=what, done=done, total=total)


def _doubt_or_wait(node: Node, vault_id: bytes, after: int, missing: int | None) -> int:
    """Judge what a peer sent and did not serve; returns the number after which to ask.

    Packets that only end too early are kept, because archives come in batches; packets that do not fold, or whose rest never
    came, are forgotten and their sender comes last from now on.
    """
    now = node.clock.now()
    is_answer_due = now - node.asked_archive.get(vault_id, 0) >= ASK_EVERY_S
    is_news = node.peer_gaps.get(vault_id) != missing or not is_answer_due
    if missing is not None and is_news and _is_in_time(node, vault_id, after, missing):
        node.peer_gaps[vault_id] = missing
        return missing - 1
    _doubt(node, vault_id)
    return after


def _is_in_time(node: Node, vault_id: bytes, after: int, missing: int) -> bool:
    """Whether a peer sends fast enough what follows a recorded number: one packet at a time, each just in time, would take weeks."""
    now, pace = node.clock.now(), min(PEER_PACE, node.chains[vault_id].part_packets)
    known, last, since = node.peer_paces.get(vault_id, (after, 0, now))
    if known != after or missing >= last + pace:
        known, last, since = after, missing, now
    node.peer_paces[vault_id] = known, last, since
    return now - since <= PEER_PATIENCE_S


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
    with node.store.together():
        node.store.record_collected(chain.chain_id, headers, head, collected.facts, snapshots)
        settle_packets(node, vault_id, point, state.inbox_sequence, collected.facts)
    reach("after_fates")
    node.states.record(vault_id, state)
    _keep_rotations(node, vault_id, collected.facts)
    if headers:
        node.trusted[chain.chain_id] = _get_state(chain, headers[-1])
    held = node.peer_packets.get(vault_id)
    if held:
        node.peer_packets[vault_id] = {s: c for s, c in held.items() if s > collected.head.sequence}
    node.log.debug("header", chain=chain.chain_id, height=point.height)
    if collected.facts:
        node.log.info(
            "facts", chain=chain.chain_id, height=point.height, count=len(collected.facts), upto=collected.head.sequence
        )
    node.verify_worth()
    node.settle_wake.set()
    node.submit_wake.set()


def _make_succession(
    node: Node, chain: Chain[Any, Any, Any, Any], headers: Sequence[HeaderRecord], collected: Collected[Any]
) -> list[HeaderRecord]:
    """The step by which facts that are about to be recorded change who is believed, to be recorded with them: none is lost in between."""
    if not collected.facts or chain.observer is None:
        return []
    trusted = _get_state(chain, headers[-1]) if headers else get_newest_trusted(node, chain)
    last, cursor = node.store.get_head(chain.vault_id), node.store.get_cursor(chain.vault_id)
    # the facts of earlier parts under this head belong to it too
    since = max(0 if last is None else last.sequence, cursor.sequence - SUCCESSION_PACKETS)
    facts = [*node.store.iterate_facts(chain.vault_id, since, cursor.sequence), *collected.facts]
    before = node.store.get_fact_head(chain.vault_id, since)
    assert before is not None  # on record, as since <= cursor
    update = chain.verifier.make_succession(trusted, before, facts, collected.proof)
    if update is None:
        return []
    after = chain.verifier.verify_update(trusted, update, node.clock.now())
    node.log.info("next operators", chain=chain.chain_id, upto=collected.head.sequence)
    return [_make_header(chain, "update", chain.codec.encode_update(update), after)]


def record_part(node: Node, vault_id: bytes, collected: Collected[Any], upto: int) -> None:
    """Write the facts of a part of the way to a number, and the snapshots among them, in one transaction; nothing follows from them yet.

    No fate of a packet and no time: a part says nothing of the state that the head at the end of the way proves.
    """
    state, snapshots = node.states.compute_after(vault_id, collected.facts, upto=upto)
    node.store.record_part(vault_id, collected.facts, snapshots)
    node.states.record_part(vault_id, state)
    _keep_rotations(node, vault_id, collected.facts)


def _keep_rotations(node: Node, vault_id: bytes, facts: Sequence[Fact]) -> None:
    if vault_id in node.unfinished_rotations:
        node.unfinished_rotations[vault_id] += [fact for fact in facts if is_rotation(fact)]


def settle_packets(node: Node, vault_id: bytes, point: Point, inbox_sequence: int, facts: Sequence[Fact] = ()) -> None:
    """Record what a proven state says of open packets (protocol.md 2).

    Args:
        node: with its records.
        vault_id: the vault.
        point: of the newest proven head.
        inbox_sequence: the vault's, at that head.
        facts: the new ones behind it.
    """
    acks = {f.body.inbox_sequence: f.body for f in facts if isinstance(f.body, Ack)}
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


def _get_state(chain: Chain[Any, Any, Any, Any], header: HeaderRecord) -> Any:
    return header.state if header.state is not None else chain.codec.decode_trusted(header.trusted)


def _make_header(chain: Chain[Any, Any, Any, Any], kind: str, claim: bytes, trusted: Any) -> HeaderRecord:
    return HeaderRecord(chain.verifier.get_point(trusted), kind, claim, chain.codec.encode_trusted(trusted), trusted)


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

    def forget(self, source: str) -> bool:
        """As the inner one."""
        return self._inner.forget(source)

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
