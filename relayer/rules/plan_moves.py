"""Step 3 of a plan: cash follows dues (protocol.md 4.3, 7.3). A lift turns cash at X into a due, a land turns a due into cash at Y.

A land spends only dues that facts show, so it is always planned after the Ack of its lift. What open packets may spend is counted
as spent, and what they may bring is not counted.
"""

from __future__ import annotations

from typing import Final

from messages.bodies import LegKind
from messages.documents import AssetParameters
from messages.errors import Rejected
from messages.ids import HOUSE, INSURANCE
from relayer.rules.ledger import OpenRequest, Place
from relayer.rules.plan_context import SYSTEM, TIER_LIMIT, Context, Unit
from relayer.rules.plan_settlement import OTHERS, PAYERS
from relayer.rules.vault_state import REQUEST_LIFE_S

LIFT: Final = "lift"
LAND: Final = "land"
WINDOW_SHARE: Final = 4
"""No move uses more than a quarter of a cap window (protocol.md 7.3)."""


def is_lapsed(context: Context, vault_id: bytes, request: OpenRequest) -> bool:
    """Whether a request is older than a day at its vault's newest proven time: the vault would answer 0 (vault.md 2)."""
    return context.ledger.entries[vault_id].time > request.stamp + REQUEST_LIFE_S


def add_moves(context: Context) -> None:
    """Add lifts against debts, then lands and lifts for open withdrawal requests, requests by (vault id, number)."""
    ledger = context.ledger
    for portfolio, quote_class in sorted(ledger.dues):
        # HOUSE's own due is the other side of all others: it is never lifted.
        if portfolio == HOUSE or quote_class not in context.terms.class_decimals:
            continue
        owed = -ledger.dues[portfolio, quote_class] - context.open.due_gained.get((portfolio, quote_class), 0)
        if owed > 0:
            _lift(context, portfolio, quote_class, owed, "")
    for vault_id in sorted(ledger.states):
        state = ledger.states[vault_id]
        for request in sorted(state.requests.values(), key=lambda r: r.sequence):
            asset = context.terms.assets.get((vault_id, request.asset))
            if asset is None or request.account in SYSTEM or is_lapsed(context, vault_id, request):
                continue
            _serve(context, vault_id, request, asset)


