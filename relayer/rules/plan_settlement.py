"""Steps 1 and 2 of a plan: expired series go to 0 at one price, results are netted, losses covered (protocol.md 7.1, 7.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from messages.amounts import format_units
from messages.bodies import LegKind
from messages.ids import HOUSE, INSURANCE
from relayer.rules.ledger import Key, Place
from relayer.rules.netting import (
    Netting,
    NettingStatistics,
    Node,
    Outcome,
    compute_insurance_payment,
    compute_netting,
    compute_socialised_shares,
    compute_statistics,
)
from relayer.rules.plan_context import SYSTEM, Context, Unit
from relayer.rules.prices import compute_payoff, get_settlement_key

SETTLE = "settle"
INSURE = "insurance"
SOCIALISE = "socialised_loss"
PAYERS, OTHERS, RECEIVERS = 0, 1, 2
RATE_SCALE: Final = 10**24
"""Denominator of the payoff formula."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The expired series of one account at one vault that settle in one unit."""

    place: Place
    quote_class: bytes
    number: int
    series: tuple[bytes, ...]
    quantities: tuple[int, ...]
    result: int


def add_settlement(context: Context) -> dict[bytes, NettingStatistics]:
    """Add the units that settle every expired series; return gross against net by class."""
    parts, payoffs = _get_parts(context)
    out: dict[bytes, NettingStatistics] = {}
    for quote_class in sorted({part.quote_class for part in parts}):
        mine = [part for part in parts if part.quote_class == quote_class]
        netting, collected = _net(context, quote_class, mine)
        out[quote_class] = compute_statistics(payoffs[quote_class], netting)
        _add_units(context, quote_class, mine, netting, collected)
    return out


