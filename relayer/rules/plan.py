"""The plan: what every node computes from (ledger at the cut, market, parameters, k, open packets) and signs byte for byte.

Protocol.md 7, step by step; each step is a file (`plan_settlement`, `plan_moves`, `plan_risk`, `plan_requests`, `plan_packing`) over one
`plan_context`. Nothing here reads a clock, a store or a network: the same input gives the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from messages.bodies import (
    WIDEST_LIMITS,
    DecideTrades,
    DecideWithdrawals,
    Execute,
    InboxBody,
    LegKind,
    decode_inbox_body,
    make_inbox_packet,
)
from messages.documents import MarketSnapshot, OpenPackets, Parameters, Plan, PlannedPacket, compute_digest
from messages.errors import Conflict, Rejected
from messages.ids import HOUSE, INSURANCE, ZERO32
from messages.packet import Packet
from relayer.rules.ledger import Ledger
from relayer.rules.market import compute_market_view
from relayer.rules.netting import NettingStatistics
from relayer.rules.plan_context import Context, PlanNote
from relayer.rules.plan_moves import add_moves
from relayer.rules.plan_packing import pack
from relayer.rules.plan_requests import Requests
from relayer.rules.plan_risk import PPM, add_liquidation, compute_step
from relayer.rules.plan_settlement import add_insurance, add_settlement, add_socialised_loss, get_equity
from relayer.rules.prices import compute_payoff, get_settlement_key

MAX_NOTES: Final = 20_000

__all__ = [
    "PlanNote",
    "PlanResult",
    "compute_plan",
    "compute_plan_digest",
    "finalize_packet",
    "get_body",
    "verify_plan_contains",
    "verify_worth_unchanged",
]


@dataclass(frozen=True)
class PlanResult:
    """A plan, why what is not in it is not in it, and gross against net of the expiries it settles (by class)."""

    plan: Plan
    notes: tuple[PlanNote, ...]
    netting: Mapping[bytes, NettingStatistics]


def compute_plan(
    ledger: Ledger, market: MarketSnapshot, parameters: Parameters, k: int, open_packets: OpenPackets
) -> PlanResult:
    """Compute the plan of protocol.md 7.

    Args:
        ledger: all vaults at the cut of the proposal.
        market: verified by `market.verify_market`.
        parameters: in force, signed by the operators' quorum.
        k: number of the proposal; it only names it.
        open_packets: every packet with m votes whose Ack or absence the last cut did not show, and those proven absent whose
            number is not used up; ascending by (vault id, number, timeout).

    Raises:
        Rejected: parameters or open packets are unsound. Conflict: two prices for one expiry are on record.
    """
    context = Context(ledger, market, parameters, open_packets)
    netting = add_settlement(context)
    add_insurance(context)
    add_socialised_loss(context)
    add_moves(context)
    add_liquidation(context)
    decisions = Requests(context).judge()
    packets = pack(context, decisions)
    plan = Plan(
        k=k,
        cut_digest=compute_digest(ledger.cut),
        market_digest=compute_digest(market),
        parameters_digest=compute_digest(parameters),
        open_packets_digest=compute_digest(open_packets),
        packets=packets,
    )
    return PlanResult(plan, tuple(context.notes[:MAX_NOTES]), netting)


def compute_plan_digest(plan: Plan) -> bytes:
    """Return the digest of a plan: it covers cut, market, parameters, k, open packets and the packets with zero digests inside."""
    return compute_digest(plan)


def get_body(planned: PlannedPacket) -> InboxBody:
    """Return the decoded body of a planned packet; Rejected ("malformed") if it is none."""
    return decode_inbox_body(planned.value, WIDEST_LIMITS)


def finalize_packet(planned: PlannedPacket, plan_digest: bytes) -> Packet:
    """Return the inbox packet that operators sign: the planned one with the plan digest inside (bodies that carry one).

    Raises:
        Rejected: the plan digest has not 32 bytes or is zero, or the planned value carries one already ("bad_plan").
    """
    if len(plan_digest) != 32 or plan_digest == ZERO32:
        raise Rejected("a plan digest has 32 bytes and is not zero", got=plan_digest, reason="bad_plan")
    body = get_body(planned)
    if isinstance(body, Execute | DecideTrades | DecideWithdrawals):
        if body.plan_digest != ZERO32:
            raise Rejected("a planned packet has no digest inside", got=body.plan_digest, reason="bad_plan")
        body = replace(body, plan_digest=plan_digest)
    return make_inbox_packet(planned.vault_id, planned.sequence, planned.timeout, body)


def verify_plan_contains(plan: Plan, planned: PlannedPacket) -> None:
    """Check that one's own plan contains a packet byte for byte before it is signed; Rejected ("not_planned")."""
    if planned not in plan.packets:
        raise Rejected("a packet is not in the own plan", got=planned.sequence, reason="not_planned")


