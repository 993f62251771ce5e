"""Why is this not settled? Named causes from the facts, the last plan's notes and the state of chains (product.md).

Each cause has a stable code, one sentence, and what to do next. Nothing here decides anything: the rules decided, and said why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from messages.bodies import WIDEST_LIMITS, DecideTrades, DecideWithdrawals, Execute, Reason, decode_inbox_body
from messages.documents import OpenPackets
from relayer.rules.ledger import Ledger, Note, VaultState
from relayer.rules.lifecycle import is_proven_absent
from relayer.rules.plan_context import PlanNote


@dataclass(frozen=True, slots=True)
class Cause:
    """What a code means and what to do about it."""

    text: str
    next_step: str


CAUSES: Final[Mapping[str, Cause]] = {
    # ---- facts are missing
    "not_finalized_yet": Cause(
        "a source tells of packets that no finalized state proves yet",
        "wait for finality of the chain (Ethereum: about 15 minutes)",
    ),
    "waiting_for_head": Cause(
        "no head of this vault is proven yet, or none since long",
        "check the endpoints of this chain: relayer check --live",
    ),
    "chain_stalled": Cause(
        "the newest proven state of the chain is too old for packets or moves",
        "check chain and endpoints; everything else goes on without it",
    ),
    "chain_frozen": Cause("the chain is halted by a conflict or by a human", "relayer halts list; two people clear it"),
    "unknown_subject": Cause("no fact names this", "check the id; it may not be finalized yet"),
    # ---- the committee
    "no_quorum": Cause(
        "fewer than m operators have voted for the plan", "check which operators are up: relayer operators"
    ),
    "open_packet_on_vault": Cause(
        "a packet for this vault is certified and neither answered nor proven absent",
        "wait for its Ack or for its timeout; anybody may carry it",
    ),
    "open_packet_on_portfolio": Cause(
        "an open packet may still change this portfolio", "wait for its Ack or its timeout"
    ),
    "timeout_not_proven_absent": Cause(
        "the timeout of an open packet is past, but no proven state of its chain is that late",
        "wait until a state with that time is proven: only then the number is free again",
    ),
    "rotation": Cause("operators change before a packet could time out", "wait for the instant of the rotation"),
    # ---- the vault
    "paused": Cause("an operator paused the vault", "the quorum unpauses it, after the delay"),
    "refused_by_vault": Cause(
        "the vault refused a packet", "the reason says which check failed; the next plan starts from facts"
    ),
    "cap_window_full": Cause("the caps of this asset let no more pass in this hour or day", "wait for the next window"),
    "packet_full": Cause("the packet holds no more", "the rest comes in the next plan"),
    "due_not_listed": Cause(
        "the vault does not know the due of this class", "anybody lists a series of the class there"
    ),
    "link_void": Cause("a link of this account is void", "sign it again with the key of the portfolio, and in time"),
    # ---- prices
    "price_missing": Cause("a price is missing, stale or not usable", "check the price feed and its signers"),
    "expiry_not_priced": Cause(
        "the two reports that settle this expiry are not known, or may not settle",
        "price signers publish the reports stamped at expiry and one window before",
    ),
    "unknown_market": Cause(
        "series, source or token are not in the parameters", "use a market that the operators list"
    ),
    "off_peg": Cause("the token is outside its peg band", "its cash serves only where it lies until the price is back"),
    # ---- margin
    "tier_limit": Cause(
        "it would rest on more value than facts of that trust tier may carry",
        "ask on the chain where the cash lies, or for less; the operators set value_limit per tier",
    ),
    "margin_short": Cause("initial margin would be below 0 in some outcome", "deposit more, or reduce positions"),
    "no_cash": Cause("the account has too little free cash at this vault", "deposit there, or let what is lifted land"),
    "too_many_undecided": Cause("the portfolio has 8 undecided items", "wait for their Acks"),
    "in_liquidation": Cause("maintenance margin is below 0", "deposit; positions go to the house step by step"),
    "account_insolvent": Cause(
        "debts are larger than everything the portfolio has", "insurance takes the difference over"
    ),
    "foreign_collateral": Cause("it owes in one class and has cash in another", "deposit in the class that is owed"),
    "owes_house": Cause(
        "the portfolio owes the house more than may be moved now", "cash follows as caps and limits allow"
    ),
    "paid_by_due": Cause(
        "a loss was booked as a debt, as there is no cash at this vault", "cash is lifted where there is some"
    ),
    "loss_not_covered": Cause("a loss is larger than insurance and all equity", "the treasurer funds INSURANCE"),
    # ---- the house
    "lift_not_acked": Cause(
        "cash is on its way from another chain", "wait for the Ack of the lift; then it lands here"
    ),
    "landing": Cause("cash lands with a packet that is under way", "wait for its Ack; the request is decided after it"),
    "lift_limit": Cause(
        "the house may hold no more of this token at that vault", "the operators raise lift_limit, or wait"
    ),
    "no_house_inventory": Cause(
        "the house has too little cash at this vault", "the treasurer funds HOUSE there, or wait"
    ),
    "no_house_backing": Cause("the house can't stand for what it would owe", "the treasurer funds HOUSE"),
    "backing": Cause("the house needs its cash for what it owes", "wait until dues are paid"),
    "house_position": Cause("the house trades only towards 0", "take a smaller quantity for it"),
    "house_price": Cause("the house trades at its auction price or better", "offer a better price"),
    # ---- the request itself
    "below_minimum_notional": Cause("less than the least amount", "ask for more, or for all there is"),
    "request_lapsed": Cause("the request is older than 24 hours", "ask again"),
    "request_replaced": Cause("a newer request took its place", "look at the newer one"),
    "trade_over": Cause("the trade was not accepted in time and has ended", "take the offer again"),
    "trade_not_done": Cause(
        "the vault answered 0: cash, quantity or time had gone when the decision arrived", "take the offer again"
    ),
    # ---- nothing is wrong
    "trade_done": Cause("the trade is done", "nothing"),
    "withdrawal_done": Cause("the amount is claimable", "claim it"),
    "waiting_for_plan": Cause("nothing stands in the way: the next plan takes it up", "wait for the next plan"),
    "decided_not_acked": Cause("accepted; the packet that carries it is under way", "wait for its Ack"),
}


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """What the node knows of a vault's chain beyond the facts. Times in unix seconds."""

    vault_id: bytes
    state_time: int
    """Time of the newest proven state; 0 when there is none."""
    unproven_packets: int = 0
    """Outbox packets that a source tells of and no proven head holds."""
    is_frozen: bool = False


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything an explanation is computed from."""

    ledger: Ledger
    now: int
    notes: Sequence[PlanNote] = ()
    open_packets: OpenPackets = field(default_factory=lambda: OpenPackets(()))
    chains: Sequence[ChainStatus] = ()
    votes: int | None = None
    """Votes for the newest plan with packets, None when none is waiting for votes."""
    stale_after_s: int = 3_600


@dataclass(frozen=True, slots=True)
class Explanation:
    """One cause. ``detail`` is what is particular to this case."""

    code: str
    vault_id: bytes
    subject: bytes
    text: str
    next_step: str
    detail: str


def explain(subject: bytes, situation: Situation) -> tuple[Explanation, ...]:
    """Say why something is not settled, the nearest cause first.

    Args:
        subject: id of a trade, request, series, portfolio, account or vault (32 bytes).
        situation: the facts, the last plan's notes, open packets and the state of chains.

    Returns:
        At least one explanation; each code is a key of `CAUSES`. No cause is told twice for one vault.
    """
    vaults = _get_vaults(subject, situation.ledger)
    found: list[Explanation] = []
    found += _explain_endings(subject, situation.ledger)
    if not found:
        related = _get_related(subject, situation.ledger)
        found += [_make(n.code, n.vault_id, n.subject, n.text) for n in situation.notes if n.subject in related]
        found += _explain_links(subject, situation.ledger)
        for vault_id in vaults:
            found += _explain_vault(vault_id, subject, situation)
    if not found:
        is_known = bool(vaults) or subject in situation.ledger.portfolios
        found.append(_make("waiting_for_plan" if is_known else "unknown_subject", b"", subject, ""))
    out: dict[tuple[str, bytes], Explanation] = {}
    for item in found:
        out.setdefault((item.code, item.vault_id), item)
    return tuple(out.values())


def _make(code: str, vault_id: bytes, subject: bytes, detail: str) -> Explanation:
    cause = CAUSES[code]
    return Explanation(code, vault_id, subject, cause.text, cause.next_step, detail)


def _get_vaults(subject: bytes, ledger: Ledger) -> list[bytes]:
    """Return the vaults a subject is at: where its record, its account or its holders are."""
    if subject in ledger.states:
        return [subject]
    out = []
    for vault_id in sorted(ledger.states):
        state = ledger.states[vault_id]
        ids = [t.id for t in state.trades.values()] + [r.id for r in state.requests.values()]
        places = ledger.portfolios[subject].places if subject in ledger.portfolios else ()
        if (
            subject in ids
            or subject in state.series
            or (vault_id, subject) in ledger.portfolio_of
            or any(place[0] == vault_id for place in places)
        ):
            out.append(vault_id)
    return out


def _get_related(subject: bytes, ledger: Ledger) -> set[bytes]:
    """Return the ids whose notes concern a subject: itself, and the portfolio of an account or the accounts of a portfolio."""
    related = {subject}
    for (vault_id, account), portfolio in ledger.portfolio_of.items():
        if account == subject:
            related.add(portfolio)
            state = ledger.states[vault_id]
            related |= {r.id for r in state.requests.values() if r.account == account}
            related |= {t.id for t in state.trades.values() if account in (t.buyer, t.seller)}
    if subject in ledger.portfolios:
        related |= {account for _, account in ledger.portfolios[subject].places}
    return related


def _explain_endings(subject: bytes, ledger: Ledger) -> list[Explanation]:
    """What the facts say has become of a trade or request."""
    for vault_id in sorted(ledger.states):
        for note in reversed(ledger.states[vault_id].endings):
            if note.subject == subject:
                return [_make(note.reason, vault_id, subject, f"packet {note.sequence} at {note.stamp}")]
    return []


def _explain_links(subject: bytes, ledger: Ledger) -> list[Explanation]:
    return [
        _make("link_void", vault_id, subject, f"packet {note.sequence}: {note.reason}")
        for vault_id in sorted(ledger.states)
        for note in ledger.states[vault_id].voids
        if note.subject == subject and "link" in note.reason
    ]


def _explain_vault(vault_id: bytes, subject: bytes, situation: Situation) -> Iterable[Explanation]:
    state = situation.ledger.states[vault_id]
    for packet in situation.open_packets.packets:
        if packet.vault_id != vault_id or packet.sequence <= state.inbox_sequence:
            continue
        time = situation.ledger.entries[vault_id].time
        if is_proven_absent(packet.sequence, packet.timeout, state.inbox_sequence, time):
            continue
        if _names(packet.value, subject):
            yield _make(
                "decided_not_acked", vault_id, subject, f"packet {packet.sequence}, good until {packet.timeout}"
            )
        else:
            yield _make(
                "open_packet_on_vault", vault_id, subject, f"packet {packet.sequence}, good until {packet.timeout}"
            )
        if situation.now >= packet.timeout:
            yield _make("timeout_not_proven_absent", vault_id, subject, f"proven until {time}, needs {packet.timeout}")
    if situation.votes is not None and situation.votes < state.threshold:
        yield _make("no_quorum", vault_id, subject, f"{situation.votes} of {state.threshold} votes")
    if state.paused:
        yield _make("paused", vault_id, subject, f"unpause pending: {state.pending_unpause or 'no'}")
    yield from _explain_refusal(vault_id, subject, state)
    for chain in situation.chains:
        if chain.vault_id != vault_id:
            continue
        if chain.is_frozen:
            yield _make("chain_frozen", vault_id, subject, "")
        if not chain.state_time:
            yield _make("waiting_for_head", vault_id, subject, "")
        elif situation.now - chain.state_time > situation.stale_after_s:
            yield _make("chain_stalled", vault_id, subject, f"proven until {chain.state_time}")
        if chain.unproven_packets:
            yield _make("not_finalized_yet", vault_id, subject, f"{chain.unproven_packets} packets")


def _explain_refusal(vault_id: bytes, subject: bytes, state: VaultState) -> Iterable[Explanation]:
    """The vault's last answer, if it was a refusal."""
    last: Note | None = state.refusals[-1] if state.refusals else None
    if last is not None and last.sequence == state.inbox_sequence:
        word = Reason(int(last.reason)).name
        yield _make("refused_by_vault", vault_id, subject, f"packet {last.sequence}: {word}")


def _names(value: bytes, subject: bytes) -> bool:
    """Whether an open packet decides or settles the subject."""
    body = decode_inbox_body(value, WIDEST_LIMITS)
    if isinstance(body, DecideTrades | DecideWithdrawals):
        return any(item.id == subject for item in body.items)
    if isinstance(body, Execute):
        return any(subject in (leg.id, leg.account) for leg in body.legs)
    return False
