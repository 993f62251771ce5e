"""A fact with everything that proves it, as one file that anybody can check without network and without a store.

    anchor      what the checker must believe beforehand: chain, vault, checkpoint, fork schedule
    claims      bootstrap and updates that lead a light client from the checkpoint to the header
    proof       the outbox head under that header
    packets     from the fact to the head, so that the fold ends in the proven head

Nothing in the file is believed but the anchor, and the anchor only if the checker chooses to: whoever verifies should name his
own (style.md 4, habit 15). The file is canonical JSON (data.md 1), so one proof has one byte string.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from chains.base import Codec, Head, Point, Verifier
from chains.registry import STATEMENT_S
from messages.bodies import Limits
from messages.digests import compute_vault_id
from messages.documents import compute_digest, decode_document, encode_document
from messages.errors import Conflict, Rejected
from messages.outbox import Claim, Cursor, Fact, fold
from messages.packet import decode_packet_abi, encode_packet_abi

MAX_PROOF_BYTES = 32 * 1024 * 1024
MAX_UPDATES = 1_024
MAX_PACKETS = 20_000

FRAME_FLAWS = frozenset({"source_client", "destination_client"})
"""Flaws of a packet that its vault cannot make (messages.bodies.get_packet_flaw)."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """What must be believed before anything of a chain can be proven.

    chain: CAIP-2 name. vault_account: 32 bytes. checkpoint: 32 bytes, the root the light client starts from. settings: canonical
    JSON of what the family needs besides (fork schedule of the network and the like), as text.
    """

    chain: str
    family: str
    vault_account: bytes
    checkpoint: bytes
    settings: str


@dataclass(frozen=True, slots=True)
class ProofStep:
    """A light-client claim (bootstrap or update) and the time of the header it leads to (unix seconds, checked)."""

    time: int
    claim: bytes


@dataclass(frozen=True, slots=True)
class ProofPacket:
    """An outbox packet in ABI encoding, with the inbox packet it answers (empty where it answers none)."""

    packet: bytes
    answered: bytes


@dataclass(frozen=True, slots=True)
class ProofFile:
    """The document. judged_at: unix seconds, not before the last claim was taken; claims are judged at it.

    sequence and previous_head: the fact's number, and the outbox head before it. head_sequence and head: the proven position.
    """

    SCHEMA: ClassVar[str] = "optsettle/fact-proof/1"
    anchor: Anchor
    judged_at: int
    bootstrap: ProofStep
    updates: tuple[ProofStep, ...]
    sequence: int
    previous_head: bytes
    head_sequence: int
    head: bytes
    proof: bytes
    packets: tuple[ProofPacket, ...]


@dataclass(frozen=True)
class Judge:
    """What decides about claims of one chain: built by `chains.registry` from an anchor, without network, clock or disk.

    statement_s: a claim is judged this long after the header it leads to, or now if that is earlier: an old record stays checkable, while
    each step still has to follow the one before it within the light client's trusting period. Any: the four types of a family meet only
    inside its own folder.
    """

    vault_id: bytes
    limits: Limits
    verifier: Verifier[Any, Any, Any, Any]
    codec: Codec[Any, Any, Any, Any]
    statement_s: int = STATEMENT_S


@dataclass(frozen=True)
class VerifiedFact:
    """A fact that the file proves under the anchor; ``is_fresh``: whether the light client could still go on from there."""

    fact: Fact
    point: Point
    head: Head
    updates: int
    is_fresh: bool


def encode_proof_file(proof: ProofFile) -> bytes:
    """Return the canonical bytes; Rejected ("size") where they pass what a checker would read."""
    data = encode_document(proof)
    if len(data) > MAX_PROOF_BYTES:
        raise Rejected(
            "this proof is larger than a checker would read", got=len(data), expected=MAX_PROOF_BYTES, reason="size"
        )
    return data


def decode_proof_file(data: bytes) -> ProofFile:
    """Return the document of canonical bytes.

    Raises:
        Rejected: too large, too deep, not canonical, another schema, unknown or missing keys, too many parts; reasons ``size``,
            ``depth``, ``not_canonical``, ``malformed``.
    """
    proof = decode_document(ProofFile, data.rstrip(b"\n"), max_bytes=MAX_PROOF_BYTES)
    if len(proof.updates) > MAX_UPDATES:
        raise Rejected("too many updates", got=len(proof.updates), expected=MAX_UPDATES, reason="size")
    if not 0 < len(proof.packets) <= MAX_PACKETS:
        raise Rejected("number of packets", got=len(proof.packets), expected=f"1 to {MAX_PACKETS}", reason="size")
    if len(proof.anchor.vault_account) != 32 or len(proof.anchor.checkpoint) != 32 or len(proof.previous_head) != 32:
        raise Rejected("vault account, checkpoint and previous head have 32 bytes", reason="malformed")
    if len(proof.head) != 32:
        raise Rejected("a head has 32 bytes", got=len(proof.head), reason="malformed")
    return proof


def compute_proof_digest(proof: ProofFile) -> bytes:
    """Return the name of a proof: keccak256 of its canonical JSON."""
    return compute_digest(proof)


def verify_proof(proof: ProofFile, judge: Judge, now: int) -> VerifiedFact:
    """Walk the one road from claims to a fact with nothing but the file and a judge (chains/base.py).

    Args:
        proof: decoded.
        judge: built from the anchor that the checker believes.
        now: unix seconds; a header that is signed for later is refused.

    Raises:
        Rejected: with the reason of the step that does not hold; ``wrong_vault`` where file and judge speak of two vaults.
        Conflict: two finalized headers exclude each other.
    """
    expected = compute_vault_id(proof.anchor.chain, proof.anchor.vault_account)
    if expected != judge.vault_id:
        raise Rejected("the file is about another vault", got=expected, expected=judge.vault_id, reason="wrong_vault")
    trusted = verify_step(judge, None, proof.bootstrap, now, "bootstrap")
    for number, step in enumerate(proof.updates, start=1):
        trusted = verify_step(judge, trusted, step, now, f"update {number} of {len(proof.updates)}")
    claimed = Head(proof.head_sequence, proof.head)
    proven = judge.verifier.verify_head(trusted, claimed, _decode("head proof", judge.codec.decode_proof, proof.proof))
    claims = [decode_claim(p, proof.sequence + i) for i, p in enumerate(proof.packets)]
    cursor = Cursor(judge.vault_id, proof.sequence - 1, proof.previous_head)
    if proof.sequence < 1:
        raise Rejected("packets are numbered from 1", got=proof.sequence, reason="bad_sequence")
    after, facts = fold(cursor, claims, proven, judge.limits)
    if (after.sequence, after.head) != (proof.head_sequence, proof.head):
        raise Rejected(
            "the head is after another packet than the file says",
            got=proof.head_sequence,
            expected=after.sequence,
            reason="head_number",
        )
    judge.verifier.verify_facts(trusted, facts)
    flaw = next((f.void for f in facts if f.void in FRAME_FLAWS), "")
    if flaw:
        # No right vault writes another frame: the head was proven, but not of the vault that the anchor names.
        raise Rejected(
            "the packets carry the name of another vault than the anchor", got=flaw, expected="", reason="wrong_vault"
        )
    return VerifiedFact(
        facts[0],
        judge.verifier.get_point(trusted),
        claimed,
        len(proof.updates),
        judge.verifier.is_fresh(trusted, now),
    )


def verify_step(judge: Judge, trusted: Any, step: ProofStep, now: int, name: str, *, beside: Any = None) -> Any:
    """Return the light-client state after a claim: a bootstrap where ``trusted`` is None, an update otherwise.

    ``beside``: a state that a bootstrap may not contradict (`Verifier.verify_alone`).

    Raises:
        Rejected, Conflict: as the verifier says; "wrong_header" if the claim leads to a header of another time. Source: ``name``.
    """
    at = min(now, step.time + judge.statement_s)
    try:
        if trusted is None:
            after = judge.verifier.verify_alone(beside, judge.codec.decode_bootstrap(step.claim), at)
        else:
            after = judge.verifier.verify_update(trusted, judge.codec.decode_update(step.claim), at)
        got = judge.verifier.get_point(after).time
        if got != step.time:
            raise Rejected(
                "the claim leads to a header of another time", got=got, expected=step.time, reason="wrong_header"
            )
    except (Rejected, Conflict) as error:
        error.source = error.source or name
        raise
    return after


def encode_claim(fact: Fact) -> ProofPacket:
    """Return a fact's packet as it goes into a file: a claim again, to be proven by whoever reads it."""
    return ProofPacket(encode_packet_abi(fact.packet), b"" if fact.inbox is None else encode_packet_abi(fact.inbox))


