"""What the tasks of one node share: its parts, its place in the committee, its mail. No task logic lives here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from chains.base import NOT_YET, Blame, Chain
from messages.digests import compute_committee_id
from messages.documents import (
    Cut,
    CutEntry,
    MarketSnapshot,
    OpenPacket,
    OpenPackets,
    Parameters,
    Proposal,
    SignedMark,
    SignedReport,
    Vote,
    compute_digest,
    decode_document,
    encode_document,
)
from messages.errors import Conflict, Rejected, Unavailable
from messages.outbox import Claim, Fact
from messages.wire import Envelope, ReplayGuard, decode_envelope, encode_envelope
from relayer.clock import Clock, Wake
from relayer.gossip import Gossip
from relayer.keys import Signer
from relayer.mailbox import Mailbox
from relayer.rules.ledger import (
    Ledger,
    VaultState,
    compute_ledger,
    get_state_at,
    get_vault_id,
    verify_conservation,
)
from relayer.rules.plan import PlanResult
from relayer.rules.quorum import MAX_PROPOSAL_ENVELOPE_BYTES, Ballot, Committee, Fate, get_fate, get_quorum_votes
from relayer.states import VaultStates
from relayer.store import PacketRecord, Store

MESSAGE_KINDS = ("proposal", "vote", "signed_plan", "evidence", "archive_request", "archive_packets", "observation")
MAX_INBOX = 4096
"""Messages that wait to be read; beyond it the loudest topic loses its oldest: all that matters is published again."""

MAX_INBOX_BYTES = 64 * 1024 * 1024

MAX_PEER_PACKETS = 50_000
MAX_LISTED_ABSENCES = 16
"""Absent packets per vault in a proposal: every two halve the leg limit, and eight halvings leave nothing to halve."""

BLAME_EVERY_S = 5
"""Seconds between two writes about the same misdeed of the same source."""

MAX_HELD_BLAMES = 2048
KEPT_PLANS = 4
"""Plans that are remembered by all that they follow from: a proposer computes its plan once, not again to vote for it."""
TURN_S = 0.25
"""How long one task waits for another that verifies the same vault's header, before it does the work itself: a slow endpoint holds up nobody."""


class Planner(Protocol):
    """The pure rules between ledger and plan, as one thing that a test can replace by a smaller one."""

    def compute_market(
        self,
        now: int,
        ledger: Ledger,
        parameters: Parameters,
        reports: Sequence[SignedReport],
        marks: Sequence[SignedMark],
    ) -> MarketSnapshot:
        """The market snapshot of a proposal."""

    def verify_market(self, market: MarketSnapshot, parameters: Parameters, previous_now: int, own_now: int) -> None:
        """Check another's snapshot; Rejected says why."""

    def compute_plan(
        self, ledger: Ledger, market: MarketSnapshot, parameters: Parameters, k: int, open_packets: OpenPackets
    ) -> PlanResult:
        """The plan, checked to change nobody's worth except as named."""


class Feed(Protocol):
    """A source of signed prices; what it says is checked like everybody's."""

    async def fetch(self, now: int) -> tuple[Sequence[SignedReport], Sequence[SignedMark]]:
        """What is new. Raises Unavailable or Rejected."""


@dataclass(frozen=True)
class Timing:
    """How often a node looks and repeats, in seconds. Patience and family constants are in the parameters."""

    poll_s: float = 4.0
    settle_s: float = 4.0
    look_again_s: int = 15
    """An unchanged cut is planned again after this, because prices and time move too."""
    submit_s: float = 4.0
    republish_s: int = 20
    takeover_s: int = 20
    bump_s: int = 45
    backoff_max_s: float = 60.0
    observe_s: int = 20
    """Time of a chain between two statements about an unchanged vault whose states nobody can prove, while something waits for time."""
    observe_idle_s: int = 60
    """The same while nothing does."""


@dataclass(frozen=True)
class Said:
    """What this operator said last of a vault whose states nobody can prove."""

    sequence: int
    head: bytes
    height: int
    time: int


