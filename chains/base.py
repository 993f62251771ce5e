"""The three roles of a chain family, and the order of trust, written once.

A `Reader` fetches and believes nothing. A `Verifier` checks and has no network, clock or disk. A `Submitter` sends and proves
nothing. `advance` and `collect` are the only road from what a source says to a fact: update, verify, head, proof, packets, fold.

Readers know several sources (endpoints) by name. Whatever a source says wrongly is recorded as `Blame` with its name, and the
next source is asked; when no source is left, the road ends in `Unavailable` and nothing is believed (incident E1: fewer
sources never lower the bar, because the bar is the proof).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, TypeVar

from messages.bodies import Limits
from messages.digests import Certificate
from messages.errors import Rejected, RelayerError, Unavailable
from messages.outbox import Claim, Cursor, Fact, ProvenHead, Trail, Walk, fold, fold_part, get_next_mark

BootstrapT = TypeVar("BootstrapT")
TrustedT = TypeVar("TrustedT")
UpdateT = TypeVar("UpdateT")
ProofT = TypeVar("ProofT")

MAX_UPDATES_PER_ADVANCE = 128
"""Bound of one `advance`: more than two years of sync-committee periods; a source that needs more is refused."""

MAX_ADVANCE_S = 300.0
"""How long one `advance` listens to one source: one that gives each small step just in time would hold it up for hours."""

MAX_PACKETS_PER_COLLECT = 20_000
"""Bound of one `collect`: what is folded in memory and recorded in one transaction (about 50 MB). A longer way is gone in parts."""

PACKETS_PER_PART = 1_000
"""Packets of one part of a longer way (`trace`, `collect_parts`): what is folded and recorded before others get a turn (about half a second)."""

MAX_PACKETS_PER_HEIGHT = 10_000
"""No vault makes more in one block: who claims a number beyond that is not followed for ever to the end of it."""

FAR = "far"
"""Reason of an Unavailable from `collect`: the head is proven and more than one collect behind it is missing; `trace` goes there."""


OUT_OF_TURN = "revert_sequence"
"""Reason of a Rejected from `Submitter.prepare` when the vault expects another number: most often another operator's transaction was
first. It is the expected end of a race, nobody's fault; whether the packet took effect is told by its Ack alone."""

PREPARE_AGAIN = frozenset({"stale", "underpriced"})
"""Reasons of an Unavailable from `Submitter.send` after which the stored transaction is not worth sending again: only another one helps."""

TOO_FAR = "not_enough_trust"
"""Reason of a Rejected from `Verifier.verify_update` for a header that may be true and cannot be proven in one leap from that state."""

FORMER_SET = "former_set"
"""Reason of a refusal of what operators said who were none any more by then, as its own facts show: the next ones have to be heard first."""

NOT_YET = frozenset({"unheard", "evidence_gone", "preparing", FAR, FORMER_SET})
"""Reasons of an Unavailable that is nobody's fault: what is asked for is on its way (operators' statements, records on the chain)."""

Tell = Callable[[str, int, int], None]
"""Hears of a long way: what is being done, packets done, packets in all."""


@dataclass(frozen=True)
class Head:
    """A claimed outbox position: the number of the last packet and the head after it (32 bytes)."""

    sequence: int
    head: bytes


@dataclass(frozen=True)
class Point:
    """One finalized state of a chain, in words that every family shares: height, 32-byte hash, unix seconds."""

    height: int
    header_hash: bytes
    time: int


@dataclass(frozen=True)
class Span:
    """Which packets to fetch: after one sequence, up to another, expected between two heights (inclusive)."""

    after_sequence: int
    upto_sequence: int
    from_height: int
    to_height: int


@dataclass(frozen=True)
class Blame:
    """What a named source did wrong."""

    chain: str
    source: str
    reason: str
    detail: str


@dataclass(frozen=True)
class SignedTx:
    """A transaction that is stored before it is sent. Fees and nonce are kept so that it can be bumped after a restart."""

    chain: str
    vault_id: bytes
    packet_sequence: int
    account: str
    nonce: int
    max_fee: int
    priority_fee: int
    tx_id: str
    raw: bytes


