"""Rows for people: positions, margin apart and together, packets. Plain frozen dataclasses, amounts in base units, no formatting."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from messages.bodies import (
    WIDEST_LIMITS,
    DecideTrades,
    DecideWithdrawals,
    Execute,
    SeriesDefinition,
    decode_inbox_body,
)
from messages.documents import MarketSnapshot, OpenPackets, Parameters
from messages.errors import Rejected
from messages.ids import HOUSE, INSURANCE
from messages.outbox import TrustTier
from relayer.rules.ledger import Ledger, compute_backing
from relayer.rules.lifecycle import PacketState, is_proven_absent
from relayer.rules.margin.model import MarginResult, compute_limited_margin, to_units_floor
from relayer.rules.margin.numbers import FLOAT
from relayer.rules.plan_context import Book, Context


@dataclass(frozen=True, slots=True)
class PositionRow:
    """One holding of one account: cash (free, claimable), an option series, or a due. Tier and time say how it is known."""

    portfolio: bytes
    vault_id: bytes
    account: bytes
    kind: str
    """"cash", "claimable", "option" or "due"."""
    item: bytes
    """Asset, series or class."""
    amount: int
    decimals: int
    definition: SeriesDefinition | None
    tier: TrustTier
    height: int
    time: int


def get_positions(ledger: Ledger, parameters: Parameters, portfolio: bytes | None = None) -> tuple[PositionRow, ...]:
    """Return every holding, or those of one portfolio, ascending by (portfolio, vault, account, kind, item).

    Decimals of options are 8; those of an asset that the parameters do not name are -1 (unknown).
    """
    decimals = {(a.vault_id, a.asset): a.decimals for a in parameters.assets}
    classes = {c.quote_class: c.decimals for c in parameters.classes}
    rows: list[PositionRow] = []
    for vault_id, state in ledger.states.items():
        entry = ledger.entries[vault_id]

        def add(
            account: bytes,
            kind: str,
            item: bytes,
            amount: int,
            places: int,
            definition: SeriesDefinition | None = None,
            vault_id: bytes = vault_id,
            tier: TrustTier = state.tier,
            height: int = entry.height,
            time: int = entry.time,
        ) -> None:
            owner = ledger.portfolio_of.get((vault_id, account), account)
            if portfolio is None or owner == portfolio:
                rows.append(
                    PositionRow(owner, vault_id, account, kind, item, amount, places, definition, tier, height, time)
                )

        for (account, asset), amount in state.free.items():
            add(account, "cash", asset, amount, decimals.get((vault_id, asset), -1))
        for (account, asset), amount in state.claimable.items():
            add(account, "claimable", asset, amount, decimals.get((vault_id, asset), -1))
        for (account, series), amount in state.positions.items():
            quote_class = state.dues.get(series)
            if quote_class is None:
                add(account, "option", series, amount, 8, state.series.get(series))
            else:
                add(account, "due", quote_class, amount, classes.get(quote_class, -1))
    return tuple(sorted(rows, key=lambda r: (r.portfolio, r.vault_id, r.account, r.kind, r.item)))


@dataclass(frozen=True, slots=True)
class MarginRow:
    """Margin of one portfolio in units of the account currency; None where a price is missing (``frozen`` says which)."""

    portfolio: bytes
    vault_id: bytes
    """Empty: over all vaults together. Else: what this vault alone would ask."""
    initial: int | None
    maintenance: int | None
    equity: int | None
    frozen: str


@dataclass(frozen=True, slots=True)
class MarginView:
    """Margin apart (each vault alone) against together, and what standing together saves."""

    portfolio: bytes
    decimals: int
    together: MarginRow
    apart: tuple[MarginRow, ...]
    saved: int | None
    """Initial margin that the vaults alone would still need (sum of their shortfalls) less what is needed together."""


def compute_margin_view(ledger: Ledger, market: MarketSnapshot, parameters: Parameters, portfolio: bytes) -> MarginView:
    """Return the margin of a portfolio per vault and together.

    Raises:
        Rejected: no such portfolio ("unknown_portfolio").
    """
    if portfolio not in ledger.portfolios:
        raise Rejected("no account belongs to this portfolio", got=portfolio, reason="unknown_portfolio")
    context = Context(ledger, market, parameters, OpenPackets(()))
    decimals = context.terms.class_decimals[context.currency]
    together = _compute_row(context, portfolio, b"", context.get_book(portfolio), decimals)
    places = ledger.portfolios[portfolio].places
    apart = []
    for vault_id in sorted({place[0] for place in places}):
        here = [place for place in places if place[0] == vault_id]
        book = context.make_book(here, context.get_place_dues(here))
        apart.append(_compute_row(context, portfolio, vault_id, book, decimals))
    saved = None
    if together.initial is not None and all(row.initial is not None for row in apart):
        saved = sum(max(0, -(row.initial or 0)) for row in apart) - max(0, -together.initial)
    return MarginView(portfolio, decimals, together, tuple(apart), saved)


def _compute_row(context: Context, portfolio: bytes, vault_id: bytes, book: Book, decimals: int) -> MarginRow:
    try:
        result: MarginResult[float] = compute_limited_margin(
            context.model, context.make_holdings(book), context.view, context.margin, FLOAT
        )
    except Rejected as error:
        return MarginRow(portfolio, vault_id, None, None, None, str(error.got or error.what))
    initial, maintenance = to_units_floor(result, decimals)
    # For people: equity is shown in whole units, floored as the other two.
    equity = int(result.equity * 10**decimals // 1)
    return MarginRow(portfolio, vault_id, initial, maintenance, equity, "")


@dataclass(frozen=True, slots=True)
class PacketRow:
    """One inbox packet: what it is for, where it stands. ``reason`` is the vault's, when refused."""

    vault_id: bytes
    sequence: int
    kind: str
    legs: int
    items: int
    timeout: int
    state: PacketState
    plan_digest: bytes