def _serve(context: Context, vault_id: bytes, request: OpenRequest, asset: AssetParameters) -> None:
    """Bring what an account lacks for its request: land what the house owes its portfolio, lift more where it has cash."""
    ledger, terms = context.ledger, context.terms
    place = (vault_id, request.account)
    portfolio = ledger.portfolio_of[place]
    quote_class = asset.quote_class
    scale = terms.get_scale(asset)
    lacking = -(-max(0, request.amount - context.get_free(place, asset.asset)) // scale)
    if not lacking or portfolio in context.in_liquidation:
        return
    if not _is_good_for(context, portfolio, quote_class, lacking, request, vault_id):
        return
    used = context.due_used.get((portfolio, quote_class), 0)
    due = ledger.dues.get((portfolio, quote_class), 0) + context.open.due_spent.get((portfolio, quote_class), 0) - used
    landed = 0
    if due > 0:
        landed = _land(context, place, asset, min(due, lacking), request)
    # What is landed or can be landed needs no lift; what is on its way neither; and what the house could not pay out here is left
    # where it is.
    inventory = context.get_free((vault_id, HOUSE), asset.asset) // scale + landed
    if inventory < lacking and not landed:
        context.note("no_house_inventory", vault_id, request.id, "the house has too little of this token at this vault")
    wanted = min(lacking, inventory) - max(0, due) - context.open.due_gained.get((portfolio, quote_class), 0)
    if wanted > 0 and landed < lacking:
        lifted = _lift(context, portfolio, quote_class, wanted, "request", skip=vault_id)
        if lifted:
            context.note(
                "lift_not_acked",
                vault_id,
                request.id,
                "cash is lifted on another chain; it lands here in a plan after the vault there has answered",
            )


def _is_good_for(
    context: Context, portfolio: bytes, quote_class: bytes, lacking: int, request: OpenRequest, vault_id: bytes
) -> bool:
    """Whether the portfolio would keep IM >= 0 after the withdrawal: nothing is moved for a request that can't be accepted."""
    book = context.get_book(portfolio).copy()
    key = (vault_id, request.asset)
    here = book.cash.get(key, 0)
    book.cash[key] = max(0, here - request.amount)
    book.dues[quote_class] = book.dues.get(quote_class, 0) - lacking
    try:
        flaw = context.get_initial_flaw(book)
    except Rejected as error:
        context.note("price_missing", vault_id, request.id, f"nothing is moved: {error.what}: {error.got}")
        return False
    if flaw:
        context.note(flaw, vault_id, request.id, "the portfolio is not good for this amount")
    return not flaw


def _lift(context: Context, portfolio: bytes, quote_class: bytes, wanted: int, cause: str, *, skip: bytes = b"") -> int:
    """Lift up to ``wanted`` class units from the portfolio's cash, places by id; return what was lifted."""
    ledger, terms = context.ledger, context.terms
    places: tuple[Place, ...] = (
        ledger.portfolios[portfolio].places
        if portfolio in ledger.portfolios
        else tuple((vault_id, portfolio) for vault_id in sorted(ledger.states))
    )
    due = terms.due_of_class[quote_class]
    lifted = 0
    for place in places:
        vault_id, account = place
        if vault_id == skip or not ledger.cash.get(place):
            continue
        if due not in ledger.states[vault_id].dues:
            context.note("due_not_listed", vault_id, account, "no series of this class is listed here: list one")
            continue
        for asset in terms.class_assets.get((vault_id, quote_class), ()):
            if lifted >= wanted:
                return lifted
            amount = _get_liftable(context, place, asset, wanted - lifted)
            if amount <= 0:
                continue
            scale = terms.get_scale(asset)
            if portfolio != INSURANCE and not _keeps_maintenance(context, portfolio, asset, -amount * scale, amount):
                context.note("margin_short", vault_id, account, "a move here would bring maintenance margin below 0")
                continue
            unit = Unit(LIFT, PAYERS, (portfolio, account, asset.asset), {})
            unit.add(LegKind.CASH, account, asset.asset, -amount * scale)
            unit.add(LegKind.POSITION, account, due, amount)
            context.units[vault_id].append(unit)
            context.spend(place, asset.asset, amount * scale)
            lifted += amount
    if lifted < wanted and not cause and portfolio != INSURANCE:
        context.note(
            "owes_house", b"", portfolio, f"{wanted - lifted} units of its debt wait for cash that may be moved"
        )
    return lifted


def _get_liftable(context: Context, place: Place, asset: AssetParameters, wanted: int) -> int:
    """Return how many class units may be lifted from a place, noting what stands in the way."""
    vault_id, account = place
    scale = context.terms.get_scale(asset)
    free = context.get_free(place, asset.asset) // scale
    if free <= 0:
        return 0
    if vault_id in context.blocked:
        return 0
    if not context.is_fresh(vault_id):
        context.note("chain_stalled", vault_id, account, "nothing is lifted from a chain whose state is old")
        return 0
    price_e8 = context.asset_prices[vault_id, asset.asset]
    if not asset.peg_low_e8 <= price_e8 <= asset.peg_high_e8:
        context.note(
            "off_peg", vault_id, account, "the token's price is missing or outside its peg band: cash stays where it is"
        )
        return 0
    house = context.ledger.states[vault_id].free.get((HOUSE, asset.asset), 0)
    room = asset.lift_limit - house - context.lifted.get((vault_id, asset.asset), 0)
    amount = min(free, wanted, room // scale)
    if room // scale < min(free, wanted):
        context.note("lift_limit", vault_id, account, "the house may hold no more of this token here")
    carried = _get_room_of_tier(context, vault_id, asset.quote_class)
    if carried is not None and carried < amount:
        context.note(TIER_LIMIT, vault_id, account, "facts of this tier may not carry more cash of the house here")
        amount = max(0, carried)
    if account not in SYSTEM:
        caps = context.ledger.states[vault_id].caps.get(asset.asset)
        window = 0 if caps is None else min(caps.per_hour, caps.per_day) // WINDOW_SHARE
        allowed = min(window, context.get_debit_limit(place, asset.asset)) // scale
        if allowed < amount:
            context.note("cap_window_full", vault_id, account, "caps let only a part of this move pass now")
            amount = allowed
    if amount > 0:
        key = (vault_id, asset.asset)
        context.lifted[key] = context.lifted.get(key, 0) + amount * scale
    return amount


def _get_room_of_tier(context: Context, vault_id: bytes, quote_class: bytes) -> int | None:
    """Return how many class units the house may still take over at a vault by the tier of its facts; None: as many as it likes.

    What the house holds here is what it owes elsewhere on the word of these facts alone, so it is the stock that is limited.
    """
    limit = context.get_value_limit(vault_id, quote_class)
    if limit is None:
        return None
    held = 0
    for asset in context.terms.class_assets.get((vault_id, quote_class), ()):
        units = context.ledger.states[vault_id].free.get((HOUSE, asset.asset), 0)
        held += (units + context.lifted.get((vault_id, asset.asset), 0)) // context.terms.get_scale(asset)
    return limit - held


def _land(context: Context, place: Place, asset: AssetParameters, wanted: int, request: OpenRequest) -> int:
    """Turn up to ``wanted`` class units of due into cash of an account; return how many."""
    vault_id, account = place
    terms = context.terms
    due = terms.due_of_class[asset.quote_class]
    if vault_id in context.blocked:
        return 0
    if due not in context.ledger.states[vault_id].dues:
        context.note("due_not_listed", vault_id, request.id, "no series of this class is listed here: list one")
        return 0
    scale = terms.get_scale(asset)
    inventory = context.get_free((vault_id, HOUSE), asset.asset) // scale
    amount = min(wanted, inventory)
    if amount < wanted:
        context.note("no_house_inventory", vault_id, request.id, "the house has too little of this token at this vault")
    if amount <= 0:
        return 0
    portfolio = context.ledger.portfolio_of[place]
    if not _keeps_maintenance(context, portfolio, asset, amount * scale, -amount):
        context.note("margin_short", vault_id, request.id, "a move here would bring maintenance margin below 0")
        return 0
    unit = Unit(LAND, OTHERS, (portfolio, account, asset.asset), {})
    unit.add(LegKind.CASH, account, asset.asset, amount * scale)
    unit.add(LegKind.POSITION, account, due, -amount)
    context.units[vault_id].append(unit)
    context.spend((vault_id, HOUSE), asset.asset, amount * scale)
    key = (portfolio, asset.quote_class)
    context.due_used[key] = context.due_used.get(key, 0) + amount
    context.note("landing", vault_id, request.id, "cash lands with this plan; the request is decided in a later one")
    return amount


def _keeps_maintenance(context: Context, portfolio: bytes, asset: AssetParameters, cash: int, due: int) -> bool:
    """Whether MM stays >= 0 after a move; a debt paid with own cash is never stopped (it can't lower MM)."""
    book = context.get_book(portfolio).copy()
    quote_class = asset.quote_class
    if due > 0 and book.dues.get(quote_class, 0) + due <= 0:
        return True
    key = (asset.vault_id, asset.asset)
    book.cash[key] = book.cash.get(key, 0) + cash
    book.dues[quote_class] = book.dues.get(quote_class, 0) + due
    try:
        return context.is_maintenance_good(book)
    except Rejected:
        return False