class Outcome(Enum):
    """What the chain says of a transaction. Never evidence: only a proven Ack is (ibc-v2.md 4)."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    INCLUDED = "included"
    FAILED = "failed"


class Reader(ABC, Generic[BootstrapT, TrustedT, UpdateT, ProofT]):
    """Fetches from named sources; believes nothing. Raises Unavailable (source named) or Rejected (malformed answer)."""

    lag_s: int = 1_800
    """A newest state older than this (seconds) is not taken for the chain's last word: `advance` asks the next source too. Above the usual
    age of a final state, so that one hanging source holds nobody up while another is up to date."""

    @property
    @abstractmethod
    def sources(self) -> Sequence[str]:
        """Names of the endpoints, in the order they should be tried."""

    @abstractmethod
    async def bootstrap(self, source: str) -> BootstrapT:
        """What a light client starts from, at the configured checkpoint."""

    @abstractmethod
    async def update(self, source: str, trusted: TrustedT) -> UpdateT | None:
        """The next update that a client at ``trusted`` should apply, or None where the source has nothing newer."""

    @abstractmethod
    async def head(self, source: str, trusted: TrustedT) -> tuple[Head, ProofT]:
        """The vault's outbox position at the state that ``trusted`` finalizes, with its proof."""

    @abstractmethod
    async def packets(self, source: str, span: Span) -> Sequence[Claim]:
        """The packets of the span in order, Acks with the inbox packet they answer; believed only after the fold."""

    async def walk(self, source: str, span: Span) -> AsyncGenerator[Sequence[Claim]]:
        """The packets of a span that is too long for one `packets`, in order, piece by piece; each piece fits into memory, and may be empty.

        Whoever reads may stop at any piece. Here for readers that find a packet by its number; a family that finds them by height
        or page goes through those once. Raises as `packets`.
        """
        after = span.after_sequence
        while after < span.upto_sequence:
            upto = min(after + PACKETS_PER_PART, span.upto_sequence)
            yield await self.packets(source, replace(span, after_sequence=after, upto_sequence=upto))
            after = upto

    def has_more(self, source: str, trusted: TrustedT) -> bool:  # noqa: ARG002  for those that know better
        """Whether it is worth asking a source for an update beyond ``trusted`` at once, which came from its last answer."""
        return True

    def forget(self, source: str) -> bool:  # noqa: ARG002  for those that read ahead
        """Drop what was read of a source before it was final; True if its last `packets` came of that: they are worth a second look.

        A branch that ended makes an honest source look like a liar.
        """
        return False

    async def follow(self, source: str, hint: Callable[[], None]) -> None:
        """Call ``hint`` whenever a source says that it may have something newer; proves nothing, and may never come.

        Returns at once where the source offers no such stream. Raises Unavailable or Rejected when a stream has ended: follow again later.
        """


class Verifier(ABC, Generic[BootstrapT, TrustedT, UpdateT, ProofT]):
    """Checks; pure. Raises Rejected (wrong), Conflict (two headers exclude each other)."""

    @abstractmethod
    def verify_bootstrap(self, bootstrap: BootstrapT, now: int) -> TrustedT:
        """The first trusted state, under the configured checkpoint; ``now`` in unix seconds."""

    @abstractmethod
    def verify_update(self, trusted: TrustedT, update: UpdateT, now: int) -> TrustedT:
        """The trusted state after an update; ``now`` in unix seconds."""

    @abstractmethod
    def verify_head(self, trusted: TrustedT, head: Head, proof: ProofT) -> ProvenHead:
        """The proven head of the vault at the state that ``trusted`` finalizes."""

    @abstractmethod
    def get_point(self, trusted: TrustedT) -> Point:
        """Height, hash and time of the finalized state."""

    @abstractmethod
    def is_fresh(self, trusted: TrustedT, now: int) -> bool:
        """Whether the trusted state is young enough to build on (trusting or weak-subjectivity period)."""

    def verify_facts(self, trusted: TrustedT, facts: Sequence[Fact]) -> None:
        """Refuse facts that say themselves that what ``trusted`` was verified by counted no more; Rejected (`FORMER_SET`).

        Only where operators of the vault stand for its state: its facts say who they are.
        """

    def make_succession(self, trusted: TrustedT, before: bytes, facts: Sequence[Fact], proof: ProofT) -> UpdateT | None:
        """A step that facts which were just proven add to the state they were proven at: who is believed from some instant on.

        Args:
            trusted: the newest state.
            before: outbox head before the first fact (32 bytes).
            facts: that follow each other up to the head.
            proof: of that head.

        Returns:
            None where the facts change nothing of that.
        """
        del trusted, before, facts, proof
        return None

    def add_known(self, trusted: TrustedT, update: UpdateT) -> UpdateT:
        """An update that stands alone, for those who know less: with what is known at ``trusted`` of who may be believed."""
        del trusted
        return update

    def verify_alone(self, trusted: TrustedT | None, claim: BootstrapT, now: int) -> TrustedT:
        """As `verify_bootstrap`, a claim that stands alone, beside what is known at ``trusted`` already: it may not contradict that."""
        del trusted
        return self.verify_bootstrap(claim, now)


