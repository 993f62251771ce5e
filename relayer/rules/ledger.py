"""The ledger: what all vaults say together at one cut (protocol.md 5, 6). A pure function of facts.

Vaults are folded alone (`vault_state`), then combined here, so the order between chains never matters. HOUSE and INSURANCE are
one portfolio each over all vaults; every other account belongs to the portfolio of its first valid link, or is its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from messages.bodies import SeriesDefinition
from messages.documents import AssetParameters, Cut, CutEntry, Parameters, VaultParameters, compute_digest
from messages.errors import Conflict, Rejected
from messages.hashing import keccak256
from messages.ids import HOUSE, INSURANCE, compute_due_id, compute_own_portfolio
from relayer.rules.prices import SettlementKey, get_settlement_key
from relayer.rules.snapshot import compute_state_digest, decode_vault_state, encode_vault_state
from relayer.rules.vault_state import (
    Caps,
    Key,
    LinkRecord,
    Note,
    OpenRequest,
    OpenTrade,
    RecentDeposit,
    VaultState,
    Window,
    apply_fact,
    apply_facts,
    get_expected_tier,
    get_initial_state,
    get_room,
    get_state_at,
    get_used,
    get_vault_id,
)

__all__ = [
    "HOUSE_PORTFOLIO",
    "INSURANCE_PORTFOLIO",
    "Backing",
    "Caps",
    "Key",
    "Ledger",
    "LinkRecord",
    "Note",
    "OpenRequest",
    "OpenTrade",
    "Place",
    "Portfolio",
    "RecentDeposit",
    "Terms",
    "VaultState",
    "Window",
    "apply_fact",
    "apply_facts",
    "compute_backing",
    "compute_ledger",
    "compute_ledger_digest",
    "compute_state_digest",
    "decode_vault_state",
    "encode_vault_state",
    "get_expected_tier",
    "get_initial_state",
    "get_room",
    "get_state_at",
    "get_terms",
    "get_used",
    "get_vault_id",
    "verify_conservation",
]

HOUSE_PORTFOLIO: Final = HOUSE
INSURANCE_PORTFOLIO: Final = INSURANCE
_SYSTEM: Final[tuple[bytes, ...]] = (HOUSE, INSURANCE)

Place = tuple[bytes, bytes]
"""(vault id, account): one account at one vault."""


@dataclass(frozen=True, slots=True)
class Portfolio:
    """One margin account over all chains: its places ascend by (vault id, account)."""

    id: bytes
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """Parameters in the shape rules ask for them. Vaults by id, assets by (vault id, asset), classes by name."""

    vaults: Mapping[bytes, VaultParameters]
    assets: Mapping[Key, AssetParameters]
    class_assets: Mapping[Key, tuple[AssetParameters, ...]]
    """Assets of a class at a vault, by (vault id, class), ascending by asset."""
    class_decimals: Mapping[bytes, int]
    class_of_due: Mapping[bytes, bytes]
    due_of_class: Mapping[bytes, bytes]

    def get_scale(self, asset: AssetParameters) -> int:
        """Return how many base units of the asset make one unit of its class."""
        scale: int = 10 ** (asset.decimals - self.class_decimals[asset.quote_class])
        return scale


@lru_cache(maxsize=8)
def get_terms(parameters: Parameters) -> Terms:
    """Return the parameters as tables; those in force are asked for many times a plan.

    Raises:
        Rejected: something is named twice, an asset is of an unknown vault or class, or finer than it may be ("bad_parameters").
    """
    vaults: dict[bytes, VaultParameters] = {}
    for vault in parameters.vaults:
        if vaults.setdefault(get_vault_id(vault), vault) is not vault:
            raise Rejected("a vault is named twice", got=vault.chain, reason="bad_parameters")
    decimals: dict[bytes, int] = {}
    for item in parameters.classes:
        if item.quote_class in decimals:
            raise Rejected("a class is named twice", got=item.quote_class, reason="bad_parameters")
        decimals[item.quote_class] = item.decimals
    if not decimals:
        raise Rejected("parameters name no class: the first one is the account currency", reason="bad_parameters")
    if len({item.model for item in parameters.underlyings}) > 1:
        raise Rejected(
            "one portfolio is margined by one model", got=len(parameters.underlyings), reason="bad_parameters"
        )
    assets: dict[Key, AssetParameters] = {}
    by_class: dict[Key, list[AssetParameters]] = {}
    for asset in parameters.assets:
        if asset.vault_id not in vaults or asset.quote_class not in decimals:
            raise Rejected("an asset of an unknown vault or class", got=asset.caip19, reason="bad_parameters")
        if not decimals[asset.quote_class] <= asset.decimals <= 36:
            raise Rejected("the class unit is that of its coarsest token", got=asset.caip19, reason="bad_parameters")
        if (asset.vault_id, asset.asset) in assets:
            raise Rejected("an asset is named twice", got=asset.caip19, reason="bad_parameters")
        assets[asset.vault_id, asset.asset] = asset
        by_class.setdefault((asset.vault_id, asset.quote_class), []).append(asset)
    return Terms(
        vaults,
        assets,
        {k: tuple(sorted(v, key=lambda a: a.asset)) for k, v in by_class.items()},
        decimals,
        {compute_due_id(c): c for c in decimals},
        {c: compute_due_id(c) for c in decimals},
    )


@dataclass(frozen=True, slots=True)
class Ledger:
    """All vaults at one cut. Treat the mappings as read-only.

    states: by vault id, control changes in force at the time of the cut entry. portfolios: without HOUSE and INSURANCE.
    cash and positions: per place, asset or series -> amount (positions without dues). dues: (portfolio, class) -> sum over
    all vaults in class units, HOUSE and INSURANCE included. prices_e8: settlement prices that acknowledged packets fixed.
    """

    cut: Cut
    entries: Mapping[bytes, CutEntry]
    states: Mapping[bytes, VaultState]
    portfolios: Mapping[bytes, Portfolio]
    portfolio_of: Mapping[Place, bytes]
    cash: Mapping[Place, Mapping[bytes, int]]
    positions: Mapping[Place, Mapping[bytes, int]]
    dues: Mapping[Key, int]
    series: Mapping[bytes, SeriesDefinition]
    prices_e8: Mapping[SettlementKey, int]


def compute_ledger(states: Mapping[bytes, VaultState], cut: Cut, parameters: Parameters) -> Ledger:
    """Combine the states of all vaults at a cut.

    Args:
        states: by vault id, each folded exactly up to its cut entry.
        cut: ascending by vault id, one entry for every vault of the parameters.
        parameters: in force.

    Raises:
        Rejected: cut and states do not fit together ("cut_mismatch"), or parameters are unsound ("bad_parameters").
        Conflict: two vaults have different settlement prices on record ("two_prices").
    """
    terms = get_terms(parameters)
    ids = [entry.vault_id for entry in cut.entries]
    if ids != sorted(terms.vaults):
        raise Rejected(
            "a cut has one entry for each vault of the parameters, ascending", got=len(ids), reason="cut_mismatch"
        )
    at: dict[bytes, VaultState] = {}
    for entry in cut.entries:
        state = states.get(entry.vault_id)
        got = None if state is None else (state.outbox_sequence, state.outbox_head)
        if state is None or got != (entry.outbox_sequence, entry.outbox_head):
            raise Rejected(
                "a state is not folded to its cut entry", got=got, expected=entry.outbox_sequence, reason="cut_mismatch"
            )
        at[entry.vault_id] = get_state_at(state, entry.time)

    portfolio_of: dict[Place, bytes] = {}
    members: dict[bytes, list[Place]] = {}
    cash: dict[Place, dict[bytes, int]] = {}
    positions: dict[Place, dict[bytes, int]] = {}
    dues: dict[Key, int] = {}
    series: dict[bytes, SeriesDefinition] = {}
    prices: dict[SettlementKey, int] = {}

    def get_portfolio(state: VaultState, account: bytes) -> bytes:
        place = (state.vault_id, account)
        portfolio = portfolio_of.get(place)
        if portfolio is None:
            if account in _SYSTEM:
                portfolio = account
            else:
                link = state.links.get(account)
                portfolio = link.portfolio if link else compute_own_portfolio(state.vault_id, account)
                members.setdefault(portfolio, []).append(place)
            portfolio_of[place] = portfolio
        return portfolio

    for vault_id in ids:
        state = at[vault_id]
        series.update(state.series)
        for series_id, price_e8 in state.prices.items():
            definition = state.series.get(series_id)
            if definition is not None:
                key = get_settlement_key(definition)
                if prices.setdefault(key, price_e8) != price_e8:
                    raise Conflict(
                        "two vaults settled one expiry at different prices",
                        got=price_e8,
                        expected=prices[key],
                        reason="two_prices",
                    )
        for account in state.links:
            get_portfolio(state, account)
        for (account, asset), amount in state.free.items():
            get_portfolio(state, account)
            cash.setdefault((vault_id, account), {})[asset] = amount
        for (account, series_id), amount in state.positions.items():
            portfolio = get_portfolio(state, account)
            quote_class = state.dues.get(series_id)
            if quote_class is None:
                positions.setdefault((vault_id, account), {})[series_id] = amount
            else:
                dues[portfolio, quote_class] = dues.get((portfolio, quote_class), 0) + amount
        for trade in state.trades.values():
            get_portfolio(state, trade.buyer)
            get_portfolio(state, trade.seller)
        for request in state.requests.values():
            get_portfolio(state, request.account)
    return Ledger(
        cut=cut,
        entries={entry.vault_id: entry for entry in cut.entries},
        states=at,
        portfolios={p: Portfolio(p, tuple(sorted(members[p]))) for p in sorted(members)},
        portfolio_of=portfolio_of,
        cash=cash,
        positions=positions,
        dues={key: amount for key, amount in dues.items() if amount},
        series=series,
        prices_e8=prices,
    )


def compute_ledger_digest(ledger: Ledger) -> bytes:
    """Return keccak256(digest of the cut || state digests ascending by vault id): portfolios follow from these."""
    parts = [compute_digest(ledger.cut)]
    parts += [compute_state_digest(ledger.states[vault_id]) for vault_id in sorted(ledger.states)]
    return keccak256(b"".join(parts))


# ---------------------------------------------------------------- conservation


@dataclass(frozen=True, slots=True)
class Backing:
    """What stands behind the dues the house owes in one class, class units over all vaults (protocol.md 4.3).

    surplus = house cash + dues owed to it + insurance cash + what insurance lacks - dues it owes. What insurance lacks is borne
    by all portfolios (7.2) and is under way until their dues show it. INSURANCE's own due is a claim inside the house and cancels
    out. Cash is counted at par, below one class unit not at all.
    """

    quote_class: bytes
    house_cash: int
    insurance: int
    insurance_due: int
    owed_to_house: int
    owed_by_house: int
    surplus: int


def compute_backing(states: Mapping[bytes, VaultState], parameters: Parameters) -> dict[bytes, Backing]:
    """Return the backing per class over all vaults; every portfolio's due counts, solvent or not."""
    terms = get_terms(parameters)
    cash: dict[Key, int] = {}
    dues: dict[Key, int] = {}
    for vault_id, state in states.items():
        for account in _SYSTEM:
            for quote_class in terms.class_decimals:
                for asset in terms.class_assets.get((vault_id, quote_class), ()):
                    units = state.free.get((account, asset.asset), 0) // terms.get_scale(asset)
                    cash[account, quote_class] = cash.get((account, quote_class), 0) + units
        for (account, series_id), amount in state.positions.items():
            due_class = state.dues.get(series_id)
            if due_class is None or account == HOUSE:
                continue
            # Only the sum over all vaults of a portfolio's due has a meaning.
            portfolio: bytes = account
            if account != INSURANCE:
                link = state.links.get(account)
                portfolio = link.portfolio if link else compute_own_portfolio(vault_id, account)
            dues[portfolio, due_class] = dues.get((portfolio, due_class), 0) + amount
    out: dict[bytes, Backing] = {}
    for quote_class in sorted(terms.class_decimals):
        sums = [amount for (who, c), amount in dues.items() if c == quote_class and who != INSURANCE]
        owed_to = -sum(amount for amount in sums if amount < 0)
        owed_by = sum(amount for amount in sums if amount > 0)
        insurance, insurance_due = cash.get((INSURANCE, quote_class), 0), dues.get((INSURANCE, quote_class), 0)
        house = cash.get((HOUSE, quote_class), 0)
        lacking = max(0, -insurance - insurance_due)
        surplus = house + owed_to + insurance + lacking - owed_by
        out[quote_class] = Backing(quote_class, house, insurance, insurance_due, owed_to, owed_by, surplus)
    return out