def decode_claim(packet: ProofPacket, sequence: int) -> Claim:
    """Return the claim of a packet in a file; Rejected ("malformed"), naming its number."""
    try:
        inbox = decode_packet_abi(packet.answered) if packet.answered else None
        return Claim(decode_packet_abi(packet.packet), inbox)
    except Rejected as error:
        error.source = error.source or f"packet {sequence}"
        raise


def select_updates(
    judge: Judge, bootstrap: ProofStep, updates: Sequence[ProofStep], target: Point, now: int
) -> tuple[ProofStep, ...]:
    """Return few of the recorded updates that still lead a light client from its checkpoint to one header.

    A node records an update every few minutes; a checker needs about one per sync-committee period. Whatever can be jumped over
    is left out: from each state the farthest update that verifies is searched by halving; where none does, the recorded steps
    are taken one by one from the last state that nothing was jumped over for, which always works.

    Args:
        judge: of the chain.
        bootstrap: the recorded first claim.
        updates: recorded claims in order, the last one leading to ``target``.
        target: where the result must end.
        now: unix seconds.

    Raises:
        Rejected: the recorded steps themselves do not verify, or do not end at the target ("wrong_header").
    """
    trusted = verify_step(judge, None, bootstrap, now, "bootstrap")
    chosen: list[int] = []
    at = 0
    complete = (0, trusted, 0)  # next step, state and number of chosen ones where the client knew all it could know
    while at < len(updates):
        found = _find_farthest(judge, trusted, updates, at, now)
        if found is not None:
            index, trusted = found
            chosen.append(index)
            at = index + 1
            continue
        # A committee was jumped over: take every step since the last complete state, which hands it on.
        start, trusted, kept = complete
        del chosen[kept:]
        for i in range(start, at + 1):
            trusted = verify_step(judge, trusted, updates[i], now, f"recorded update {i + 1}")
            chosen.append(i)
        at += 1
        complete = (at, trusted, len(chosen))
    if judge.verifier.get_point(trusted) != target:
        raise Rejected(
            "the recorded updates lead to another header",
            got=judge.verifier.get_point(trusted).height,
            expected=target.height,
            reason="wrong_header",
        )
    return tuple(updates[i] for i in chosen)