class Codec(ABC, Generic[BootstrapT, TrustedT, UpdateT, ProofT]):
    """Bytes for the store, for proposals and for exported proofs. Decoders raise Rejected on anything unsound."""

    @abstractmethod
    def encode_trusted(self, trusted: TrustedT) -> bytes: ...  # noqa: D102  see the class

    @abstractmethod
    def decode_trusted(self, data: bytes) -> TrustedT: ...  # noqa: D102

    @abstractmethod
    def encode_bootstrap(self, bootstrap: BootstrapT) -> bytes: ...  # noqa: D102

    @abstractmethod
    def decode_bootstrap(self, data: bytes) -> BootstrapT: ...  # noqa: D102

    @abstractmethod
    def encode_update(self, update: UpdateT) -> bytes: ...  # noqa: D102

    @abstractmethod
    def decode_update(self, data: bytes) -> UpdateT: ...  # noqa: D102

    @abstractmethod
    def encode_proof(self, proof: ProofT) -> bytes: ...  # noqa: D102

    @abstractmethod
    def decode_proof(self, data: bytes) -> ProofT: ...  # noqa: D102


class Submitter(ABC):
    """Builds, signs and sends the transaction that carries a certified packet. Idempotent: `recv` is at most once."""

    @property
    @abstractmethod
    def account(self) -> str:
        """The account that pays, as people of this chain write it."""

    @abstractmethod
    async def prepare(self, certificate: Certificate, previous: Sequence[SignedTx]) -> SignedTx:
        """Build and sign; the caller stores the result before `send`.

        Args:
            certificate: packet and exactly m signatures.
            previous: transactions of this account that were stored earlier and have no outcome yet, oldest first; one for
                the same packet is replaced at the same nonce with bumped fees.

        Raises:
            Unavailable: no endpoint answered. Rejected: the chain refuses the call (reverts), with its reason; `OUT_OF_TURN`
                where the vault expects another number.
        """

    @abstractmethod
    async def send(self, signed: SignedTx) -> str:
        """Hand the stored transaction to every endpoint that takes it; returns its id. Sending again is safe."""

    @abstractmethod
    async def outcome(self, signed: SignedTx) -> Outcome:
        """What the chain says of it now."""


@dataclass(frozen=True)
class Coin:
    """What fees are paid in: its name, its decimals, and the least amount (base units) that is worth having."""

    name: str
    decimals: int
    low: int


@dataclass(frozen=True)
class VaultControl:
    """Who governs a vault at an endpoint's newest block. Times in unix seconds, 0: nothing pending."""

    operators: tuple[bytes, ...]
    threshold: int
    epoch: int
    paused: bool
    pending_at: int
    unpause_at: int