def get_open_rows(
    ledger: Ledger, open_packets: OpenPackets, sent: Iterable[tuple[bytes, int]] = ()
) -> tuple[PacketRow, ...]:
    """Return a row for every listed open packet, in order; ``sent``: (vault id, number) with a stored transaction."""
    known = set(sent)
    rows = []
    for packet in open_packets.packets:
        body = decode_inbox_body(packet.value, WIDEST_LIMITS)
        vault = ledger.states[packet.vault_id]
        state = PacketState.SENT if (packet.vault_id, packet.sequence) in known else PacketState.CERTIFIED
        if packet.sequence <= vault.inbox_sequence:
            refused = {note.sequence for note in vault.refusals}
            state = PacketState.REFUSED if packet.sequence in refused else PacketState.ACKNOWLEDGED
        elif is_proven_absent(
            packet.sequence, packet.timeout, vault.inbox_sequence, ledger.entries[packet.vault_id].time
        ):
            state = PacketState.ABSENT
        rows.append(
            PacketRow(
                packet.vault_id,
                packet.sequence,
                type(body).__name__,
                len(body.legs) if isinstance(body, Execute) else 0,
                len(body.items) if isinstance(body, DecideTrades | DecideWithdrawals) else 0,
                packet.timeout,
                state,
                packet.plan_digest,
            )
        )
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class VaultRow:
    """One vault at the cut: what it holds against what it owes, and where its cursors stand."""

    vault_id: bytes
    asset: bytes
    held: int
    """Deposited less claimed, base units."""
    owed: int
    """Free and claimable of everybody: equal to ``held``, or conservation is broken."""
    house: int
    insurance: int


def get_vault_rows(ledger: Ledger) -> tuple[VaultRow, ...]:
    """Return one row per vault and asset, ascending."""
    rows = []
    for vault_id in sorted(ledger.states):
        state = ledger.states[vault_id]
        owed: dict[bytes, int] = {}
        for table in (state.free, state.claimable):
            for (_, asset), amount in table.items():
                owed[asset] = owed.get(asset, 0) + amount
        rows += [
            VaultRow(
                vault_id,
                asset,
                state.deposited.get(asset, 0) - state.claimed.get(asset, 0),
                owed.get(asset, 0),
                state.free.get((HOUSE, asset), 0),
                state.free.get((INSURANCE, asset), 0),
            )
            for asset in sorted(owed.keys() | state.deposited.keys())
        ]
    return tuple(rows)


__all__ = [
    "MarginRow",
    "MarginView",
    "PacketRow",
    "PositionRow",
    "VaultRow",
    "compute_backing",
    "compute_margin_view",
    "get_open_rows",
    "get_positions",
    "get_vault_rows",
]