def _get_parts(context: Context) -> tuple[list[_Part], dict[bytes, list[int]]]:
    """Return what settles now, and the payoff of every single position by class (for the statistics)."""
    ledger, terms = context.ledger, context.terms
    parts: list[_Part] = []
    payoffs: dict[bytes, list[int]] = {}
    rates: dict[bytes, int] = {}
    holders: dict[bytes, dict[bytes, list[tuple[Place, int]]]] = {}
    for place, table in ledger.positions.items():
        for series, quantity in table.items():
            holders.setdefault(place[0], {}).setdefault(series, []).append((place, quantity))
    for vault_id in sorted(holders):
        time = ledger.entries[vault_id].time
        settled: dict[Place, dict[bytes, dict[bytes, int]]] = {}
        for series in sorted(holders[vault_id]):
            definition = ledger.series[series]
            if definition.expiry > time:
                continue
            if vault_id in context.blocked:
                continue  # the note of the vault says why
            if definition.quote_class not in terms.class_decimals:
                context.note("unknown_market", vault_id, series, "the parameters do not name the class of this series")
                continue
            if get_settlement_key(definition) not in context.view.settlement_prices_e8:
                context.note(
                    "expiry_not_priced",
                    vault_id,
                    series,
                    "the two signed reports that settle this expiry are not known yet, or may not settle anything",
                )
                continue
            rates[series] = _compute_rate(context, series)
            for place, quantity in holders[vault_id][series]:
                if place[1] != HOUSE:
                    settled.setdefault(place, {}).setdefault(definition.quote_class, {})[series] = quantity
        limit = context.get_leg_limit(vault_id)
        for place in sorted(settled):
            for quote_class in sorted(settled[place]):
                # Each series has a leg and maybe one of the house; cash per token and a due, with the house's against them.
                tokens = len(terms.class_assets.get((vault_id, quote_class), ()))
                size = max(1, limit // 2 - tokens - 1)
                rows = sorted(settled[place][quote_class].items())
                for number, begin in enumerate(range(0, len(rows), size)):
                    chunk = rows[begin : begin + size]
                    exact = [rates[series] * quantity for series, quantity in chunk]
                    payoffs.setdefault(quote_class, []).extend(value // RATE_SCALE for value in exact)
                    # Receivers down, payers up: both are a floor; what is left stays with the house (protocol.md 7).
                    result = sum(exact) // RATE_SCALE
                    series_ids, quantities = zip(*chunk, strict=True)
                    parts.append(_Part(place, quote_class, number, series_ids, quantities, result))
    return parts, payoffs


def _compute_rate(context: Context, series: bytes) -> int:
    """Return the payoff of one unit of quantity in class units * RATE_SCALE: an exact integer (protocol.md 7.1)."""
    definition = context.ledger.series[series]
    price_e8 = context.view.settlement_prices_e8[get_settlement_key(definition)]
    payoff = (
        compute_payoff(definition, RATE_SCALE, price_e8) * 10 ** context.terms.class_decimals[definition.quote_class]
    )
    assert payoff.denominator == 1, "the scale is the denominator of every payoff"
    rate: int = payoff.numerator
    return rate


def _net(context: Context, quote_class: bytes, parts: list[_Part]) -> tuple[Netting, dict[Key, int]]:
    """Net the parts of one class; return also what losers pay by (vault, asset), class units."""
    ledger, terms = context.ledger, context.terms
    nodes: list[Node] = []
    collected: dict[Key, int] = {}
    ordered = sorted(parts, key=lambda p: (ledger.portfolio_of[p.place], p.place, p.number))
    for part in ordered:
        cash = 0
        if part.result < 0:
            # Take the debit from the budgets at once: two parts of one account, or two accounts under one cap, share them.
            for asset in terms.class_assets.get((part.place[0], quote_class), ()):
                scale = terms.get_scale(asset)
                units = min(context.get_debit_limit(part.place, asset.asset) // scale, -part.result - cash)
                if units > 0:
                    context.spend(part.place, asset.asset, units * scale)
                    collected[part.place[0], asset.asset] = collected.get((part.place[0], asset.asset), 0) + units
                    cash += units
            if cash < -part.result:
                _note_shortfall(context, part, quote_class, -part.result - cash)
        portfolio = ledger.portfolio_of[part.place]
        nodes.append(Node(portfolio, part.place[0], part.place[1], part.number, part.result, cash))
    dues = {portfolio: ledger.dues.get((portfolio, quote_class), 0) for portfolio in {node.portfolio for node in nodes}}
    house = {
        vault_id: sum(
            context.get_free((vault_id, HOUSE), asset.asset) // terms.get_scale(asset)
            for asset in terms.class_assets.get((vault_id, quote_class), ())
        )
        for vault_id in {node.vault_id for node in nodes}
    }
    return compute_netting(nodes, dues, house), collected


def _note_shortfall(context: Context, part: _Part, quote_class: bytes, shortfall: int) -> None:
    vault_id, account = part.place
    amount = format_units(shortfall, context.terms.class_decimals[quote_class])
    free = sum(
        context.get_free(part.place, asset.asset) // context.terms.get_scale(asset)
        for asset in context.terms.class_assets.get((vault_id, quote_class), ())
    )
    code = "cap_window_full" if free else "paid_by_due"
    why = "the caps of the vault let no more pass now" if free else "there is no more cash of it here"
    context.note(code, vault_id, account, f"{amount} of its loss becomes a due: {why}")


def _add_units(
    context: Context, quote_class: bytes, parts: list[_Part], netting: Netting, collected: Mapping[Key, int]
) -> None:
    ledger, terms = context.ledger, context.terms
    due = terms.due_of_class[quote_class]
    by_node = {(p.place[0], p.place[1], p.number): p for p in parts}
    # What can be paid out per token: what losers paid in, and what the house has there (class units).
    pool: dict[Key, int] = {}
    house_left: dict[Key, int] = {}
    for outcome in netting.outcomes:
        for asset in terms.class_assets.get((outcome.node.vault_id, quote_class), ()):
            key = (outcome.node.vault_id, asset.asset)
            if key not in pool:
                house_left[key] = context.get_free((key[0], HOUSE), asset.asset) // terms.get_scale(asset)
                pool[key] = collected.get(key, 0) + house_left[key]
    paid_out: dict[Key, int] = {}
    taken: dict[Key, int] = {}
    prices: dict[bytes, int] = {}
    for outcome in netting.outcomes:
        node = outcome.node
        part = by_node[node.vault_id, node.account, node.part]
        unit = Unit(SETTLE, _get_order(outcome), (node.portfolio, node.account, bytes([min(node.part, 255)])), {})
        for series, quantity in zip(part.series, part.quantities, strict=True):
            unit.add(LegKind.POSITION, node.account, series, -quantity)
            if series not in prices:
                prices[series] = context.view.settlement_prices_e8[get_settlement_key(ledger.series[series])]
            unit.prices[series] = prices[series]
        left = abs(outcome.cash)
        for asset in terms.class_assets.get((node.vault_id, quote_class), ()):
            key = (node.vault_id, asset.asset)
            scale = terms.get_scale(asset)
            if outcome.cash < 0:
                # Losers pay exactly what was taken from the budgets: in the same order of tokens.
                spent = _get_spent(context, part.place, asset.asset, scale, taken)
                amount = min(left, spent)
                taken[_spent_key(part.place, asset.asset)] = taken.get(_spent_key(part.place, asset.asset), 0) + amount
                unit.add(LegKind.CASH, node.account, asset.asset, -amount * scale)
            else:
                amount = min(left, pool[key] - paid_out.get(key, 0))
                paid_out[key] = paid_out.get(key, 0) + amount
                unit.add(LegKind.CASH, node.account, asset.asset, amount * scale)
            left -= amount
        assert left == 0, "netting pays what the pools hold"
        unit.add(LegKind.POSITION, node.account, due, outcome.due)
        context.units[node.vault_id].append(unit)
    for key, amount in paid_out.items():
        by_house = max(0, amount - collected.get(key, 0))
        if by_house:
            asset_terms = terms.assets[key]
            context.spend((key[0], HOUSE), key[1], by_house * terms.get_scale(asset_terms))


def _spent_key(place: Place, asset: bytes) -> Key:
    return place[0] + place[1], asset


def _get_spent(context: Context, place: Place, asset: bytes, scale: int, taken: Mapping[Key, int]) -> int:
    """Return what the budgets say this account pays in this token, less what its earlier parts took, class units."""
    before = context.ledger.states[place[0]].free.get((place[1], asset), 0)
    return (before - context.get_free(place, asset)) // scale - taken.get(_spent_key(place, asset), 0)


def _get_order(outcome: Outcome) -> int:
    if outcome.cash < 0:
        return PAYERS
    return RECEIVERS if outcome.cash > 0 else OTHERS


# ---------------------------------------------------------------- losses


def add_insurance(context: Context) -> None:
    """Cover the loss of portfolios that have nothing left but debts (protocol.md 7.2, decision 0013).

    A portfolio without options whose cash and dues in a class sum to less than 0 gets exactly that difference as a due from
    INSURANCE. It is never done for liquidity: as long as a portfolio has worth, its cash is lifted instead.
    """
    ledger = context.ledger
    for portfolio, quote_class in sorted(ledger.dues):
        amount = ledger.dues[portfolio, quote_class]
        if amount >= 0 or portfolio in SYSTEM or quote_class not in context.terms.class_decimals:
            continue
        book = context.get_book(portfolio)
        if any(book.options.values()):
            continue  # what it still holds is for liquidation to sell first
        if (portfolio, quote_class) in context.open.due_gained or portfolio in context.in_liquidation:
            context.note("open_packet_on_portfolio", b"", portfolio, "an open packet may still change what it owes")
            continue
        payment = compute_insurance_payment(get_equity(context, portfolio, quote_class))
        if not payment:
            continue
        if any(
            units > 0 and context.asset_prices[key] and context.terms.assets[key].quote_class != quote_class
            for key, units in book.cash.items()
        ):
            context.note("foreign_collateral", b"", portfolio, "it owes in one class and has cash in another")
            continue
        vault_id, account = _find_debt_place(context, portfolio, quote_class)
        if not vault_id:
            context.note("account_insolvent", b"", portfolio, "the vaults where it owes get no packet now")
            continue
        unit = Unit(INSURE, OTHERS, (portfolio,), {})
        due = context.terms.due_of_class[quote_class]
        unit.add(LegKind.POSITION, account, due, payment)
        unit.add(LegKind.POSITION, INSURANCE, due, -payment)
        context.units[vault_id].append(unit)
        context.in_liquidation.add(portfolio)
        context.insured_classes.add(quote_class)
        context.note("account_insolvent", vault_id, portfolio, f"insurance takes over {payment} units that it owes")


def get_equity(context: Context, portfolio: bytes, quote_class: bytes) -> int:
    """Return cash and dues of a portfolio in a class over all vaults, class units; each token floored to whole units."""
    terms, ledger = context.terms, context.ledger
    places = (
        ledger.portfolios[portfolio].places
        if portfolio in ledger.portfolios
        else tuple((vault_id, portfolio) for vault_id in sorted(ledger.states))
    )
    total = ledger.dues.get((portfolio, quote_class), 0)
    for place in places:
        for asset, units in ledger.cash.get(place, {}).items():
            asset_terms = terms.assets.get((place[0], asset))
            if asset_terms is not None and asset_terms.quote_class == quote_class:
                total += units // terms.get_scale(asset_terms)
    return total


def _find_debt_place(context: Context, portfolio: bytes, quote_class: bytes) -> Place:
    """Return the place of a portfolio with the deepest due whose vault gets packets, ties by id; empty ids if none."""
    due = context.terms.due_of_class[quote_class]
    rows = []
    for vault_id, account in context.ledger.portfolios[portfolio].places:
        state = context.ledger.states[vault_id]
        if due in state.dues and vault_id not in context.blocked:
            rows.append((state.positions.get((account, due), 0), vault_id, account))
    return min(rows)[1:] if rows else (b"", b"")


def add_socialised_loss(context: Context) -> None:
    """Let all portfolios with equity bear what INSURANCE lacks, pro rata, as a due to INSURANCE (protocol.md 7.2).

    INSURANCE holds the loss since it took it over, so charging some now and others later can never charge twice.
    """
    ledger = context.ledger
    for quote_class in sorted(context.terms.class_decimals):
        if (INSURANCE, quote_class) in context.open.due_gained:
            continue  # what is under way may fill the hole already
        if quote_class in context.insured_classes:
            continue  # what this plan takes over is borne with the rest in a later one: a leg of INSURANCE has one purpose
        lacking = -get_equity(context, INSURANCE, quote_class)
        if lacking <= 0:
            continue
        equity = {p: get_equity(context, p, quote_class) for p in ledger.portfolios if p not in context.in_liquidation}
        shares = compute_socialised_shares(lacking, equity)
        due = context.terms.due_of_class[quote_class]
        if not shares:
            context.note("loss_not_covered", b"", INSURANCE, f"nobody is left to bear {lacking} units")
        for portfolio in sorted(shares, key=lambda p: (-shares[p], p)):
            places = [
                (vault_id, account)
                for vault_id, account in ledger.portfolios[portfolio].places
                if vault_id not in context.blocked and due in ledger.states[vault_id].dues
            ]
            if not places:
                continue
            vault_id, account = places[0]
            unit = Unit(SOCIALISE, OTHERS, (portfolio,), {})
            unit.add(LegKind.POSITION, account, due, -shares[portfolio])
            unit.add(LegKind.POSITION, INSURANCE, due, shares[portfolio])
            context.units[vault_id].append(unit)