class Probe(ABC):
    """Questions of a person to single endpoints of one vault's chain: for `relayer check` and `relayer pause`, never for facts.

    Each question names its endpoint. The answers are the endpoint's word about its newest block: good enough to find a wrong address
    or an empty account, and worth nothing as evidence. All raise Unavailable and Rejected.
    """

    submitter: Submitter | None
    """Where the configuration names a key that pays."""
    header_door: str
    """What people call the door through which this family's headers come."""

    @property
    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """Names of the endpoints."""

    @property
    @abstractmethod
    def vault_text(self) -> str:
        """The vault's address as people of this chain write it."""

    @property
    @abstractmethod
    def coin(self) -> Coin:
        """What fees are paid in."""

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""

    @abstractmethod
    async def verify_chain_id(self, source: str) -> None:
        """Check that an endpoint serves the configured chain; Rejected ("wrong_chain_id")."""

    @abstractmethod
    async def get_newest(self, source: str) -> tuple[int, int]:
        """(height, unix seconds) of the newest block."""

    @abstractmethod
    async def verify_vault(self, source: str, delay_s: int) -> str:
        """Check that the built vault is at the vault's address, created with this id and delay; returns what it is, for people.

        Rejected: "no_code", "wrong_code", "wrong_immutables".
        """

    @abstractmethod
    async def get_control(self, source: str) -> VaultControl:
        """Operators, threshold, epoch and pause as the vault itself answers."""

    @abstractmethod
    async def get_balance(self, source: str, account: str) -> int:
        """Base units of the chain's coin that an account has."""

    @abstractmethod
    async def get_finality_time(self, source: str) -> int:
        """Unix seconds of the newest final state that the endpoint serves."""

    @abstractmethod
    async def get_checkpoint_time(self, source: str, now: int) -> int:
        """Unix seconds of the configured checkpoint, after verifying what the endpoint has for it.

        Unavailable: "not_found" (the endpoint does not know it). Rejected: as the light client.
        """

    @abstractmethod
    async def prepare_pause(self, signature: bytes) -> SignedTx:
        """The transaction that brings one operator's signed pause to the vault; Rejected ("no_submit_key", "revert_...")."""


@dataclass(frozen=True)
class Sighting:
    """What this node's own endpoints agree on, not signed yet: one state of a vault of a family whose states nobody can prove.

    ``sequence`` and ``head`` (32 bytes): of the vault's outbox. ``height`` and ``time`` (unix seconds): of the state that was read.
    An operator signs `messages.digests.compute_observation_digest` of them. ``claim``: the family's own bytes of the unsigned statement.
    ``blames``: endpoints that said otherwise, were behind or did not answer.
    """

    sequence: int
    head: bytes
    height: int
    time: int
    claim: bytes
    blames: tuple[Blame, ...] = ()


class Unseen(Unavailable):
    """The own endpoints agree on nothing: the operator abstains, and this names those that are to blame for it."""

    def __init__(self, error: Unavailable, blames: tuple[Blame, ...]) -> None:
        super().__init__(
            error.what, got=error.got, expected=error.expected, reason=error.reason or "abstain", source=error.source
        )
        self.blames = blames


@dataclass(frozen=True)
class Accepted:
    """A verified statement of an operator, now in the pool: who (20 bytes) says which number, head, height and time (unix seconds).

    ``is_news``: it may make a newer state count. ``evidence``: the two published statements with which the operator contradicts itself.
    """

    operator: bytes
    sequence: int
    head: bytes
    height: int
    time: int
    is_news: bool
    evidence: tuple[bytes, bytes] | None = None


