"""Netting of expiry results in one currency: who pays cash, who gets cash, what becomes a due (protocol.md 7.2). Pure integers.

A node is what one account wins (+) or loses (-) at one vault. Losers pay in cash as far as they have it there; the rest is their
negative due, and the house pays in their place as far as its inventory there goes. A winner that owes elsewhere takes a due instead
of cash, so that the same portfolio's results on two chains cancel without a transfer. Winners who can't be paid in cash get a
due, pro rata. Nothing is dropped: cash + due of a node is exactly its result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """Result of one account at one vault, class units. ``cash``: what it can pay there in cash now (losers only)."""

    portfolio: bytes
    vault_id: bytes
    account: bytes
    part: int
    """Number of the part, where the series of one account are settled in several (0 else)."""
    result: int
    cash: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a node gets: cash + due = result of the node."""

    node: Node
    cash: int
    due: int


@dataclass(frozen=True, slots=True)
class NettingStatistics:
    """Gross against net, class units: what people look at (product.md)."""

    gross: int
    """Sum of all positive payoffs, position by position: what would move if every position were paid alone."""
    gross_transfers: int
    """Positions with a payoff."""
    net: int
    """Cash that changes hands at the vaults: the larger of all debits and all credits."""
    net_transfers: int
    """Cash legs of accounts."""
    dues: int
    """Sum of new claims on the house."""


@dataclass(frozen=True, slots=True)
class Netting:
    """Outcomes in canonical order (portfolio, vault, account, part) and what the house puts in (+) per vault."""

    outcomes: tuple[Outcome, ...]
    house_paid: Mapping[bytes, int]


def compute_netting(nodes: Sequence[Node], dues: Mapping[bytes, int], house_cash: Mapping[bytes, int]) -> Netting:
    """Net the results of one class.

    Args:
        nodes: any order; one per (vault, account, part). Results in class units; for a loser ``cash`` >= 0.
        dues: by portfolio, its due over all vaults before this plan, class units.
        house_cash: by vault, what the house can put in there, class units >= 0.

    Returns:
        For every node cash + due = result. Per vault: sum of cash <= house cash spent, i.e. the house never pays more than it
        has there.
    """
    ordered = sorted(nodes, key=lambda n: (n.portfolio, n.vault_id, n.account, n.part))
    paid: dict[int, int] = {}
    owes: dict[bytes, int] = {}
    for index, node in enumerate(ordered):
        if node.result < 0:
            paid[index] = min(node.cash, -node.result)
            owes[node.portfolio] = owes.get(node.portfolio, 0) - node.result - paid[index]
    # What a portfolio owes elsewhere: new shortfalls and older debts, less what the house owes it already.
    for node in ordered:
        owes.setdefault(node.portfolio, 0)
    owes = {portfolio: max(0, amount - dues.get(portfolio, 0)) for portfolio, amount in owes.items()}
    wants: dict[int, int] = {}
    winners = sorted(
        (i for i, n in enumerate(ordered) if n.result > 0),
        # portfolios by id; surplus vaults largest first, tie by id (protocol.md 7.2)
        key=lambda i: (ordered[i].portfolio, -ordered[i].result, ordered[i].vault_id, ordered[i].account, i),
    )
    for index in winners:
        node = ordered[index]
        instead = min(owes[node.portfolio], node.result)
        owes[node.portfolio] -= instead
        wants[index] = node.result - instead
    pool = dict(house_cash)
    demand: dict[bytes, int] = {}
    for index, node in enumerate(ordered):
        if node.result < 0:
            pool[node.vault_id] = pool.get(node.vault_id, 0) + paid[index]
        elif node.result > 0:
            demand[node.vault_id] = demand.get(node.vault_id, 0) + wants[index]
    outcomes: list[Outcome] = []
    house: dict[bytes, int] = {}
    for index, node in enumerate(ordered):
        if node.result < 0:
            cash = -paid[index]
        elif node.result > 0:
            there, asked = pool.get(node.vault_id, 0), demand[node.vault_id]
            # Receivers down; what rounding leaves stays with the house (protocol.md 7).
            cash = wants[index] if there >= asked else wants[index] * there // asked
        else:
            cash = 0
        outcomes.append(Outcome(node, cash, node.result - cash))
        house[node.vault_id] = house.get(node.vault_id, 0) + cash
    return Netting(tuple(outcomes), house)


def compute_statistics(payoffs: Sequence[int], netting: Netting) -> NettingStatistics:
    """Compare position-by-position payment with what the netting moves; ``payoffs`` are those of single positions."""
    received = sum(o.cash for o in netting.outcomes if o.cash > 0)
    debits = -sum(o.cash for o in netting.outcomes if o.cash < 0)
    return NettingStatistics(
        gross=sum(p for p in payoffs if p > 0),
        gross_transfers=sum(1 for p in payoffs if p),
        net=max(received, debits),
        net_transfers=sum(1 for o in netting.outcomes if o.cash),
        dues=sum(o.due for o in netting.outcomes if o.due > 0),
    )


# ---------------------------------------------------------------- losses


def compute_insurance_payment(worth: int) -> int:
    """Return what insurance pays for a portfolio of this worth at settlement prices: max(0, -worth), never for liquidity."""
    return max(0, -worth)


def compute_socialised_shares(loss: int, equity: Mapping[bytes, int]) -> dict[bytes, int]:
    """Split what insurance lacks over the portfolios with positive equity, pro rata.

    Args:
        loss: class units > 0.
        equity: by portfolio, its cash and dues in the class over all vaults, class units.

    Returns:
        Shares > 0, each rounded up (payers round up) and at most the equity; together >= loss wherever equity suffices.
    """
    bearing = {portfolio: amount for portfolio, amount in sorted(equity.items()) if amount > 0}
    total = sum(bearing.values())
    if loss <= 0 or total == 0:
        return {}
    return {p: min(amount, -(-loss * amount // total)) for p, amount in bearing.items()}
