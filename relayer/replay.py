"""Compute again, from an archive alone, what a committee did: facts from proofs, ledgers from facts, plans from ledgers.

Nothing recorded is believed: headers are verified from the checkpoint on, heads under them, packets folded into them; the ledger of
each certified proposal is folded from the first fact, the plan computed anew and its digest compared with the one that m
operators voted for. Every packet that a vault acknowledged must be one of a plan that came out the same.

Pure but for the iterator it reads from: no store, no network.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from chains.base import Head, Point
from messages.bodies import Ack, DecideTrades, DecideWithdrawals, Execute
from messages.digests import compute_committee_id
from messages.documents import (
    Cut,
    CutEntry,
    Evidence,
    MarketSnapshot,
    OpenPackets,
    Parameters,
    Plan,
    compute_digest,
)
from messages.errors import Conflict, Rejected
from messages.outbox import Claim, Cursor, Fact, fold, get_start_cursor, is_rotation
from messages.packet import compute_commitment
from relayer.archive import (
    ArchivedHead,
    ArchivedHeader,
    ArchivedPacket,
    ArchivedParameters,
    ArchivedPlan,
    ArchiveEnd,
    ArchiveStart,
    Record,
    describe_record,
)
from relayer.proof_file import Anchor, Judge, ProofPacket, ProofStep, decode_claim, verify_step
from relayer.rules.ledger import (
    Ledger,
    VaultState,
    apply_facts,
    compute_ledger,
    compute_ledger_digest,
    get_initial_state,
    get_state_at,
    get_vault_id,
    verify_conservation,
)
from relayer.rules.market import verify_market
from relayer.rules.plan import finalize_packet
from relayer.rules.quorum import Committee, verify_quorum

KEPT_HEADERS = 2_048
"""Light-client states kept per chain: heads and the evidence of proposals lie behind one of them."""

MAX_UNPROVEN_BYTES = 2 << 30
"""Packets that may wait for the head that covers them, in an archive: a node that joined late has one head over its vault's first years.
About three million packets; their facts stay in memory afterwards too."""

MakeJudge = Callable[[Anchor], Judge]
ComputePlan = Callable[[Ledger, MarketSnapshot, Parameters, int, OpenPackets], Plan]


@dataclass(frozen=True)
class ChainReplay:
    """What came out for one vault."""

    chain: str
    vault_id: bytes
    headers: int
    heads: int
    facts: int
    height: int
    head: bytes


@dataclass(frozen=True)
class PlanReplay:
    """One certified proposal: digests as recorded and as computed again."""

    k: int
    r: int
    cut_digest: bytes
    now: int
    ledger_digest: bytes
    recorded_ledger_digest: bytes
    plan_digest: bytes
    recorded_plan_digest: bytes
    votes: int
    packets: int

    @property
    def is_same(self) -> bool:
        """Whether both digests came out as recorded."""
        return (self.ledger_digest, self.plan_digest) == (self.recorded_ledger_digest, self.recorded_plan_digest)


@dataclass(frozen=True)
class ReplayReport:
    """Everything that was computed; ``differences`` says in words what is not as recorded (empty: all the same).

    acknowledged: packets with a plan digest that vaults answered; uncovered: those whose proposal this archive does not hold
    (a node that was away did not see it), in words.
    """

    chains: tuple[ChainReplay, ...]
    plans: tuple[PlanReplay, ...]
    acknowledged: int
    uncovered: tuple[str, ...]
    differences: tuple[str, ...]


@dataclass
class _Chain:
    anchor: Anchor
    judge: Judge
    judges: list[Judge] = field(default_factory=list)
    """Of later anchors, in order."""
    trusted: OrderedDict[int, Any] = field(default_factory=OrderedDict)
    points: dict[int, Point] = field(default_factory=dict)
    proven: set[tuple[int, int]] = field(default_factory=set)
    newest: Any = None
    claims: list[Claim] = field(default_factory=list)
    unproven_bytes: int = 0
    cursor: Cursor = field(default_factory=lambda: get_start_cursor(b"\1" * 32))
    facts: list[Fact] = field(default_factory=list)
    rotations: list[Fact] = field(default_factory=list)
    """Facts that change operators: from their instant on nobody from before counts."""
    headers: int = 0
    heads: int = 0
    height: int = 0


class Replay:
    """Takes records in the order of the archive; see the module.

    Args:
        make_judge: builds the verifier of a chain from the anchor that the checker believes.
        compute_plan: the real rules.
        now: unix seconds at which claims are judged; None: the time that the archive names.
        only_cut: judge only the proposals whose cut digest begins with these bytes.
        recorded: facts of the node itself by (vault id, sequence), to be compared with what comes out; None: nothing to compare.
        believed_parameters: digests of the parameter sets that the checker believes (they name the first operators); None: those
            of the archive.
    """

    def __init__(
        self,
        make_judge: MakeJudge,
        compute_plan: ComputePlan,
        *,
        now: int | None = None,
        only_cut: bytes = b"",
        recorded: Callable[[bytes, int], bytes | None] | None = None,
        believed_parameters: Collection[bytes] | None = None,
    ) -> None:
        self._make_judge = make_judge
        self._compute_plan = compute_plan
        self._now = now
        self._only_cut = only_cut
        self._recorded = recorded
        self._believed_parameters = believed_parameters
        self._chains: dict[str, _Chain] = {}
        self._vaults: dict[bytes, _Chain] = {}
        self._parameters: dict[bytes, Parameters] = {}
        self._initial: dict[bytes, dict[bytes, VaultState]] = {}
        self._states: dict[tuple[bytes, bytes], VaultState] = {}
        self._plans: list[PlanReplay] = []
        self._planned: dict[bytes, set[tuple[bytes, bytes]]] = {}
        self._differences: list[str] = []
        self._uncovered: list[str] = []
        self._handlers: Mapping[type, Callable[[Any], None]] = {
            ArchiveStart: self._start,
            ArchivedHeader: self._apply_header,
            ArchivedPacket: self._apply_packet,
            ArchivedHead: self._apply_head,
            ArchivedParameters: self._apply_parameters,
            ArchivedPlan: self._apply_plan,
            ArchiveEnd: lambda _: None,
        }

    def run(self, records: Iterable[tuple[int, Record]]) -> ReplayReport:
        """Take every (line, record).

        Raises:
            Rejected, Conflict: the first record that proves nothing or contradicts another; its line and name are in the source.
        """
        for line, record in records:
            try:
                self._handlers[type(record)](record)
            except (Rejected, Conflict) as error:
                where = f"line {line}, {describe_record(record)}"
                error.source = f"{where}, {error.source}" if error.source else where
                raise
        return self._finish()

    # ---- chains

    def _start(self, record: ArchiveStart) -> None:
        if self._chains:
            raise Rejected("an archive starts once", reason="malformed")
        if self._now is None:
            self._now = record.judged_at
        for anchor in record.anchors:
            judge = self._make_judge(anchor)
            chain = _Chain(anchor, judge, cursor=get_start_cursor(judge.vault_id))
            known = self._chains.get(anchor.chain)
            if known is not None and known.anchor == replace(
                anchor, checkpoint=known.anchor.checkpoint, settings=known.anchor.settings
            ):
                known.judges.append(judge)  # its light client began anew there
                continue
            if known is not None or judge.vault_id in self._vaults:
                raise Rejected("a chain or vault is named twice", got=anchor.chain, reason="malformed")
            self._chains[anchor.chain] = self._vaults[judge.vault_id] = chain

    def _get_chain(self, chain: str) -> _Chain:
        if chain not in self._chains:
            raise Rejected("a chain that the start of the archive does not name", got=chain, reason="unknown_chain")
        return self._chains[chain]

    def _get_vault(self, vault_id: bytes) -> _Chain:
        if vault_id not in self._vaults:
            raise Rejected("a vault that the start of the archive does not name", got=vault_id, reason="unknown_chain")
        return self._vaults[vault_id]

    def _apply_header(self, record: ArchivedHeader) -> None:
        chain, now = self._get_chain(record.chain), self._now or 0
        step = ProofStep(record.time, record.claim)
        if record.kind == "bootstrap":
            trusted = self._begin(chain, step, record.height)
        elif record.kind == "update" and chain.newest is not None:
            trusted = verify_step(chain.judge, self._get_base(chain, record.height), step, now, "update")
        else:
            raise Rejected("a light client begins with its bootstrap", got=record.kind, reason="malformed")
        point = chain.judge.verifier.get_point(trusted)
        if (point.height, point.header_hash, point.time) != (record.height, record.header_hash, record.time):
            raise Rejected(
                "the claim leads to another header", got=point.height, expected=record.height, reason="wrong_header"
            )
        if chain.points.get(point.height, point) != point:
            raise Conflict(
                "the archive proves two headers at one height",
                got=point.header_hash,
                expected=chain.points[point.height].header_hash,
                reason="two_headers",
            )
        chain.headers += 1
        chain.points[point.height] = point
        chain.trusted[point.height] = trusted
        while len(chain.trusted) > KEPT_HEADERS:
            chain.trusted.popitem(last=False)
        if point.height >= chain.height:
            chain.newest, chain.height = trusted, point.height

    def _begin(self, chain: _Chain, step: ProofStep, height: int) -> Any:
        """The state of a bootstrap: the first under the first anchor, each later one under the next, and never behind what was proven."""
        if chain.newest is not None:
            if not chain.judges:
                raise Rejected("a light client begins once under each anchor", got=height, reason="malformed")
            if height <= chain.height:
                raise Rejected(
                    "a light client begins anew behind itself",
                    got=height,
                    expected=f"> {chain.height}",
                    reason="behind",
                )
            chain.judge = chain.judges.pop(0)
        return verify_step(chain.judge, None, step, self._now or 0, "bootstrap")

    def _get_base(self, chain: _Chain, height: int) -> Any:
        """The state an update was applied to: the newest, or for an older header the newest below it."""
        if height >= chain.height:
            return chain.newest
        below = [h for h in chain.trusted if h < height]
        if not below:
            raise Rejected("no header before this one is in the archive", got=height, reason="wrong_header")
        return chain.trusted[max(below)]

    def _apply_packet(self, record: ArchivedPacket) -> None:
        chain = self._get_vault(record.vault_id)
        chain.unproven_bytes += len(record.packet) + len(record.answered)
        if chain.unproven_bytes > MAX_UNPROVEN_BYTES:
            raise Rejected("more packets than one head may cover", expected=MAX_UNPROVEN_BYTES, reason="size")
        chain.claims.append(decode_claim(ProofPacket(record.packet, record.answered), record.sequence))

    def _apply_head(self, record: ArchivedHead) -> None:
        chain = self._get_vault(record.vault_id)
        trusted = chain.trusted.get(record.height)
        if trusted is None:
            raise Rejected("a head under a header that is not in the archive", got=record.height, reason="wrong_header")
        proof = chain.judge.codec.decode_proof(record.proof)
        proven = chain.judge.verifier.verify_head(trusted, Head(record.sequence, record.head), proof)
        chain.cursor, facts = fold(chain.cursor, chain.claims, proven, chain.judge.limits)
        chain.rotations += [fact for fact in facts if is_rotation(fact)]
        chain.judge.verifier.verify_facts(trusted, chain.rotations)
        if (chain.cursor.sequence, chain.cursor.head) != (record.sequence, record.head):
            raise Rejected(
                "the head is after another packet",
                got=record.sequence,
                expected=chain.cursor.sequence,
                reason="head_number",
            )
        if self._recorded is not None:
            for fact in facts:
                if self._recorded(fact.vault_id, fact.sequence) != fact.head:
                    self._differences.append(
                        f"fact {fact.sequence} of {chain.anchor.chain} is not on record as it comes out of the proofs"
                    )
        chain.claims, chain.unproven_bytes = [], 0
        chain.proven.add((record.height, record.sequence))
        chain.facts.extend(facts)
        chain.heads += 1

    # ---- plans

    def _apply_parameters(self, record: ArchivedParameters) -> None:
        digest = compute_digest(record.parameters)
        if self._believed_parameters is not None and digest not in self._believed_parameters:
            self._differences.append(f"parameters 0x{digest.hex()} are not those that the checker believes")
        self._parameters[digest] = record.parameters
        self._initial[digest] = {get_vault_id(v): get_initial_state(v) for v in record.parameters.vaults}
        if sorted(self._initial[digest]) != sorted(self._vaults):
            raise Rejected("parameters of other vaults than the archive's", reason="bad_parameters")

    def _apply_plan(self, record: ArchivedPlan) -> None:
        proposal = record.proposal
        cut_digest = compute_digest(proposal.cut)
        if not cut_digest.startswith(self._only_cut):
            return
        parameters = self._parameters.get(proposal.parameters_digest)
        if parameters is None:
            self._uncovered.append(
                f"proposal ({proposal.k}, {proposal.r}) was made under parameters 0x{proposal.parameters_digest.hex()}, which are"
                " not in this archive"
            )
            return
        evidence = {e.vault_id: e for e in proposal.evidence}
        for entry in proposal.cut.entries:
            self._verify_entry(entry, evidence.get(entry.vault_id))
        states = self._get_states(proposal.cut, proposal.parameters_digest)
        verify_conservation(states, parameters)
        ledger = compute_ledger(states, proposal.cut, parameters)
        now = proposal.market.now
        newest = max(
            (get_state_at(s, max(now, s.last_stamp)) for s in ledger.states.values()), key=lambda s: s.operator_epoch
        )
        committee = Committee(
            compute_committee_id(sorted(ledger.states)), newest.operator_epoch, newest.operators, newest.threshold
        )
        verify_quorum(record.votes, proposal.k, proposal.plan_digest, committee)
        verify_market(proposal.market, parameters, 0, now)
        plan = self._compute_plan(ledger, proposal.market, parameters, proposal.k, proposal.open_packets)
        digest = compute_digest(plan)
        result = PlanReplay(
            proposal.k,
            proposal.r,
            cut_digest,
            now,
            compute_ledger_digest(ledger),
            record.ledger_digest,
            digest,
            proposal.plan_digest,
            len(record.votes),
            len(plan.packets),
        )
        self._plans.append(result)
        if result.ledger_digest != result.recorded_ledger_digest:
            self._differences.append(f"the ledger of proposal ({proposal.k}, {proposal.r}) comes out different")
        if digest != proposal.plan_digest:
            self._differences.append(
                f"the plan of proposal ({proposal.k}, {proposal.r}) comes out different: {len(record.votes)} operators voted for"
                f" 0x{proposal.plan_digest.hex()}, the rules give 0x{digest.hex()}"
            )
            return
        packets = self._planned.setdefault(digest, set())
        for planned in plan.packets:
            packets.add((planned.vault_id, compute_commitment(finalize_packet(planned, digest))))

    def _verify_entry(self, entry: CutEntry, evidence: Evidence | None) -> None:
        """Check that a cut entry is a proven state: by a head of this archive, or by the evidence of the proposal itself."""
        chain = self._get_vault(entry.vault_id)
        point = chain.points.get(entry.height)
        claimed = Point(entry.height, entry.header_hash, entry.time)
        if point == claimed and (entry.height, entry.outbox_sequence) in chain.proven:
            return
        verifier, codec = chain.judge.verifier, chain.judge.codec
        if evidence is None:
            raise Rejected("a cut entry without evidence", got=entry.height, reason="no_evidence")
        if not any(entry.header_hash):
            # No header says which state this is: what m operators said is in the proposal itself, and stands alone.
            step = ProofStep(entry.time, evidence.update)
            trusted = verify_step(chain.judge, None, step, self._now or 0, "evidence", beside=chain.newest)
            verifier.verify_facts(trusted, chain.rotations)
        else:
            trusted = chain.trusted.get(entry.height) if point == claimed else None
        if trusted is None:
            base = self._get_base(chain, entry.height)
            trusted = verify_step(chain.judge, base, ProofStep(entry.time, evidence.update), self._now or 0, "evidence")
        if verifier.get_point(trusted) != claimed:
            raise Rejected(
                "the evidence leads to another header",
                got=verifier.get_point(trusted).height,
                expected=entry.height,
                reason="wrong_header",
            )
        proof = codec.decode_proof(evidence.proof)
        verifier.verify_head(trusted, Head(entry.outbox_sequence, entry.outbox_head), proof)
        facts = chain.facts[: entry.outbox_sequence]
        if facts and facts[-1].sequence == entry.outbox_sequence and facts[-1].head != entry.outbox_head:
            raise Conflict(
                "the archive proves two heads for one number",
                got=entry.outbox_head,
                expected=facts[-1].head,
                reason="two_heads",
            )

    def _get_states(self, cut: Cut, parameters_digest: bytes) -> dict[bytes, VaultState]:
        out: dict[bytes, VaultState] = {}
        for entry in cut.entries:
            chain = self._get_vault(entry.vault_id)
            key = (parameters_digest, entry.vault_id)
            state = self._states.get(key)
            if state is None or state.outbox_sequence > entry.outbox_sequence:
                state = self._initial[parameters_digest][entry.vault_id]
            if entry.outbox_sequence > len(chain.facts):
                raise Rejected(
                    "the cut has facts that the archive has not", got=entry.outbox_sequence, reason="not_recorded"
                )
            state = apply_facts(state, chain.facts[state.outbox_sequence : entry.outbox_sequence])
            self._states[key] = out[entry.vault_id] = state
        return out

    # ---- the end

    def _finish(self) -> ReplayReport:
        if any(chain.claims for chain in self._chains.values()):
            raise Rejected("packets behind the last proven head prove nothing", reason="no_head")
        if not self._chains:
            raise Rejected("an archive begins with the chains it is about", reason="malformed")
        acknowledged = 0
        for chain in self._chains.values():
            for fact in chain.facts:
                if isinstance(fact.body, Ack) and isinstance(
                    fact.inbox_body, Execute | DecideTrades | DecideWithdrawals
                ):
                    acknowledged += 1
                    self._verify_planned(chain, fact, fact.inbox_body.plan_digest)
        chains = tuple(
            ChainReplay(
                chain.anchor.chain,
                vault_id,
                chain.headers,
                chain.heads,
                len(chain.facts),
                chain.height,
                chain.cursor.head,
            )
            for vault_id, chain in sorted(self._vaults.items())
        )
        return ReplayReport(chains, tuple(self._plans), acknowledged, tuple(self._uncovered), tuple(self._differences))

    def _verify_planned(self, chain: _Chain, fact: Fact, plan_digest: bytes) -> None:
        """Check that an acknowledged packet is one of the plan it names, as that plan was computed here."""
        if self._only_cut or fact.inbox is None:
            return
        where = f"inbox packet {fact.inbox.sequence} of {chain.anchor.chain}"
        planned = self._planned.get(plan_digest)
        if planned is None:
            self._uncovered.append(f"{where} names plan 0x{plan_digest.hex()}, whose proposal is not in this archive")
        elif (fact.vault_id, compute_commitment(fact.inbox)) not in planned:
            self._differences.append(f"{where} is not in plan 0x{plan_digest.hex()}, which it names")