class Observer(ABC):
    """Of a family whose states nobody can prove: operators say what they read, and m of them make it count (protocol.md 11)."""

    @abstractmethod
    async def observe(self, now: int) -> Sighting:
        """What the own endpoints agree on now; ``now`` in unix seconds.

        Raises:
            Unavailable: "abstain" (no agreement: sign nothing), "vault_missing" and others; `Unseen` where endpoints are to blame.
        """

    @abstractmethod
    def encode_signed(self, claim: bytes, operator: bytes, signature: bytes) -> bytes:
        """The statement as it is published: a sighting's claim with its operator (20 bytes) and signature (65 bytes)."""

    @abstractmethod
    def accept(self, data: bytes, now: int) -> Accepted | None:
        """Take a published statement, own or another's, into the pool that the reader draws on; ``now`` in unix seconds.

        None for what is about no state: proof of who the operators are (`tell_succession`).

        Raises:
            Rejected: malformed, of another vault, not signed by an operator of the set in force, or of the future.
        """

    @abstractmethod
    def tell_succession(self) -> bytes:
        """What proves to others who the operators are after those that people named, to be published like a statement; b"" for nothing."""

    @abstractmethod
    def get_operators(self, now: int) -> tuple[bytes, ...]:
        """Whose statements (20 bytes each) count at a time (unix seconds), as far as is known here."""

    @abstractmethod
    def verify_evidence(self, first: bytes, second: bytes) -> bytes:
        """The operator (20 bytes) that signed both, two heads for one number of this vault.

        Raises:
            Rejected: "no_equivocation", and the reasons of `accept`.
        """


@dataclass(frozen=True)
class Chain(Generic[BootstrapT, TrustedT, UpdateT, ProofT]):
    """One vault on one chain, as the relayer sees it: built by `chains.registry`, used by tasks, known by nobody else."""

    chain_id: str
    family: str
    vault_id: bytes
    start_height: int
    limits: Limits
    reader: Reader[BootstrapT, TrustedT, UpdateT, ProofT]
    verifier: Verifier[BootstrapT, TrustedT, UpdateT, ProofT]
    codec: Codec[BootstrapT, TrustedT, UpdateT, ProofT]
    submitter: Submitter | None
    observer: Observer | None = None
    """Where no header proves a state and operators say what they read; None where a light client does."""
    max_packets: int = MAX_PACKETS_PER_COLLECT
    """Packets that one `collect` may fold."""
    part_packets: int = PACKETS_PER_PART
    """Packets of one part of a longer way."""


@dataclass(frozen=True)
class Advanced(Generic[TrustedT, UpdateT]):
    """Result of `advance`: each applied update with the state after it (empty: nothing newer), and who misbehaved."""

    steps: tuple[tuple[UpdateT, TrustedT], ...]
    blames: tuple[Blame, ...]


@dataclass(frozen=True)
class Collected(Generic[ProofT]):
    """Result of `collect`: a proven head, the claim and proof it came from, the new cursor, the facts, who misbehaved."""

    head: Head
    proof: ProofT
    proven: ProvenHead
    cursor: Cursor
    facts: tuple[Fact, ...]
    blames: tuple[Blame, ...]


async def bootstrap(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT], now: int
) -> tuple[BootstrapT, TrustedT, tuple[Blame, ...]]:
    """Start a light client from its checkpoint, from the first source whose bootstrap verifies.

    Raises:
        Unavailable: no source gave one that verifies; the blames are in the text.
    """
    blames: list[Blame] = []
    for source in chain.reader.sources:
        try:
            claimed = await chain.reader.bootstrap(source)
            return claimed, chain.verifier.verify_bootstrap(claimed, now), tuple(blames)
        except (Rejected, Unavailable) as error:
            blames.append(_blame(chain.chain_id, source, error))
    raise Unavailable(
        f"no source of {chain.chain_id} gave a bootstrap that verifies: {_list(blames)}; check endpoints and checkpoint",
        reason=_get_reason(blames, "no_bootstrap"),
    )


