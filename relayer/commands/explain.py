"""`relayer explain`: why something is not settled, from the node's records and a dry run of the rules; machine-readable causes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from messages.bodies import (
    WIDEST_LIMITS,
    Ack,
    AckStatus,
    DecideTrades,
    DecideWithdrawals,
    TradePending,
    WithdrawalRequested,
    decode_inbox_body,
)
from messages.documents import Plan, compute_digest, decode_document
from messages.errors import Conflict, Rejected
from messages.outbox import Fact
from relayer.commands.causes import Cause, make_cause
from relayer.commands.holdings import find_portfolio
from relayer.commands.planning import compute_dry_plan
from relayer.commands.state import describe_effects, find_ack, get_inbox_kind, get_packet_state
from relayer.commands.view import View, describe_tier, get_tier_data
from relayer.commands.words import KIND_NAMES, Speaker, get_reason_name
from relayer.render import Answer, Table, format_time, hex_of
from relayer.rules.ledger import compute_ledger
from relayer.rules.plan import PlanResult, compute_plan, get_body
from relayer.rules.quorum import Ballot, get_quorum_votes, get_voters
from relayer.rules.vault_state import REQUEST_LIFE_S
from relayer.store import PacketRecord

MAX_BLAMES = 5


@dataclass
class Section:
    """What is said about one thing."""

    kind: str
    title: str
    facts: list[str] = field(default_factory=list)
    causes: list[Cause] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def show_explanation(view: View, subject: str, *, is_full: bool) -> Answer:
    """Everything known about a subject: CHAIN:NUMBER, or the first hex digits of a trade, request, portfolio, account or plan.

    Exit code 1 where nothing on record has this name.
    """
    speaker = Speaker(view, is_full=is_full)
    explainer = _Explainer(view, speaker)
    sections = explainer.explain(subject)
    data = speaker.frame("explain") | {
        "subject": subject,
        "sections": [
            {"kind": s.kind, "title": s.title, "facts": s.facts, "causes": [c.to_object() for c in s.causes], **s.data}
            for s in sections
        ],
    }
    parts: list[Table | str] = [speaker.heading()]
    for section in sections:
        parts += ["", section.title]
        parts += [f"  {line}" for line in section.facts]
        for cause in section.causes:
            detail = f" ({cause.detail})" if cause.detail else ""
            parts += [f"  because  [{cause.code}] {cause.meaning}{detail}", f"  next     {cause.next_step}"]
    if not sections:
        parts += [
            "",
            f"Nothing on record is called {subject}.",
            (
                "Give CHAIN:NUMBER (`relayer packets` lists them), or at least 4 hex digits of a trade, withdrawal request, portfolio,"
                " account or plan digest. What is younger than the newest finalized header is not on record yet."
            ),
        ]
    return Answer(data, parts, 0 if sections else 1)


class _Explainer:
    def __init__(self, view: View, speaker: Speaker) -> None:
        self.view = view
        self.speaker = speaker
        self._dry: PlanResult | None = None
        self._dry_error = ""

    def explain(self, subject: str) -> list[Section]:
        name, colon, number = subject.rpartition(":")
        if colon and number.isascii() and number.isdigit() and len(number) <= 19:
            vault_id = self.view.find_vault(name)
            return self._explain_number(vault_id, int(number))
        digits = subject.lower().removeprefix("0x")
        is_hex = 4 <= len(digits) <= 64 and all(c in "0123456789abcdef" for c in digits)
        sections: list[Section] = []
        if is_hex:
            for vault_id, sequence in self.view.store.find_facts(digits):
                fact = self.view.store.get_fact(vault_id, sequence)
                if fact is not None:
                    sections += [self._explain_fact(fact), *self._explain_record(fact)]
            for packet in self.view.store.get_packets():
                if packet.commitment.hex().startswith(digits):
                    sections.append(self._explain_packet(packet))
            sections += self._explain_plans(digits)
        if is_hex or subject.upper() in ("HOUSE", "INSURANCE"):
            sections += self._explain_portfolio(subject)
        return sections

    # ---- numbers

    def _explain_number(self, vault_id: bytes, number: int) -> list[Section]:
        view, chain = self.view, self.speaker.chain(vault_id)
        sections: list[Section] = []
        fact = view.store.get_fact(vault_id, number)
        if fact is not None:
            sections += [self._explain_fact(fact), *self._explain_record(fact)]
        else:
            section = Section("outbox", f"Outbox packet {number} of {chain}")
            cursor = view.store.get_cursor(vault_id).sequence
            section.facts.append(f"the outbox of {chain} is on record up to number {cursor}")
            section.causes = self._get_stops(vault_id)
            code = "not_recorded" if vault_id in view.heads else "no_proven_state"
            section.causes.append(make_cause(code))
            section.causes += self._get_blames(chain)
            sections.append(section)
        packets = [p for p in view.store.get_packets() if (p.vault_id, p.sequence) == (vault_id, number)]
        sections += [self._explain_packet(p) for p in packets]
        is_next = number <= view.newest_states[vault_id].inbox_sequence + 1
        if not packets and (is_next or fact is None):
            sections.append(self._explain_unplanned(vault_id, number))
        return sections

    def _explain_unplanned(self, vault_id: bytes, number: int) -> Section:
        view, chain = self.view, self.speaker.chain(vault_id)
        section = Section("inbox", f"Settlement packet {number} for {chain}")
        state = view.newest_states[vault_id]
        if number <= state.inbox_sequence:
            section.facts.append("the vault answered this number; this node did not see its plan")
            section.causes.append(make_cause("done"))
            return section
        section.facts.append(f"{chain} has answered settlement packets up to number {state.inbox_sequence}")
        section.causes = self._get_stops(vault_id)
        dry = self._get_dry()
        if dry is not None and any((p.vault_id, p.sequence) == (vault_id, number) for p in dry.plan.packets):
            section.causes.append(make_cause("would_be_planned"))
            section.causes += self._get_votes()
        else:
            section.causes.append(make_cause("no_votes"))
            notes = dry.notes if dry is not None else ()
            section.causes += [make_cause(n.code, n.text) for n in notes if n.vault_id == vault_id and not n.subject]
        return section

    def _get_votes(self) -> list[Cause]:
        view = self.view
        k = view.store.get_number("base_k")
        votes = view.store.get_votes_of(k)
        if not votes:
            return []
        counts = {d: len(get_voters(Ballot(k, votes), d)) for d in {v.plan_digest for v in votes}}
        best = max(counts, key=lambda d: counts[d])
        missing = [o for o in view.committee.operators if o not in {v.operator for v in votes}]
        names = ", ".join(self.speaker.names(o) for o in missing) or "nobody"
        return [
            make_cause(
                "quorum_missing", f"proposal {k}: {counts[best]} of {view.committee.threshold}; no vote from {names}"
            )
        ]

    # ---- outbox

    def _explain_fact(self, fact: Fact) -> Section:
        view, speaker = self.view, self.speaker
        chain = speaker.chain(fact.vault_id)
        kind = KIND_NAMES.get(fact.body.KIND, "packet") if fact.body is not None else "packet"
        section = Section("outbox", f"Outbox packet {fact.sequence} of {chain}: {kind}")
        section.facts = [
            speaker.outbox(fact.vault_id, fact.body, fact.void),
            f"block time {format_time(fact.stamp)}, id {hex_of(fact.head)}",
            f"proven at height {fact.height:,} ({format_time(fact.time)}), trust tier {describe_tier(fact.tier)}, proof {hex_of(fact.proof_digest)}",
        ]
        section.data = {
            "chain": chain,
            "sequence": fact.sequence,
            "head": hex_of(fact.head),
            "stamp": fact.stamp,
            **get_tier_data(fact.tier),
            "height": fact.height,
            "age_s": max(0, view.now - fact.time),
        }
        section.causes.append(make_cause("recorded"))
        state = view.newest_states[fact.vault_id]
        voids = [n for n in (*state.voids, *state.contradictions) if n.sequence == fact.sequence]
        if fact.void or voids:
            section.causes = [make_cause("void", fact.void or voids[0].reason)]
        return section

    def _explain_record(self, fact: Fact) -> list[Section]:
        if isinstance(fact.body, TradePending):
            return [self._explain_trade(fact)]
        if isinstance(fact.body, WithdrawalRequested):
            return [self._explain_request(fact)]
        if isinstance(fact.body, Ack):
            body = fact.body
            return [
                self._explain_packet(p)
                for p in self.view.store.get_packets()
                if p.vault_id == fact.vault_id and p.commitment == body.inbox_commitment
            ]
        return []

    def _explain_trade(self, fact: Fact) -> Section:
        section = Section("trade", f"Trade {self.speaker.names(fact.head)} at {self.speaker.chain(fact.vault_id)}")
        section.data = {"id": hex_of(fact.head)}
        state = self.view.newest_states[fact.vault_id]
        if any(trade.id == fact.head for trade in state.trades.values()):
            section.causes = self._get_pending(fact, "trade_waiting")
            return section
        for later in self.view.store.iterate_facts(fact.vault_id, fact.sequence):
            decision = later.inbox_body
            if not isinstance(decision, DecideTrades) or not _is_done(later):
                continue
            ids = [item.id for item in decision.items]
            if fact.head in ids:
                bit = later.body.bitmap >> ids.index(fact.head) & 1 if isinstance(later.body, Ack) else 0
                section.causes.append(make_cause("trade_done" if bit else "trade_not_done", _where(later)))
                return section
            if decision.upto >= fact.sequence:
                section.causes.append(make_cause("trade_over", _where(later)))
                section.causes += self._get_past_notes(fact.head, decision.plan_digest)
                return section
        section.causes.append(make_cause("void", "the vault's record holds no such trade"))
        return section

    def _explain_request(self, fact: Fact) -> Section:
        section = Section(
            "withdrawal", f"Withdrawal {self.speaker.names(fact.head)} at {self.speaker.chain(fact.vault_id)}"
        )
        section.data = {"id": hex_of(fact.head)}
        state = self.view.newest_states[fact.vault_id]
        is_open = any(request.id == fact.head for request in state.requests.values())
        for later in self.view.store.iterate_facts(fact.vault_id, fact.sequence):
            decision = later.inbox_body
            if isinstance(decision, DecideWithdrawals) and _is_done(later) and isinstance(later.body, Ack):
                ids = [item.id for item in decision.items]
                if fact.head in ids:
                    bit = later.body.bitmap >> ids.index(fact.head) & 1
                    section.causes = [make_cause("withdrawal_done" if bit else "withdrawal_not_done", _where(later))]
                    if bit:
                        return section
            body = later.body
            if isinstance(body, WithdrawalRequested) and isinstance(fact.body, WithdrawalRequested):
                is_same = (body.account, body.asset) == (fact.body.account, fact.body.asset)
                if is_same and not is_open:
                    section.causes = [make_cause("request_replaced", f"packet {later.sequence}")]
                    return section
        head = self.view.heads.get(fact.vault_id)
        if head is not None and head.point.time > fact.stamp + REQUEST_LIFE_S:
            section.causes.append(make_cause("request_lapsed"))
        elif is_open:
            section.causes += self._get_pending(fact, "request_waiting")
        return section

    def _get_pending(self, fact: Fact, waiting: str) -> list[Cause]:
        """Why an undecided trade or request is not decided: stops, an open packet that decides it, or what a dry run says."""
        causes = self._get_stops(fact.vault_id)
        for packet in self.view.store.get_packets("open"):
            if packet.vault_id == fact.vault_id and fact.head in _get_decided(packet.value):
                return [
                    *causes,
                    make_cause("in_open_packet", f"settlement packet {packet.sequence}"),
                    *self._explain_packet(packet).causes,
                ]
        dry = self._get_dry()
        if dry is None:
            return [*causes, make_cause(waiting, self._dry_error)]
        if any(p.vault_id == fact.vault_id and fact.head in _get_decided(p.value) for p in dry.plan.packets):
            return [*causes, make_cause("would_be_planned"), *self._get_votes()]
        notes = [make_cause(n.code, n.text) for n in dry.notes if n.subject == fact.head]
        if not notes:
            notes = [make_cause(n.code, n.text) for n in dry.notes if n.vault_id == fact.vault_id and not n.subject]
        return [*causes, make_cause(waiting), *notes]

    def _get_past_notes(self, subject: bytes, plan_digest: bytes) -> list[Cause]:
        """What the rules said against something when it was decided: its plan computed again from what its proposal names."""
        view = self.view
        for proposal in view.iterate_proposals():
            if proposal.plan_digest != plan_digest or proposal.parameters_digest != compute_digest(view.parameters):
                continue
            states = {e.vault_id: view.states.get_at(e.vault_id, e.outbox_sequence) for e in proposal.cut.entries}
            ledger = compute_ledger(states, proposal.cut, view.parameters)
            result = compute_plan(ledger, proposal.market, view.parameters, proposal.k, proposal.open_packets)
            return [make_cause(n.code, f"then: {n.text}") for n in result.notes if n.subject == subject]
        return []

    # ---- inbox

    def _explain_packet(self, packet: PacketRecord) -> Section:
        view, speaker = self.view, self.speaker
        chain = speaker.chain(packet.vault_id)
        state, text = get_packet_state(view, packet)
        section = Section(
            "inbox",
            f"Settlement packet {packet.sequence} for {chain}: {get_inbox_kind(packet.value)} ({packet.purpose})",
        )
        section.facts = [
            f"proposal {packet.k}, plan {hex_of(packet.plan_digest)}, commitment {hex_of(packet.commitment)}",
            f"valid before {format_time(packet.timeout)}",
            self._describe_trust(packet.vault_id),
            *(f"does: {line}" for line in describe_effects(speaker, packet)),
        ]
        section.data = {
            "chain": chain,
            "sequence": packet.sequence,
            "state": state,
            "plan_digest": hex_of(packet.plan_digest),
            "trust": [{"chain": chain, **view.get_trust(packet.vault_id)}],
        }
        if packet.status == "open":
            section.causes += self._get_stops(packet.vault_id)
        detail = text
        if state == "refused":
            found = find_ack(view, packet)
            detail = "" if found is None else f"{get_reason_name(found[1].reason)}, Ack in outbox packet {found[0]}"
        if state == "voted":
            known = view.store.get_signatures(packet.vault_id, packet.sequence, packet.commitment)
            missing = [speaker.names(o) for o in view.committee.operators if o not in known]
            detail = f"{text}; missing {', '.join(missing) or 'nobody'}"
        transactions = view.store.get_transactions(packet=packet)
        if state == "sent" and transactions[-1].outcome == "failed":
            state = "tx_failed"
        section.causes.append(make_cause(state, detail))
        if packet.status == "open":
            section.causes += self._get_blames(chain)
        return section

    def _explain_plans(self, digits: str) -> list[Section]:
        view = self.view
        sections = []
        for digest in view.store.find_documents("plan", digits):
            data = view.store.get_document(digest)
            if data is None:
                continue
            plan = decode_document(Plan, data)
            votes = get_quorum_votes(Ballot(plan.k, view.store.get_votes(digest)), digest, view.committee)
            section = Section("plan", f"Plan {hex_of(digest)} of proposal {plan.k}")
            section.facts = [
                f"cut {hex_of(plan.cut_digest)}",
                f"market {hex_of(plan.market_digest)}, parameters {hex_of(plan.parameters_digest)}",
                *(
                    f"packet {p.sequence} for {self.speaker.chain(p.vault_id)}: {KIND_NAMES[get_body(p).KIND]} ({p.purpose})"
                    for p in plan.packets
                    if p.vault_id in view.vaults
                ),
            ]
            have = {v.operator for v in view.store.get_votes(digest)}
            section.facts.append(f"votes: {', '.join(self.speaker.names(o) for o in sorted(have)) or 'none'}")
            if not votes:
                section.causes.append(make_cause("quorum_missing", f"{len(have)} of {view.committee.threshold}"))
            else:
                section.causes.append(make_cause("voted" if self._is_waiting(digest) else "done"))
            section.data = {"plan_digest": hex_of(digest), "k": plan.k, "votes": len(have)}
            sections.append(section)
        dry = self._get_dry() if not sections else None
        if dry is not None and compute_digest(dry.plan).hex().startswith(digits):
            section = Section("plan", f"Plan {hex_of(compute_digest(dry.plan))} of a dry run, on no record")
            section.causes.append(make_cause("would_be_planned" if dry.plan.packets else "no_votes"))
            sections.append(section)
        return sections

    def _is_waiting(self, digest: bytes) -> bool:
        return any(p.plan_digest == digest for p in self.view.store.get_packets("open"))

    # ---- portfolios

    def _explain_portfolio(self, subject: str) -> list[Section]:
        try:
            portfolio = find_portfolio(self.view, subject)
        except Rejected as error:
            if error.reason in ("unknown_portfolio", "no_cut"):
                return []
            raise
        section = Section("portfolio", f"Portfolio {self.speaker.names(portfolio.id)}")
        section.facts = [f"account {self.speaker.names(a)} at {self.speaker.chain(v)}" for v, a in portfolio.places]
        section.facts.append("`relayer positions` and `relayer margin` show what it holds and needs")
        section.data = {"portfolio": hex_of(portfolio.id)}
        section.facts += [self._describe_trust(v) for v in sorted({v for v, _ in portfolio.places})]
        section.data["trust"] = [
            {"chain": self.speaker.chain(v), **self.view.get_trust(v)} for v in sorted({v for v, _ in portfolio.places})
        ]
        dry = self._get_dry()
        subjects = {portfolio.id, *(account for _, account in portfolio.places)}
        for vault_id, account in portfolio.places:
            state = self.view.ledger.states[vault_id]
            subjects |= {t.id for t in state.trades.values() if account in (t.buyer, t.seller)}
            subjects |= {r.id for r in state.requests.values() if r.account == account}
        for note in dry.notes if dry is not None else ():
            if note.subject in subjects:
                section.causes.append(make_cause(note.code, f"{self.speaker.names(note.subject)}: {note.text}"))
        return [section]

    # ---- shared

    def _describe_trust(self, vault_id: bytes) -> str:
        trust, height, age = self.speaker.trust(vault_id)
        return f"{self.speaker.chain(vault_id)} is known by trust tier {trust}, height {height}, age {age}"

    def _get_dry(self) -> PlanResult | None:
        if self._dry is None and not self._dry_error:
            try:
                self._dry = compute_dry_plan(self.view)
            except (Rejected, Conflict) as error:
                self._dry_error = str(error)
        return self._dry

    def _get_stops(self, vault_id: bytes) -> list[Cause]:
        subjects = {"node": "node_halted", f"chain:{self.speaker.chain(vault_id)}": "chain_halted"}
        return [
            make_cause(subjects[halt.subject], f"{halt.reason}: {halt.detail}")
            for halt in self.view.store.get_halts()
            if halt.is_active and halt.subject in subjects
        ]

    def _get_blames(self, chain: str) -> list[Cause]:
        found = [b for b, _, _ in self.view.store.get_blames() if b.chain == chain][:MAX_BLAMES]
        return [make_cause("withheld", f"{b.source}: {b.reason}") for b in found]


def _is_done(fact: Fact) -> bool:
    return isinstance(fact.body, Ack) and fact.body.status == AckStatus.DONE


def _where(fact: Fact) -> str:
    return f"outbox packet {fact.sequence}, {format_time(fact.stamp)}"


def _get_decided(value: bytes) -> set[bytes]:
    """Ids of the trades and requests that an inbox body decides."""
    try:
        body = decode_inbox_body(value, WIDEST_LIMITS)
    except Rejected:
        return set()
    return {item.id for item in body.items} if isinstance(body, DecideTrades | DecideWithdrawals) else set()