@dataclass
class Progress:
    """What a node knows of the current k; lost at a restart and found again from the store and from peers."""

    base_k: int
    since: int | None = None
    highest_seen_k: int = 0
    farthest: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """By operator the highest slot of a verified vote that was too far ahead to be kept."""
    held_votes: list[Vote] = field(default_factory=list)
    """Of peers, counted and not written yet: they are written with the next thing that matters, or when the mail is read."""
    unheard: set[int] = field(default_factory=set)
    """Numbers that are over here and that somebody still votes in."""
    ballots: dict[int, Ballot] = field(default_factory=dict)
    proposals: dict[tuple[int, int], Envelope] = field(default_factory=dict)
    accepted_at: dict[tuple[int, int], int] = field(default_factory=dict)
    """By slot of a proposal that is voted for here: unix seconds, by the own clock; what is read from the store has none."""
    waiting: dict[tuple[int, int], Envelope] = field(default_factory=dict)
    judged: dict[tuple[int, int], Envelope] = field(default_factory=dict)
    """The first proposal of each slot that was looked at, whatever came of it."""
    refused: set[bytes] = field(default_factory=set)
    unsigned: set[bytes] = field(default_factory=set)
    """Plans whose packets the own journal refused to sign: not tried again until a restart or the end of a quarantine."""
    voted_times: dict[bytes, dict[bytes, int]] = field(default_factory=dict)
    """By plan that was voted for here: per vault the time of the state in its cut, verified like the own ones."""
    result: PlanResult | None = None
    last_plan_key: bytes = b""
    last_plan_at: int = 0
    last_publish_at: int = 0