async def advance(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT], trusted: TrustedT, now: int
) -> Advanced[TrustedT, UpdateT]:
    """Bring a light client forward as far as one of its sources goes: bounded loop of update and verify.

    A source that fails or lies is blamed and the next one asked; a source with nothing newer is no fault. Where one source ends
    at an old state (`Reader.lag_s`) the next is asked to go on from there: else one that gives a little each time, always far behind,
    would keep the others from being heard. A Conflict is raised at once: it freezes the chain.

    Raises:
        Unavailable: every source failed. Conflict: two finalized headers exclude each other.
    """
    blames: list[Blame] = []
    steps: list[tuple[UpdateT, TrustedT]] = []
    for source in chain.reader.sources:
        limit = asyncio.timeout(MAX_ADVANCE_S)
        try:
            async with limit:
                for _ in range(MAX_UPDATES_PER_ADVANCE):
                    update = await chain.reader.update(source, trusted)
                    if update is None:
                        break
                    trusted = chain.verifier.verify_update(trusted, update, now)
                    steps.append((update, trusted))
                    if not chain.reader.has_more(source, trusted):
                        break
        except TimeoutError:
            if not limit.expired():
                raise
            late = Unavailable("the source is too slow", expected=f"within {MAX_ADVANCE_S:.0f} s", reason="timeout")
            blames.append(_blame(chain.chain_id, source, late))
            continue
        except (Rejected, Unavailable) as error:
            blames.append(_blame(chain.chain_id, source, error))
            continue
        if steps and now - chain.verifier.get_point(trusted).time <= chain.reader.lag_s:
            break
    if not steps and len(blames) == len(chain.reader.sources):
        raise Unavailable(f"no source of {chain.chain_id} answers soundly: {_list(blames)}", reason="no_source")
    return Advanced(tuple(steps), tuple(blames))


async def collect(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT], trusted: TrustedT, cursor: Cursor, from_height: int
) -> Collected[ProofT]:
    """Prove the vault's head at ``trusted`` and fold every packet up to it: the one road from claim to fact.

    Args:
        chain: the chain.
        trusted: verified state of its light client.
        cursor: the vault's position that is on record.
        from_height: height of that record; packets are looked for from there.

    Raises:
        Unavailable: no source gave head, proof and packets that fit together; the blames are in the text. `FAR` where one of them
            gives a proven head too far away for one step.
    """
    blames: list[Blame] = []
    for source in chain.reader.sources:
        for is_last in (False, True):
            try:
                collected = await _collect_from(chain, source, trusted, cursor, from_height)
            except (Rejected, Unavailable) as error:
                if isinstance(error, Rejected) and chain.reader.forget(source) and not is_last:
                    continue
                blames.append(_blame(chain.chain_id, source, error))
                break
            verify_vouched(chain, trusted, collected.facts)
            return replace(collected, blames=tuple(blames))
    raise _make_nobody(chain.chain_id, "gives a proven head with the packets behind it", blames)


async def _collect_from(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT],
    source: str,
    trusted: TrustedT,
    cursor: Cursor,
    from_height: int,
) -> Collected[ProofT]:
    """`collect` from one source.

    Head, proof and packets come from one source: the number it claims is only believed once its own packets fold into the proven
    head, so a wrong number can be blamed on nobody else.
    """
    head, proof, proven = await _get_proven(chain, source, trusted, cursor, from_height)
    claims: Sequence[Claim] = ()
    if proven.head != cursor.head:
        if head.sequence > cursor.sequence + chain.max_packets:
            raise Unavailable(
                "the proven head is too far away for one step",
                got=head.sequence,
                expected=f"up to {cursor.sequence + chain.max_packets}",
                reason=FAR,
                source=source,
            )
        height = chain.verifier.get_point(trusted).height
        claims = await chain.reader.packets(source, Span(cursor.sequence, head.sequence, from_height, height))
    after, facts = fold(cursor, claims, proven, chain.limits)
    return Collected(Head(after.sequence, after.head), proof, proven, after, facts, ())


async def _get_proven(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT],
    source: str,
    trusted: TrustedT,
    cursor: Cursor,
    from_height: int,
) -> tuple[Head, ProofT, ProvenHead]:
    """A source's head with its proof, verified; its number is a claim that the packets must bear out, and must be possible."""
    head, proof = await chain.reader.head(source, trusted)
    proven = chain.verifier.verify_head(trusted, head, proof)
    heights = max(chain.verifier.get_point(trusted).height - from_height, 0) + 1
    farthest = cursor.sequence + max(heights * MAX_PACKETS_PER_HEIGHT, chain.max_packets)
    if proven.head != cursor.head and not cursor.sequence < head.sequence <= farthest:
        raise Rejected(
            "the claimed outbox number does not fit the proven head",
            got=head.sequence,
            expected=f"{cursor.sequence + 1} to {farthest}",
            reason="head_number",
            source=source,
        )
    return head, proof, proven