# ---------------------------------------------------------------- the second look


def verify_worth_unchanged(
    ledger: Ledger, market: MarketSnapshot, parameters: Parameters, open_packets: OpenPackets, plan: Plan
) -> None:
    """Check, before signing, that no packet changes a portfolio's worth but by its named purposes (protocol.md 6, last point).

    For every Execute and portfolio: cash + dues + payoffs of expired series may fall by less than one class unit per part (payers
    round up) and never rise. Allowed beyond that, and only as far as each goes: positions handed to HOUSE at the liquidation
    price; a due from INSURANCE up to what the portfolio lacks; a due to INSURANCE up to what INSURANCE lacks. Every asset and
    series sums to 0. It does not use the code that made the plan.

    Raises:
        Conflict: a worth changes; our own rules are broken: sign nothing, tell a human.
    """
    context = Context(ledger, market, parameters, open_packets)
    for planned in plan.packets:
        body = get_body(planned)
        if isinstance(body, Execute):
            _verify_execute(context, planned.vault_id, body)


def _verify_execute(context: Context, vault_id: bytes, body: Execute) -> None:
    ledger, terms = context.ledger, context.terms
    state = ledger.states[vault_id]
    prices = {price.series: price.price_e8 for price in body.prices}
    view = compute_market_view(context.market, context.parameters, context.open.prices_e8)
    for series, price_e8 in prices.items():
        if view.settlement_prices_e8.get(get_settlement_key(state.series[series])) != price_e8:
            raise _changed("a price is not the settlement price", vault_id, series, price_e8)
    sums: dict[tuple[int, bytes], int] = {}
    change: dict[tuple[bytes, bytes], Fraction] = {}
    slack: dict[tuple[bytes, bytes], Fraction] = {}
    for leg in body.legs:
        sums[leg.kind, leg.id] = sums.get((leg.kind, leg.id), 0) + leg.delta
        if leg.account == HOUSE:
            continue
        portfolio = ledger.portfolio_of.get((vault_id, leg.account), leg.account)
        if leg.kind == LegKind.CASH:
            asset = terms.assets[vault_id, leg.id]
            key, value = (portfolio, asset.quote_class), Fraction(leg.delta, terms.get_scale(asset))
        elif leg.id in state.dues:
            key, value = (portfolio, state.dues[leg.id]), Fraction(leg.delta)
        else:
            definition = state.series[leg.id]
            key = (portfolio, definition.quote_class)
            scale: int = 10 ** terms.class_decimals[definition.quote_class]
            if leg.id in prices:
                value = compute_payoff(definition, leg.delta, prices[leg.id]) * scale
                slack[key] = slack.get(key, Fraction(0)) + 1
            else:
                # Handed to HOUSE: what it is given for is the price of a step, discount included.
                held = state.positions.get((leg.account, leg.id), 0)
                if leg.delta * held >= 0 or abs(leg.delta) > abs(held):
                    raise _changed("a liquidation leg does not move towards 0", vault_id, leg.account, leg.delta)
                value = Fraction(-compute_step(context, leg.id, -leg.delta, PPM)[1])
                slack[key] = slack.get(key, Fraction(0)) + 1
        change[key] = change.get(key, Fraction(0)) + value
    for (_, item), total in sums.items():
        if total:
            raise _changed("an asset or series does not sum to 0", vault_id, item, total)
    for (portfolio, quote_class), value in sorted(change.items()):
        if portfolio == INSURANCE:
            continue
        insured = change.get((INSURANCE, quote_class), Fraction(0))
        low, high = -slack.get((portfolio, quote_class), Fraction(0)), Fraction(0)
        if insured < 0:
            high = Fraction(max(0, -get_equity(context, portfolio, quote_class)))
        elif insured > 0:
            low -= max(0, -get_equity(context, INSURANCE, quote_class))
        if not low <= value <= high:
            raise _changed("the worth of a portfolio", vault_id, portfolio, value)


def _changed(what: str, vault_id: bytes, subject: bytes, got: object) -> Conflict:
    return Conflict(
        f"{what} changes at vault 0x{vault_id.hex()}, 0x{subject.hex()}: sign nothing",
        got=got,
        expected="no change but by a named purpose",
        reason="worth_changed",
    )