def _find_farthest(
    judge: Judge, trusted: Any, updates: Sequence[ProofStep], at: int, now: int
) -> tuple[int, Any] | None:
    """(index, state after) of the farthest update from ``at`` on that verifies, by halving the distance; None if none."""
    index = len(updates) - 1
    while index >= at:
        try:
            return index, verify_step(judge, trusted, updates[index], now, "recorded update")
        except Rejected:
            if index == at:
                return None
            index = at + (index - at) // 2
    return None


def _decode(what: str, decode: Any, data: bytes) -> Any:
    try:
        return decode(data)
    except Rejected as error:
        error.source = error.source or what
        raise


def make_proof_file(
    anchor: Anchor,
    judge: Judge,
    *,
    bootstrap: ProofStep,
    updates: Sequence[ProofStep],
    point: Point,
    head: Head,
    proof: bytes,
    facts: Iterable[Fact],
    previous_head: bytes,
    now: int,
) -> ProofFile:
    """Put a proof together and verify it before anybody gets it.

    Args:
        anchor: of the chain.
        judge: built from that anchor.
        bootstrap: the first recorded claim.
        updates: recorded claims in order, the last leading to ``point``.
        point: header under which the head was proven.
        head: the proven position.
        proof: its encoded proof.
        facts: from the fact to prove up to the head.
        previous_head: outbox head before the fact.
        now: unix seconds, not before the last claim was taken.

    Raises:
        Rejected: what is recorded does not prove the fact (a damaged store), or "size".
    """
    packets = list(facts)
    result = ProofFile(
        anchor=anchor,
        judged_at=now,
        bootstrap=bootstrap,
        updates=select_updates(judge, bootstrap, updates, point, now),
        sequence=packets[0].sequence,
        previous_head=previous_head,
        head_sequence=head.sequence,
        head=head.head,
        proof=proof,
        packets=tuple(encode_claim(fact) for fact in packets),
    )
    verify_proof(result, judge, now)
    return result