# ---- a long way, in parts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Traced(Generic[ProofT]):
    """Result of `trace`: a proven head far away, the heads on the way to it, the source that told them, who misbehaved."""

    head: Head
    proof: ProofT
    trail: Trail
    source: str
    blames: tuple[Blame, ...]


@dataclass(frozen=True)
class FarHead(Generic[ProofT]):
    """A source's head, proven; its number is a claim until packets bear it out."""

    head: Head
    proof: ProofT
    proven: ProvenHead
    source: str


def make_traced(trail: Trail, far: FarHead[ProofT], blames: Sequence[Blame]) -> Traced[ProofT]:
    """The way to a head, once a trail leads there."""
    end = trail.marks[-1]
    return Traced(Head(end.sequence, end.head), far.proof, trail, far.source, tuple(blames))


def verify_vouched(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT], trusted: TrustedT, facts: Sequence[Fact]
) -> None:
    """Check, before anything is recorded, that no fact says that those who vouch for ``trusted`` were no operators any more.

    ``facts``: all that change operators and have no head of their own on record; others may be among them.

    Raises:
        Unavailable: `FORMER_SET`. The source told the truth; it is not known yet who may vouch for it.
    """
    try:
        chain.verifier.verify_facts(trusted, facts)
    except Rejected as error:
        raise Unavailable(error.what, got=error.got, expected=error.expected, reason=error.reason) from error


async def prove_far(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT], trusted: TrustedT, cursor: Cursor, from_height: int
) -> tuple[list[FarHead[ProofT]], list[Blame]]:
    """The head at ``trusted`` as every source tells it with a proof, the lowest number first; and who had none."""
    blames: list[Blame] = []
    found: list[FarHead[ProofT]] = []
    for source in chain.reader.sources:
        try:
            head, proof, proven = await _get_proven(chain, source, trusted, cursor, from_height)
        except (Rejected, Unavailable) as error:
            blames.append(_blame(chain.chain_id, source, error))
        else:
            found.append(FarHead(head, proof, proven, source))
    return sorted(found, key=lambda each: each.head.sequence), blames


async def trace(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT],
    trusted: TrustedT,
    cursor: Cursor,
    from_height: int,
    tell: Tell,
) -> Traced[ProofT]:
    """Prove the vault's head at ``trusted`` and go over every packet up to it once, keeping only heads on the way.

    Nothing of the way can be believed before its end: so no packet is kept, and memory does not grow with the distance (32 bytes a
    part). The source with the lowest number is asked first: a number is a claim, and one too high costs a long way for nothing.

    Args:
        chain: the chain.
        trusted: verified state of its light client.
        cursor: the vault's position that is on record.
        from_height: height of that record, or an earlier one.
        tell: hears how far it is.

    Raises:
        Unavailable: no source gave head, proof and packets that fit together; the blames are in the text.
    """
    found, blames = await prove_far(chain, trusted, cursor, from_height)
    height = chain.verifier.get_point(trusted).height
    for far in found:
        span = Span(cursor.sequence, far.head.sequence, from_height, height)
        try:
            trail = await _trace_from(chain, far.source, span, cursor, far.proven, tell)
        except (Rejected, Unavailable) as error:
            blames.append(_blame(chain.chain_id, far.source, error))
            continue
        verify_vouched(chain, trusted, trail.rotations)
        return make_traced(trail, far, blames)
    raise _make_nobody(chain.chain_id, "gives a proven head with the packets behind it", blames)


async def _trace_from(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT],
    source: str,
    span: Span,
    cursor: Cursor,
    proven: ProvenHead,
    tell: Tell,
) -> Trail:
    walk, total = Walk(cursor, chain.part_packets), span.upto_sequence - span.after_sequence
    async with aclosing(chain.reader.walk(source, span)) as pieces:
        async for claims in pieces:
            for begin in range(0, len(claims), PACKETS_PER_PART):
                walk.take(claims[begin : begin + PACKETS_PER_PART])
                await asyncio.sleep(0)  # others have work too
            if walk.at.sequence > span.upto_sequence:
                raise _too_many(source, walk.at.sequence, span)
            tell("read", walk.at.sequence - cursor.sequence, total)
    return walk.finish(proven, chain.limits)


