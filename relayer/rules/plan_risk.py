"""Step 4 of a plan: liquidation in its simplest right form (protocol.md 7.4; margin.md 5; decision 0014).

A portfolio with MM < 0 gives a share of every position to HOUSE at the mark less a stated discount (for what it is short: the mark plus
it), in steps, until MM >= 0; a portfolio worth nothing gives all at once. The price is paid as a due, which caps and empty balances
can't hold up. HOUSE sells what it took by taking offers; those trades are judged in step 5.
"""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from typing import Final

from messages.bodies import LegKind
from messages.errors import Rejected
from messages.ids import HOUSE
from relayer.rules.ledger import compute_backing
from relayer.rules.margin.numbers import DECIMAL
from relayer.rules.plan_context import Context, Unit
from relayer.rules.plan_settlement import OTHERS

LIQUIDATE: Final = "liquidation"
PPM: Final = 1_000_000


def add_liquidation(context: Context) -> None:
    """Add one step for every portfolio with MM < 0, portfolios by id."""
    surplus = {c: b.surplus for c, b in compute_backing(context.ledger.states, context.parameters).items()}
    for portfolio in sorted(_get_exposed(context)):
        book = context.get_book(portfolio)
        try:
            if context.is_maintenance_good(book):
                continue
        except Rejected as error:
            context.note("price_missing", b"", portfolio, f"its margin is frozen: {error.got}")
            continue
        if portfolio in context.in_liquidation:
            context.note("in_liquidation", b"", portfolio, "a liquidation or insurance leg of it is still open")
            continue
        context.in_liquidation.add(portfolio)
        if any(book.options.values()):
            _add_step(context, portfolio, surplus)
        else:
            context.note(
                "in_liquidation", b"", portfolio, "it holds no option any more; its cash is lifted against its debt"
            )


def _get_exposed(context: Context) -> set[bytes]:
    """Portfolios that hold an option or owe anything: of all others every margin is >= 0 whatever the prices are.

    Most accounts of a vault hold cash and nothing else; a plan does not look at each of them.
    """
    ledger = context.ledger
    places = set(ledger.positions) | {place for place, held in ledger.cash.items() if any(a < 0 for a in held.values())}
    found = {ledger.portfolio_of[place] for place in places} | {portfolio for portfolio, _ in ledger.dues}
    return found & set(ledger.portfolios)


def _add_step(context: Context, portfolio: bytes, surplus: dict[bytes, int]) -> None:
    book = context.get_book(portfolio)
    # What is worth nothing can't get better by waiting.
    whole = context.compute_exact(book, context.liquidation_view).equity <= 0
    step_ppm = PPM if whole else context.parameters.liquidation.step_ppm
    planned = False
    for place in context.ledger.portfolios[portfolio].places:
        vault_id, account = place
        rows: list[tuple[bytes, int, bytes, int]] = []
        for series, quantity in sorted(context.ledger.positions.get(place, {}).items()):
            definition = context.ledger.series[series]
            if definition.expiry <= context.ledger.entries[vault_id].time:
                continue  # it settles
            if vault_id in context.blocked:
                context.note(
                    context.blocked[vault_id], vault_id, portfolio, "its positions here can't be liquidated now"
                )
                break
            try:
                part, price = compute_step(context, series, quantity, step_ppm)
            except Rejected as error:
                context.note("price_missing", vault_id, series, f"no mark to liquidate at: {error.got}")
                continue
            quote_class = definition.quote_class
            if price > 0 and price > surplus.get(quote_class, 0):
                context.note("no_house_backing", vault_id, series, "the house can't stand for what it would owe")
                continue
            surplus[quote_class] = surplus.get(quote_class, 0) - price
            rows.append((series, part, quote_class, price))
        size = max(1, context.get_leg_limit(vault_id) // 2 - 2)
        for begin in range(0, len(rows), size):
            unit = Unit(LIQUIDATE, OTHERS, (portfolio, account), {})
            for series, part, quote_class, price in rows[begin : begin + size]:
                unit.add(LegKind.POSITION, account, series, -part)
                unit.add(LegKind.POSITION, account, context.terms.due_of_class[quote_class], price)
            context.units[vault_id].append(unit)
            planned = True
    text = "positions go to the house in this plan" if planned else "nothing of it can be taken over now"
    context.note("in_liquidation", b"", portfolio, text)


def compute_step(context: Context, series: bytes, quantity: int, step_ppm: int) -> tuple[int, int]:
    """Return (part, price): the signed part of a position that goes to HOUSE, and what the account gets for it in class units.

    The part is rounded away from 0, the price against the account: mark less the discount for a long, minus (mark plus the
    discount) for a short.

    Raises:
        Rejected: no mark that liquidation may use.
    """
    size = -(-abs(quantity) * step_ppm // PPM)
    part = size if quantity > 0 else -size
    definition = context.ledger.series[series]
    decimals = context.terms.class_decimals[definition.quote_class]
    discount = context.parameters.liquidation.discount_ppm
    mark = context.get_mark(series)
    with DECIMAL.scope():
        value = mark * Decimal(part) * Decimal(definition.multiplier_e8) / Decimal(10**16) * Decimal(10**decimals)
        factor = Decimal(PPM - discount if part > 0 else PPM + discount) / Decimal(PPM)
        price = value * factor
    return part, int(price.to_integral_value(ROUND_FLOOR))


def is_house_price_good(context: Context, series: bytes, quantity: int, cost: int, scale: int, *, buys: bool) -> bool:
    """Whether HOUSE trades at the liquidation price or better: sells at mark less the discount, buys back at mark plus it.

    Args:
        context: the plan.
        series: what is traded.
        quantity: > 0, 1e-8 contracts.
        cost: > 0, base units of the token.
        scale: base units of the token in one class unit.
        buys: HOUSE is the buyer.
    """
    _, price = compute_step(context, series, -quantity if buys else quantity, PPM)
    return cost <= -price * scale if buys else cost >= price * scale


def get_house_position(context: Context, vault_id: bytes, series: bytes) -> int:
    """Return what HOUSE holds of a series at a vault, 1e-8 contracts."""
    return context.ledger.states[vault_id].positions.get((HOUSE, series), 0)