def verify_conservation(states: Mapping[bytes, VaultState], parameters: Parameters) -> None:
    """Check after every fold that nothing was made or lost (protocol.md 6).

    Per vault and asset: free + claimable = deposited - claimed. Per vault and series (dues included): positions sum to 0.
    No vault said what a right vault can't say. Over all vaults: what the house owes is backed, in every class in which the house
    holds no option itself (what those are worth is a matter of margin, decision 0011).

    Raises:
        Conflict: one unit of difference; got and expected are the two sums; halt and tell a human.
    """
    open_classes: set[bytes] = set()
    for vault_id in sorted(states):
        state = states[vault_id]
        if state.contradictions:
            first = state.contradictions[0]
            raise Conflict(
                f"vault 0x{vault_id.hex()} did what no right vault can do at packet {first.sequence}",
                got=first.reason,
                reason="contradiction",
            )
        held: dict[bytes, int] = {}
        for table in (state.free, state.claimable):
            for (_, asset), amount in table.items():
                if amount < 0:
                    raise Conflict("a balance is negative", got=amount, expected=">= 0", reason="conservation")
                held[asset] = held.get(asset, 0) + amount
        for asset in sorted(held.keys() | state.deposited.keys()):
            expected = state.deposited.get(asset, 0) - state.claimed.get(asset, 0)
            if held.get(asset, 0) != expected:
                raise Conflict(
                    f"balances of asset 0x{asset.hex()} at vault 0x{vault_id.hex()} are not what it holds",
                    got=held.get(asset, 0),
                    expected=expected,
                    reason="conservation",
                )
        sums: dict[bytes, int] = {}
        for (account, series_id), amount in state.positions.items():
            sums[series_id] = sums.get(series_id, 0) + amount
            if account == HOUSE and series_id in state.series:
                open_classes.add(state.series[series_id].quote_class)
        for series_id in sorted(sums):
            if sums[series_id]:
                raise Conflict(
                    f"positions in series 0x{series_id.hex()} at vault 0x{vault_id.hex()} do not sum to 0",
                    got=sums[series_id],
                    expected=0,
                    reason="conservation",
                )
    for quote_class, backing in compute_backing(states, parameters).items():
        if backing.surplus < 0 and quote_class not in open_classes:
            raise Conflict(
                "the house owes more than stands behind it: fund HOUSE or INSURANCE",
                got=backing.surplus,
                expected=">= 0",
                reason="backing",
            )