class Node:
    """One operator's node: parts and records, used by the tasks of relayer/tasks."""

    def __init__(
        self,
        name: str,
        parameters: Parameters,
        chains: Mapping[bytes, Chain[Any, Any, Any, Any]],
        store: Store,
        signer: Signer,
        clock: Clock,
        gossip: Gossip,
        feeds: Sequence[Feed],
        planner: Planner,
        timing: Timing,
        log: Any,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.parameters_digest = compute_digest(parameters)
        self.vault_ids = tuple(sorted(get_vault_id(v) for v in parameters.vaults))
        if set(chains) != set(self.vault_ids):
            raise Rejected(
                "the configured chains and the vaults of the parameters differ",
                got=sorted(v.hex()[:16] for v in chains),
                expected=[v.hex()[:16] for v in self.vault_ids],
                reason="vaults",
            )
        self.chains = dict(chains)
        self.committee_id = compute_committee_id(self.vault_ids)
        self.store = store
        self.signer = signer
        self.clock = clock
        self.gossip = gossip
        self.feeds = tuple(feeds)
        self.planner = planner
        self.timing = timing
        self.states = VaultStates(store, parameters)
        self.guard = ReplayGuard()
        self.inbox = Mailbox(MAX_INBOX, MAX_INBOX_BYTES)
        self._held_blames: list[Blame] = []
        self._blamed_at: dict[tuple[str, str, str], int] = {}
        self.inbox_wake = Wake(f"{name}/attest")
        self.settle_wake = Wake(f"{name}/settle")
        self.submit_wake = Wake(f"{name}/submit")
        self.watch_wakes = {vault_id: Wake(f"{name}/watch {c.chain_id}") for vault_id, c in self.chains.items()}
        self.observe_wakes = {
            vault_id: Wake(f"{name}/observe {c.chain_id}")
            for vault_id, c in self.chains.items()
            if c.observer is not None
        }
        self.said: dict[bytes, Said] = {}
        # vault -> what was said last of its operators, and when (unix seconds)
        self.told_successions: dict[bytes, tuple[bytes, int]] = {}
        # vault -> (operator, number) -> head that the operator signed and that the own facts have not judged yet
        self.heard_heads: dict[bytes, dict[tuple[bytes, int], bytes]] = {}
        # vault -> operator -> unix seconds at which it last said something of the vault (or at which the first of them did)
        self.heard_at: dict[bytes, dict[bytes, int]] = {}
        self.peer_packets: dict[bytes, dict[int, Claim]] = {}
        self.peer_sources: dict[bytes, bytes] = {}  # vault -> operator that sent what is held
        self.doubted_peers: dict[
            bytes, set[bytes]
        ] = {}  # vault -> operators whose packets did not fold or went missing
        self.peer_gaps: dict[bytes, int] = {}  # vault -> first number that was missing last time
        # vault -> recorded number, first missing one, and unix seconds at which the peer was last in time
        self.peer_paces: dict[bytes, tuple[int, int, int]] = {}
        self.is_stopping = False
        self.active_at: dict[str, int] = {}  # loop -> when a step of it that takes long last got on
        # vault -> the way to a head far away along packets of peers; of `relayer.tasks.watch`
        self.peer_ways: dict[bytes, Any] = {}
        # vault -> facts that change operators, to judge whose word counts; of `relayer.tasks.watch`
        self.unfinished_rotations: dict[bytes, list[Fact]] = {}
        self.asked_archive: dict[bytes, int] = {}
        self.served_archive: dict[bytes, tuple[int, int]] = {}  # operator -> second, answers in it
        self.submit_not_before: dict[tuple[bytes, int, bytes], int] = {}
        # Newest light-client state per chain, decoded once: this process is the only writer of the store.
        self.trusted: dict[str, Any] = {}
        self.looking: set[bytes] = set()
        self.is_planner_waiting = False
        self._turns = {vault_id: asyncio.Lock() for vault_id in self.vault_ids}
        self._ledgers: dict[Cut, Ledger] = {}
        self._plans: dict[tuple[Cut, MarketSnapshot, int, OpenPackets], PlanResult] = {}
        self.last_trouble: dict[str, str] = {}
        self.log = log.bind(node=name)
        # The process may have died between recording facts and looking at them (protocol.md 6).
        self.verify_worth()
        base_k = max(store.get_number("base_k"), signer.journal.highest_k)
        self.progress = Progress(base_k)
        for k in range(max(0, base_k - 2), base_k + 3):
            votes = store.get_votes_of(k)
            if votes:
                self.progress.ballots[k] = Ballot(k, votes)
            if k >= base_k:
                for data in store.get_documents("proposal", k):
                    envelope = decode_envelope(data, MAX_PROPOSAL_ENVELOPE_BYTES)
                    proposal = decode_document(Proposal, envelope.body)
                    self.progress.proposals[proposal.k, proposal.r] = envelope

    # ---- committee

    def get_committee(self) -> Committee:
        """The operator set in force: what the vaults' facts say, with the instant of a rotation applied."""
        now = self.clock.now()
        states = [get_state_at(s, max(now, s.last_stamp)) for s in self.states.get_all_newest().values()]
        newest = max(states, key=lambda s: s.operator_epoch)
        return Committee(self.committee_id, newest.operator_epoch, newest.operators, newest.threshold)

    def get_publishers(self) -> tuple[bytes, ...]:
        """Operators (20 bytes each, ascending) worth listening to: the set in force, and those that count at a vault whose states they tell."""
        now = self.clock.now()
        told = [c.observer.get_operators(now) for c in self.chains.values() if c.observer is not None]
        return tuple(sorted({*self.get_committee().operators, *(operator for one in told for operator in one)}))

    @property
    def patience_s(self) -> int:
        """Time each proposer has."""
        return self.parameters.patience_s

    # ---- what is proven

    def get_cut(self) -> Cut | None:
        """The newest proven state of every vault; None while one of them has none."""
        entries = []
        for vault_id in self.vault_ids:
            head = self.store.get_head(vault_id)
            if head is None:
                return None
            entries.append(
                CutEntry(vault_id, head.point.height, head.point.header_hash, head.point.time, head.sequence, head.head)
            )
        return Cut(tuple(entries))

    def get_states_at(self, cut: Cut) -> dict[bytes, VaultState]:
        """Every vault folded exactly up to its cut entry; Rejected ``not_recorded`` where facts are missing."""
        return {e.vault_id: self.states.get_at(e.vault_id, e.outbox_sequence) for e in cut.entries}

    def get_ledger(self, cut: Cut) -> Ledger:
        """The ledger at a cut whose facts are on record."""
        # a cut names every head, and facts under a head never change
        ledger = self._ledgers.get(cut)
        if ledger is None:
            ledger = compute_ledger(self.get_states_at(cut), cut, self.parameters)
            _keep(self._ledgers, cut, ledger)
        return ledger

    def get_plan(self, cut: Cut, market: MarketSnapshot, k: int, open_packets: OpenPackets) -> PlanResult:
        """The own plan at a cut whose facts are on record; raises what the rules raise."""
        key = (cut, market, k, open_packets)
        result = self._plans.get(key)
        if result is None:
            result = self.planner.compute_plan(self.get_ledger(cut), market, self.parameters, k, open_packets)
            _keep(self._plans, key, result)
        return result

    def find_unfinished(self) -> tuple[bytes, ...]:
        """Vaults without a proven head, or with facts beyond it: they are on the way to a head that is far away."""
        heads = {vault_id: self.store.get_head(vault_id) for vault_id in self.vault_ids}
        return tuple(
            v for v, head in heads.items() if head is None or self.store.get_cursor(v).sequence != head.sequence
        )

    def verify_worth(self) -> None:
        """Check what was folded (protocol.md 6). Facts that break conservation halt the node: they are true, so a human must look.

        While a vault is on its way to a head far away, what stands behind debts elsewhere may lie in facts that are still to come: the sums
        of every vault must hold all the same, backing over all vaults is judged once the last one has arrived.
        """
        try:
            verify_conservation(self.states.get_all_newest(), self.parameters)
        except Conflict as error:
            if error.reason == "backing" and self.find_unfinished():
                self.log.info("backing is judged later", detail=str(error))
                return
            # The facts are true and make no sense together: nothing may be signed by anybody until a human has looked.
            self.halt("node", error)

    def get_proven_times(self) -> dict[bytes, int]:
        """Per vault the time of its newest proven state; 0 where there is none."""
        heads = {vault_id: self.store.get_head(vault_id) for vault_id in self.vault_ids}
        return {vault_id: head.point.time if head else 0 for vault_id, head in heads.items()}

    def get_cut_floor(self) -> Cut | None:
        """The cut of the last plan with m votes that this node agreed to: later cuts lie at or above it."""
        data = self.store.get_setting("cut_floor")
        return None if data is None else decode_document(Cut, data)

    @contextmanager
    def look(self, vault_id: bytes) -> Iterator[None]:
        """While a vault is looked at: who plans waits a moment for a look that is under way, and is told when it has ended."""
        self.looking.add(vault_id)
        try:
            yield
        finally:
            self.looking.discard(vault_id)
            if not self.looking and self.is_planner_waiting:
                self.settle_wake.set()

    @asynccontextmanager
    async def take_turn(self, vault_id: bytes) -> AsyncIterator[None]:
        """Alone with a vault's headers if that is possible within `TURN_S`: two tasks would verify and fold the same twice."""
        lock, is_mine = self._turns[vault_id], False
        with suppress(TimeoutError):
            async with asyncio.timeout(TURN_S):
                is_mine = await lock.acquire()
        try:
            yield
        finally:
            if is_mine:
                lock.release()

    # ---- open packets

    def get_open_records(self, positions: Mapping[bytes, tuple[int, int]]) -> tuple[PacketRecord, ...]:
        """Packets with m votes that these positions (inbox sequence, time per vault) do not settle, by (vault, number).

        The cut alone decides, not what newer facts have shown since: at an older cut a packet is open again, and what it
        decides must be counted there, or a proposer that names old cuts could make everybody forget it.
        """
        return tuple(
            p
            for vault_id, (inbox_sequence, time) in sorted(positions.items())
            for p in self.store.get_packets_after(vault_id, inbox_sequence)
            if get_fate(p.sequence, p.timeout, inbox_sequence, time) is Fate.OPEN
        )

    def get_open_packets(self, positions: Mapping[bytes, tuple[int, int]], committee: Committee) -> OpenPackets:
        """The list a proposal names, by (vault, number, timeout, plan): open packets, and absent ones of the next numbers.

        Of the absent ones the newest, as many as can still lower a vault's limit (protocol.md 7.7).
        """
        packets = []
        for vault_id, (inbox_sequence, time) in sorted(positions.items()):
            absent: list[OpenPacket] = []
            is_open: list[OpenPacket] = []
            for p in self.store.get_packets_after(vault_id, inbox_sequence):
                votes = self._get_current_votes(p, committee)
                listed = OpenPacket(vault_id, p.operator_epoch, p.sequence, p.timeout, p.value, p.plan_digest, votes)
                if get_fate(p.sequence, p.timeout, inbox_sequence, time) is Fate.OPEN:
                    is_open.append(listed)
                elif p.sequence == inbox_sequence + 1 and votes:
                    absent.append(listed)
            packets += sorted(
                [*absent[-MAX_LISTED_ABSENCES:], *is_open], key=lambda p: (p.sequence, p.timeout, p.plan_digest)
            )
        return OpenPackets(tuple(packets))

    def _get_current_votes(self, packet: PacketRecord, committee: Committee) -> tuple[Vote, ...]:
        """Votes of m operators in force for a packet's plan; () where a rotation has left fewer."""
        votes = tuple(v for v in self.store.get_votes(packet.plan_digest) if v.operator in committee.operators)
        return get_quorum_votes(Ballot(packet.k, votes), packet.plan_digest, committee)

    # ---- mail

    def get_topic(self, kind: str) -> str:
        """Where messages of a kind travel."""
        return f"optsettle/{self.committee_id.hex()[:16]}/{kind}"

    def receive(self, topic: str, data: bytes) -> None:
        """Handler of the carrier: keep the bytes in their topic's lane, wake the reader; nothing is parsed here."""
        self.inbox.put(topic, data)
        self.inbox_wake.set()

    def publish_soon(self) -> None:
        """Say everything unfinished again now: the carrier was away, and what it was given then may be lost."""
        self.progress.last_publish_at = 0
        self.inbox_wake.set()
        self.said.clear()
        for wake in self.observe_wakes.values():
            wake.set()

    async def publish(self, kind: str, document: Any) -> None:
        """Sign an envelope around a document and hand it to the carrier."""
        await self.publish_envelope(self.signer.sign_envelope(kind, encode_document(document)))

    async def publish_envelope(self, envelope: Envelope) -> None:
        """Hand a signed envelope, ours or another's, to the carrier."""
        data = encode_envelope(envelope, MAX_PROPOSAL_ENVELOPE_BYTES)
        await self.gossip.publish(self.get_topic(envelope.type), data)

    # ---- records

    def record_journal_tip(self) -> None:
        """Remember how far the signer's journal was: a restored old one is noticed at the next start."""
        self.store.record_setting("journal_tip", self.signer.journal.tip)

    def blame(self, chain: str, source: str, reason: str, detail: str) -> None:
        """Record what a source did wrong: the first time at once, its repetitions together every few seconds.

        A flood of bad messages must not become a flood of fsyncs.
        """
        blame, now = Blame(chain, source, reason, detail), self.clock.now()
        key = (chain, source, reason)
        self._held_blames.append(blame)
        if now - self._blamed_at.get(key, -BLAME_EVERY_S) >= BLAME_EVERY_S or len(self._held_blames) >= MAX_HELD_BLAMES:
            self.write_blames()

    def write_blames(self) -> None:
        """Write the blames that were held back."""
        held, now = self._held_blames, self.clock.now()
        if not held:
            return
        self._held_blames = []
        if len(self._blamed_at) >= MAX_HELD_BLAMES:
            self._blamed_at.clear()
        for blame in held:
            self._blamed_at[blame.chain, blame.source, blame.reason] = now
        self.store.record_blames(held, now)

    def halt(self, subject: str, error: Conflict) -> None:
        """Stop a subject durably."""
        self.store.record_halt(subject, error.reason or "conflict", str(error), self.clock.now())
        self.log.error("halted", subject=subject, reason=error.reason, detail=str(error))


def _keep(kept: dict[Any, Any], key: object, value: object) -> None:
    """Remember the newest `KEPT_PLANS` values."""
    kept[key] = value
    while len(kept) > KEPT_PLANS:
        del kept[next(iter(kept))]


class StepResult:
    """How a step ended, for the loop that runs it."""

    DONE = "done"
    REJECTED = "rejected"
    HALTED = "halted"
    UNAVAILABLE = "unavailable"


async def run_step(node: Node, subject: str, chain: str, step: Callable[[], Awaitable[object]]) -> str:
    """Run one step under the failure policy, which exists only here (style.md 3.5).

    Rejected: record and blame. Conflict: halt the subject. Unavailable: say so, and blame unless what
    is missing is on its way; the caller backs off. Anything else is ours and leaves through here unchanged, so that the process stops.
    """
    try:
        await step()
    except Rejected as error:
        node.blame(chain, error.source or subject, error.reason or "rejected", str(error))
        node.log.warning("rejected", subject=subject, reason=error.reason, detail=str(error))
        return StepResult.REJECTED
    except Conflict as error:
        node.halt(subject, error)
        return StepResult.HALTED
    except Unavailable as error:
        if error.reason not in NOT_YET:
            node.blame(chain, error.source or subject, error.reason or "unavailable", str(error))
        # An outage is told once, not at every attempt.
        if node.last_trouble.get(subject) != error.reason:
            node.last_trouble[subject] = error.reason
            node.log.info("unavailable", subject=subject, reason=error.reason, detail=str(error))
        return StepResult.UNAVAILABLE
    node.last_trouble.pop(subject, None)
    return StepResult.DONE