async def collect_parts(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT],
    traced: Traced[ProofT],
    cursor: Cursor,
    from_height: int,
    tell: Tell,
) -> AsyncGenerator[Collected[ProofT]]:
    """Go a traced way again and fold it, part by part: facts under the proven head at its end.

    Each part ends in a head of the trail, so a wrong packet is found at the end of its part, its source is blamed, and the next
    source goes on from there. ``cursor`` may be any position on record before the end of the trail. The last part ends in `Traced.head`.

    Raises:
        Unavailable: no source gave the rest; the parts before stand.
    """
    blames: list[Blame] = []
    start, end = cursor.sequence, traced.head.sequence
    sources = (traced.source, *(s for s in chain.reader.sources if s != traced.source))
    for source in sources:
        span = Span(cursor.sequence, end, from_height, traced.trail.proven.height)
        try:
            async with aclosing(_collect_parts_from(chain, source, span, cursor, traced)) as parts:
                async for part in parts:
                    if part is not None:
                        cursor = part.cursor
                        yield replace(part, blames=tuple(blames))
                        blames.clear()
                    tell("recorded", cursor.sequence - start, end - start)
        except (Rejected, Unavailable) as error:
            blames.append(_blame(chain.chain_id, source, error))
        if cursor.sequence == end:
            return
    raise _make_nobody(chain.chain_id, f"gives the packets after {cursor.sequence} again", blames)


async def _collect_parts_from(
    chain: Chain[BootstrapT, TrustedT, UpdateT, ProofT],
    source: str,
    span: Span,
    cursor: Cursor,
    traced: Traced[ProofT],
) -> AsyncGenerator[Collected[ProofT] | None]:
    """The parts, and None for each piece of an answer, so that whoever waits knows that the source is at work."""
    held: list[Claim] = []
    trail = traced.trail
    async with aclosing(chain.reader.walk(source, span)) as pieces:
        async for claims in pieces:
            held += claims
            mark = get_next_mark(trail, cursor.sequence)
            while mark is not None and len(held) >= mark.sequence - cursor.sequence:
                count = mark.sequence - cursor.sequence
                cursor, facts = fold_part(cursor, held[:count], trail, chain.limits)
                del held[:count]
                yield Collected(Head(cursor.sequence, cursor.head), traced.proof, trail.proven, cursor, facts, ())
                await asyncio.sleep(0)  # others have work too
                mark = get_next_mark(trail, cursor.sequence)
            if mark is None and held:
                raise _too_many(source, cursor.sequence + len(held), span)
            yield None
    if cursor.sequence != span.upto_sequence:
        raise Unavailable(
            "the source ends before the proven head",
            got=cursor.sequence + len(held),
            expected=span.upto_sequence,
            reason="packets_missing",
            source=source,
        )


def _too_many(source: str, got: int, span: Span) -> Rejected:
    return Rejected(
        "more packets than were asked for", got=got, expected=span.upto_sequence, reason="size", source=source
    )


def _blame(chain: str, source: str, error: RelayerError) -> Blame:
    return Blame(chain, source, error.reason or type(error).__name__.lower(), str(error))


def _make_nobody(chain: str, what: str, blames: Sequence[Blame]) -> Unavailable:
    return Unavailable(f"no source of {chain} {what}: {_list(blames)}", reason=_get_reason(blames, "no_facts"))


def _get_reason(blames: Sequence[Blame], otherwise: str) -> str:
    """The one reason of all, where it is nobody's fault; `FAR` where one source shows a way on."""
    reasons = {blame.reason for blame in blames}
    if FAR in reasons:
        return FAR
    return reasons.pop() if len(reasons) == 1 and reasons <= NOT_YET else otherwise


def _list(blames: Sequence[Blame]) -> str:
    return "; ".join(f"{b.source}: {b.reason} ({b.detail})" for b in blames) or "none is configured"
