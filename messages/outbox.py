"""The outbox of a vault: the head, and the fold that makes facts of claims (protocol.md 2, 6; style.md 3.1).

This is the only module that makes a `Fact`. A `ProvenHead` is made by `chains/*/proofs.py` alone. Whatever a source says about
packets is a `Claim` until a fold over it ends in a proven head.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from messages.bodies import (
    CLEARING_CLIENT,
    ENCODING,
    PACKET_LIFE_S,
    PORT,
    VERSION,
    WIDEST_LIMITS,
    Ack,
    AckStatus,
    DecideTrades,
    DecideWithdrawals,
    InboxBody,
    Limits,
    OutboxBody,
    Reason,
    RotateOperators,
    decode_inbox_body,
    decode_outbox_body,
    get_kind,
    get_packet_flaw,
)
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import ZERO32, ChainId, get_vault_client
from messages.packet import (
    UINT64_MAX,
    Packet,
    Payload,
    compute_commitment,
    decode_packet_borsh,
    encode_packet_borsh,
    verify_packet_limits,
)

ATTESTED = 3
CREDITED_LEVELS = (1, 2, ATTESTED)  # protocol.md 10: tiers 4 and 5 are never credited
MAX_ROTATIONS = 1_024  # each takes a day at least
_REASONS = frozenset(reason.value for reason in Reason)


@dataclass(frozen=True, slots=True)
class TrustTier:
    """How a fact was proven (protocol.md 10): 1 LC, 2 STAKED_HEADER, 3 ATTESTED(m, n), 4 RPC_QUORUM, 5 RPC."""

    level: int
    m: int = 0
    n: int = 0

    @property
    def sort_key(self) -> tuple[int, int, int]:
        """Larger is worse: a higher level; at one level fewer signatures, then more that could have signed."""
        return self.level, -self.m, self.n


def combine_tiers(first: TrustTier, second: TrustTier) -> TrustTier:
    """Return the worse of two tiers: what rests on both facts is known no better than the worse one (protocol.md 10)."""
    return max(first, second, key=lambda tier: tier.sort_key)


@dataclass(frozen=True, slots=True)
class ProvenHead:
    """An outbox head that a verifier proved at a height. Constructed only in chains/*/proofs.py."""

    vault_id: bytes
    chain: ChainId
    height: int
    header_hash: bytes  # 32 bytes; zero on Solana
    time: int  # unix seconds, of the source chain
    head: bytes  # 32 bytes
    tier: TrustTier
    proof_digest: bytes  # 32 bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """A packet as a source told it, believed by nobody; for an Ack with the inbox packet it answers."""

    packet: Packet
    inbox: Packet | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a vault's outbox was folded."""

    vault_id: bytes
    sequence: int
    head: bytes


@dataclass(frozen=True, slots=True)
class Fact:
    """An outbox packet under a proven head. ``body`` is None and ``void`` says why when the content makes no sense."""

    vault_id: bytes
    sequence: int
    packet: Packet
    body: OutboxBody | None
    inbox: Packet | None
    inbox_body: InboxBody | None
    commitment: bytes
    head: bytes  # right after this packet; the id of its trade or request
    stamp: int  # unix seconds: block time of the packet
    tier: TrustTier
    height: int
    header_hash: bytes
    time: int
    proof_digest: bytes
    void: str = ""


def get_start_cursor(vault_id: bytes) -> Cursor:
    """Return the cursor before the first packet: head_0 = vault id (protocol.md 2); Rejected ("zero_head") if zero."""
    if len(vault_id) != 32 or vault_id == ZERO32:
        raise Rejected("a vault id has 32 bytes and is not zero", got=vault_id, reason="zero_head")
    return Cursor(vault_id, 0, vault_id)


def compute_next_head(head: bytes, sequence: int, commitment: bytes) -> bytes:
    """Return keccak256(head || BE8(sequence) || commitment) (protocol.md 2); fixed widths, so nothing can shift."""
    if len(head) != 32 or len(commitment) != 32 or not 0 < sequence <= UINT64_MAX:
        raise Rejected("head, sequence or commitment out of shape", got=sequence, reason="bad_packet")
    return keccak256(head + sequence.to_bytes(8, "big") + commitment)


def _advance(cursor: Cursor, packet: Packet) -> tuple[Cursor, bytes]:
    """Return the cursor after ``packet`` and its commitment.

    Sequence and source client are not under the commitment, so they are judged here; the rest is judged once proven.
    """
    verify_packet_limits(packet)
    if packet.sequence != cursor.sequence + 1:
        raise Rejected(
            "packets must follow each other", got=packet.sequence, expected=cursor.sequence + 1, reason="bad_sequence"
        )
    if packet.source_client != CLEARING_CLIENT:
        raise Rejected("not an outbox packet", got=packet.source_client, expected=CLEARING_CLIENT, reason="bad_packet")
    commitment = compute_commitment(packet)
    return Cursor(
        cursor.vault_id, packet.sequence, compute_next_head(cursor.head, packet.sequence, commitment)
    ), commitment


def take_until_head(cursor: Cursor, claims: Iterable[Claim], head: bytes) -> tuple[Claim, ...] | None:
    """Return the leading claims whose fold from ``cursor`` ends in ``head``, or None if none does.

    For readers that collect more packets than the proven height holds. Proves nothing by itself: fold the result.
    """
    taken: list[Claim] = []
    if cursor.head == head:
        return ()
    for claim in claims:
        cursor, _ = _advance(cursor, claim.packet)
        taken.append(claim)
        if cursor.head == head:
            return tuple(taken)
    return None


def fold(
    cursor: Cursor, claims: Sequence[Claim], proven: ProvenHead, limits: Limits
) -> tuple[Cursor, tuple[Fact, ...]]:
    """Turn claims into facts: the only road (protocol.md 2).

    ``claims`` are all packets after ``cursor`` up to the proven head, in order; one withheld, added, changed or moved gives
    another head. Each Ack comes with the inbox packet of its commitment and sequence. ``limits`` are those of the family.

    Rejected: "wrong_vault", "bad_proof", "zero_head", "bad_sequence", "bad_packet", "head_mismatch", "missing_inbox",
    "unexpected_inbox", "inbox_mismatch". Once the head matches, the vault has accepted these packets: content that makes
    no sense is recorded as a void fact and never raises.
    """
    if proven.vault_id != cursor.vault_id:
        raise Rejected(
            "the proven head is of another vault", got=proven.vault_id, expected=cursor.vault_id, reason="wrong_vault"
        )
    return _fold_to(proven.head, cursor, claims, proven, limits)


def _fold_to(
    target: bytes, cursor: Cursor, claims: Sequence[Claim], proven: ProvenHead, limits: Limits
) -> tuple[Cursor, tuple[Fact, ...]]:
    """`fold` up to ``target``: the proven head, or a head that is known to lie on the way to it."""
    _verify_proven(proven)
    if len(proven.head) != 32 or ZERO32 in (proven.head, cursor.head):
        raise Rejected("a missing or zero head proves nothing", got=proven.head, reason="zero_head")
    at, commitments, heads = cursor, [], []
    for claim in claims:
        at, commitment = _advance(at, claim.packet)
        commitments.append(commitment)
        heads.append(at.head)
    if at.head != target:
        raise _mismatch(at.head, target)
    return at, tuple(
        _make_fact(claim, commitment, head, proven, limits)
        for claim, commitment, head in zip(claims, commitments, heads, strict=True)
    )


def _mismatch(got: bytes, expected: bytes) -> Rejected:
    return Rejected(
        "the packets do not fold to the proven head: withheld, invented, changed or of another height",
        got=got,
        expected=expected,
        reason="head_mismatch",
    )


# ---- a long way, in parts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trail:
    """A proven head and positions on the way to it, the last one its own. Constructed only by `Walk.finish`.

    Each mark is as good as proven: packets that fold to another head at a mark cannot fold to the proven one behind it, or
    keccak256 has a collision. ``rotations``: the Acks on the way that say that operators were changed, for whoever must know before anything of
    the way is recorded whether those who stand for the head were operators still.
    """

    proven: ProvenHead
    marks: tuple[Cursor, ...]
    rotations: tuple[Fact, ...] = ()


class Walk:
    """Folds claims without keeping them, to find the heads on a way too long for one `fold`. Makes no fact and proves nothing."""

    def __init__(self, cursor: Cursor, every: int) -> None:
        if every < 1:
            raise ValueError(f"a mark every {every} packets")
        if cursor.head == ZERO32:
            raise Rejected("a missing or zero head proves nothing", got=cursor.head, reason="zero_head")
        self._start = cursor.sequence
        self._every = every
        self._marks: list[Cursor] = []
        self._rotations: list[tuple[Claim, bytes, bytes]] = []
        self._at = cursor

    @property
    def at(self) -> Cursor:
        """How far the claims lead; believed by nobody."""
        return self._at

    def take(self, claims: Iterable[Claim]) -> None:
        """Go on over the next claims; Rejected ("bad_sequence", "bad_packet") where they do not follow, "size" where operators change too often."""
        for claim in claims:
            self._at, commitment = _advance(self._at, claim.packet)
            if _is_rotation(claim.packet):
                if len(self._rotations) >= MAX_ROTATIONS:
                    raise Rejected("more rotations than a vault has", expected=MAX_ROTATIONS, reason="size")
                self._rotations.append((claim, commitment, self._at.head))
            if (self._at.sequence - self._start) % self._every == 0:
                self._marks.append(self._at)

    def finish(self, proven: ProvenHead, limits: Limits) -> Trail:
        """The trail, once the claims led to a proven head.

        Raises:
            Rejected: "wrong_vault", "bad_proof", "zero_head", "missing_inbox", "inbox_mismatch" as `fold`; "head_mismatch": anything on the way may have been a lie.
        """
        if proven.vault_id != self._at.vault_id:
            raise Rejected(
                "the proven head is of another vault",
                got=proven.vault_id,
                expected=self._at.vault_id,
                reason="wrong_vault",
            )
        _verify_proven(proven)
        if len(proven.head) != 32 or proven.head == ZERO32:
            raise Rejected("a missing or zero head proves nothing", got=proven.head, reason="zero_head")
        if self._at.head != proven.head:
            raise _mismatch(self._at.head, proven.head)
        marks = self._marks if self._marks and self._marks[-1] == self._at else [*self._marks, self._at]
        facts = (_make_fact(claim, commitment, head, proven, limits) for claim, commitment, head in self._rotations)
        return Trail(proven, tuple(marks), tuple(facts))


def _is_rotation(packet: Packet) -> bool:
    """Whether an outbox packet says that operators were changed; False for content that makes no sense."""
    value = packet.payloads[0].value if packet.payloads else b""
    try:
        body = decode_outbox_body(value) if value and get_kind(value) == Ack.KIND else None
    except Rejected:
        return False
    return isinstance(body, Ack) and (body.kind, body.status) == (RotateOperators.KIND, AckStatus.DONE)


def is_rotation(fact: Fact) -> bool:
    """Whether a fact says that operators were changed."""
    return isinstance(fact.inbox_body, RotateOperators) and _is_rotation(fact.packet)


def get_next_mark(trail: Trail, sequence: int) -> Cursor | None:
    """The first mark behind a number; None where the trail ends before."""
    index = bisect_right(trail.marks, sequence, key=lambda mark: mark.sequence)
    return trail.marks[index] if index < len(trail.marks) else None


def fold_part(cursor: Cursor, claims: Sequence[Claim], trail: Trail, limits: Limits) -> tuple[Cursor, tuple[Fact, ...]]:
    """`fold` the packets from ``cursor`` to the next mark of a trail: facts under the trail's proven head.

    Rejected: as `fold`; "head_mismatch" where the trail has no mark behind the cursor.
    """
    mark = get_next_mark(trail, cursor.sequence)
    if mark is None or mark.vault_id != cursor.vault_id:
        raise _mismatch(cursor.head, trail.proven.head)
    return _fold_to(mark.head, cursor, claims, trail.proven, limits)


def _verify_proven(proven: ProvenHead) -> None:
    """Check the widths of a proof's record (records are joined without lengths) and that its tier may be credited."""
    tier = proven.tier
    if tier.level not in CREDITED_LEVELS:
        raise Rejected("tiers 4 and 5 are never credited", got=tier.level, expected="1, 2 or 3", reason="bad_proof")
    if not 0 <= tier.m <= tier.n <= 255 or (tier.level == ATTESTED and tier.m == 0):
        raise Rejected("m of n of a tier", got=(tier.m, tier.n), reason="bad_proof")
    if len(proven.header_hash) != 32 or len(proven.proof_digest) != 32 or proven.proof_digest == ZERO32:
        raise Rejected("header hash and proof digest have 32 bytes", reason="bad_proof")
    if not 0 <= proven.height <= UINT64_MAX or not 0 < proven.time <= UINT64_MAX:
        raise Rejected("height or time of a proof out of range", got=(proven.height, proven.time), reason="bad_proof")


def _make_fact(claim: Claim, commitment: bytes, head: bytes, proven: ProvenHead, limits: Limits) -> Fact:
    packet = claim.packet
    body, void = _decode_proven(proven.vault_id, packet)
    inbox_body: InboxBody | None = None
    if isinstance(body, Ack):
        _verify_answered(proven.vault_id, body, claim.inbox)
        inbox_body, void = _decode_answered(body, claim.inbox, limits)
        if void:
            body = None
    elif claim.inbox is not None:
        raise Rejected("an inbox packet beside no Ack", got=packet.sequence, reason="unexpected_inbox")
    return Fact(
        proven.vault_id,
        packet.sequence,
        packet,
        body,
        claim.inbox,
        inbox_body,
        commitment,
        head,
        max(packet.timeout_timestamp - PACKET_LIFE_S, 0),
        proven.tier,
        proven.height,
        proven.header_hash,
        proven.time,
        proven.proof_digest,
        void,
    )


def _decode_proven(vault_id: bytes, packet: Packet) -> tuple[OutboxBody | None, str]:
    """Return (body, "") or (None, why) of a packet that the head proves."""
    flaw = get_packet_flaw(packet, CLEARING_CLIENT, get_vault_client(vault_id))
    if not flaw and packet.timeout_timestamp < PACKET_LIFE_S:
        flaw = "timeout"
    if flaw:
        return None, flaw
    try:
        return decode_outbox_body(packet.payloads[0].value), ""
    except Rejected as error:
        return None, error.reason


def _verify_answered(vault_id: bytes, ack: Ack, inbox: Packet | None) -> None:
    """Check that ``inbox`` is the packet ``ack`` answers; a source that cannot give it withholds evidence."""
    if inbox is None:
        raise Rejected("an Ack without the inbox packet it answers", got=ack.inbox_sequence, reason="missing_inbox")
    verify_packet_limits(inbox)
    # source client and sequence are not under the commitment
    if inbox.sequence != ack.inbox_sequence or inbox.source_client != get_vault_client(vault_id):
        raise Rejected("another inbox packet", got=inbox.sequence, expected=ack.inbox_sequence, reason="inbox_mismatch")
    commitment = compute_commitment(inbox)
    if commitment != ack.inbox_commitment:
        raise Rejected(
            "the inbox packet has another commitment",
            got=commitment,
            expected=ack.inbox_commitment,
            reason="inbox_mismatch",
        )


def _decode_answered(ack: Ack, inbox: Packet | None, limits: Limits) -> tuple[InboxBody | None, str]:
    """Return (inbox body, "") or (None, why) when Ack and inbox packet together make no sense."""
    if inbox is None:
        return None, "missing_inbox"
    if get_packet_flaw(inbox, inbox.source_client, CLEARING_CLIENT):
        return None, "inbox_packet"
    try:
        body = decode_inbox_body(inbox.payloads[0].value, limits)
    except Rejected:
        return None, "inbox_body"
    return (body, "") if _is_sound_ack(ack, body) else (None, "ack_content")


def _is_sound_ack(ack: Ack, body: InboxBody) -> bool:
    """Tell whether an Ack can be the vault's answer to ``body``: kind, status, reason and bitmap (vault.md 1, 3)."""
    if ack.kind != body.KIND:
        return False
    if ack.status == AckStatus.REFUSED:
        return ack.reason in _REASONS and ack.reason != Reason.NONE and ack.bitmap == 0
    items = len(body.items) if isinstance(body, DecideTrades | DecideWithdrawals) else 0
    return ack.status == AckStatus.DONE and ack.reason == Reason.NONE and ack.bitmap >> items == 0


# ---- storage record ---------------------------------------------------------------------------------------------------

_RECORD_VERSION = 1
_MAX_VOID_BYTES = 32
# A packet with every constant field in place is stored as timeout and value; any other as borsh.
_ABSENT, _PLAIN, _BORSH = 0, 1, 2


def _pack(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _encode_stored(packet: Packet | None, source_client: str, destination_client: str) -> bytes:
    if packet is None:
        return bytes([_ABSENT])
    if get_packet_flaw(packet, source_client, destination_client):
        return bytes([_BORSH]) + _pack(encode_packet_borsh(packet))
    return (
        bytes([_PLAIN])
        + packet.sequence.to_bytes(8, "big")
        + packet.timeout_timestamp.to_bytes(8, "big")
        + _pack(packet.payloads[0].value)
    )


def encode_fact(fact: Fact) -> bytes:
    """Return the storage record of a fact: deterministic, versioned, without what can be computed again."""
    client = get_vault_client(fact.vault_id)
    return b"".join(
        (
            bytes([_RECORD_VERSION, fact.tier.level, fact.tier.m, fact.tier.n]),
            fact.vault_id,
            fact.head,
            fact.height.to_bytes(8, "big"),
            fact.header_hash,
            fact.time.to_bytes(8, "big"),
            fact.proof_digest,
            bytes([len(fact.void)]) + fact.void.encode(),
            _encode_stored(fact.packet, CLEARING_CLIENT, client),
            _encode_stored(fact.inbox, client, CLEARING_CLIENT),
        )
    )


class _Record:
    """Reads a record forward."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        out = self.data[self.at : self.at + size]
        if len(out) != size:
            raise Rejected("a stored fact is cut off", got=len(self.data), reason="malformed")
        self.at += size
        return out

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def packet(self, source_client: str, destination_client: str) -> Packet | None:
        form = self.number(1)
        if form == _ABSENT:
            return None
        if form == _PLAIN:
            sequence, timeout = self.number(8), self.number(8)
            payload = Payload(PORT, PORT, VERSION, ENCODING, self.take(self.number(4)))
            return Packet(sequence, source_client, destination_client, timeout, (payload,))
        if form == _BORSH:
            return decode_packet_borsh(self.take(self.number(4)))
        raise Rejected("unknown form of a stored packet", got=form, reason="malformed")


def decode_fact(record: bytes) -> Fact:
    """Return the fact of a record that `encode_fact` made: the only door by which stored facts come back.

    Rejected ("malformed", "missing_inbox", "inbox_mismatch") when the record is not byte for byte what `encode_fact` gives.
    Commitment, stamp and bodies are computed again; heads are checked along the chain by `verify_chain`.
    """
    read = _Record(record)
    version, level, m, n = read.take(4)
    if version != _RECORD_VERSION:
        raise Rejected("unknown version of a stored fact", got=version, expected=_RECORD_VERSION, reason="malformed")
    vault_id, head, height, header_hash = read.take(32), read.take(32), read.number(8), read.take(32)
    time, proof_digest = read.number(8), read.take(32)
    void = read.take(min(read.number(1), _MAX_VOID_BYTES)).decode("latin-1")
    client = get_vault_client(vault_id)
    packet = read.packet(CLEARING_CLIENT, client)
    inbox = read.packet(client, CLEARING_CLIENT)
    if packet is None:
        raise Rejected("a stored fact without its packet", reason="malformed")
    body = None if void else decode_outbox_body(packet.payloads[0].value)
    inbox_body = None
    if isinstance(body, Ack):
        _verify_answered(vault_id, body, inbox)
        # the limits of the family were applied when the fact was made
        inbox_body, flaw = _decode_answered(body, inbox, WIDEST_LIMITS)
        if flaw:
            raise Rejected("a stored Ack makes no sense and is not void", got=flaw, reason="malformed")
    elif body is not None and inbox is not None:
        raise Rejected("a stored inbox packet beside no Ack", reason="malformed")
    fact = Fact(
        vault_id,
        packet.sequence,
        packet,
        body,
        inbox,
        inbox_body,
        compute_commitment(packet),
        head,
        max(packet.timeout_timestamp - PACKET_LIFE_S, 0),
        TrustTier(level, m, n),
        height,
        header_hash,
        time,
        proof_digest,
        void,
    )
    if encode_fact(fact) != record:
        raise Rejected("a stored fact is not canonical", reason="malformed")
    return fact


def verify_chain(cursor: Cursor, facts: Iterable[Fact]) -> Cursor:
    """Check that facts from the store follow ``cursor`` head by head; return the last cursor.

    Rejected ("head_mismatch", "bad_sequence", "wrong_vault"): the store was changed.
    """
    for fact in facts:
        if fact.vault_id != cursor.vault_id:
            raise Rejected("a stored fact of another vault", got=fact.vault_id, reason="wrong_vault")
        if fact.sequence != cursor.sequence + 1:
            raise Rejected("a stored fact is missing", got=fact.sequence, reason="bad_sequence")
        head = compute_next_head(cursor.head, fact.sequence, fact.commitment)
        if head != fact.head:
            raise Rejected("a stored fact was changed", got=fact.head, expected=head, reason="head_mismatch")
        cursor = replace(cursor, sequence=fact.sequence, head=head)
    return cursor
