"""What the steps of a plan share: open packets, budgets, margin of portfolios, and the units that packing puts into packets.

Everything here is a pure function of (ledger, market, parameters, open packets); budgets are the only thing that steps change, in the
order of protocol.md 7, so that a later step never spends what an earlier one has spent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from messages.bodies import (
    WIDEST_LIMITS,
    DecideTrades,
    DecideWithdrawals,
    Execute,
    InboxBody,
    LegKind,
    decode_inbox_body,
)
from messages.documents import FamilyParameters, MarketSnapshot, OpenPacket, OpenPackets, Parameters
from messages.errors import Conflict, Rejected
from messages.ids import HOUSE, INSURANCE
from relayer.rules.ledger import (
    Key,
    Ledger,
    OpenRequest,
    OpenTrade,
    Place,
    RecentDeposit,
    Terms,
    VaultState,
    get_room,
    get_terms,
)
from relayer.rules.lifecycle import is_proven_absent
from relayer.rules.margin.model import (
    PAR_E8,
    CashHolding,
    ChainPart,
    DueHolding,
    Holdings,
    MarginModel,
    MarginParameters,
    MarginResult,
    MarketView,
    OptionHolding,
    compute_limited_margin,
    get_model,
    is_initial_met,
    is_maintenance_met,
    verify_margin_parameters,
)
from relayer.rules.margin.numbers import DECIMAL
from relayer.rules.margin.tiers import TierTerms
from relayer.rules.market import compute_asset_prices, compute_market_view
from relayer.rules.prices import Action, SettlementKey, get_settlement_key

SYSTEM: Final[tuple[bytes, ...]] = (HOUSE, INSURANCE)
MARGIN_SHORT: Final = "margin_short"
TIER_LIMIT: Final = "tier_limit"
MAX_OPEN_PACKETS: Final = 4_096
MINIMUM_LEGS: Final = 8
"""Halving after absences stops here: a position leg, a cash leg and a due leg with the house's against each, and room for one more."""

LegKey = tuple[int, bytes, bytes]
"""(kind, account, asset or series)."""


@dataclass(frozen=True, slots=True)
class PlanNote:
    """Why something was not done: stable code, vault, what it is about (trade, request, series, portfolio id), one sentence."""

    code: str
    vault_id: bytes
    subject: bytes
    text: str


@dataclass
class Unit:
    """Legs that belong into one packet, without those of HOUSE: alone it changes nobody's worth but by its purpose."""

    purpose: str
    order: int
    """Payers before receivers, so that the house is paid before it pays."""
    key: tuple[bytes, ...]
    legs: dict[LegKey, int]
    prices: dict[bytes, int] = field(default_factory=dict)

    def add(self, kind: LegKind, account: bytes, item: bytes, delta: int) -> None:
        """Add to a leg; legs of 0 are dropped when packed."""
        leg = (int(kind), account, item)
        self.legs[leg] = self.legs.get(leg, 0) + delta


# ---------------------------------------------------------------- open packets


@dataclass(frozen=True)
class OpenView:
    """Open packets as a plan sees them: packets whose Ack or absence the cut shows are not open any more."""

    bodies: tuple[tuple[OpenPacket, InboxBody], ...]
    sequence_of: Mapping[bytes, int]
    """The first open number by vault: a vault with an open packet gets no new one (protocol.md 8.3)."""
    absences: Mapping[bytes, int]
    """How often the next number of a vault was proven absent."""
    prices_e8: Mapping[SettlementKey, int]
    trades: tuple[tuple[bytes, OpenTrade], ...]
    requests: tuple[tuple[bytes, OpenRequest], ...]
    due_gained: Mapping[Key, int]
    due_spent: Mapping[Key, int]
    """Sums of positive and of negative due legs by (portfolio, class): what may happen and must not be counted on twice."""
    burdened: frozenset[bytes]
    """Portfolios with an open liquidation or insurance leg: they get no other."""


def is_absent(packet: OpenPacket, ledger: Ledger) -> bool:
    """Whether the cut proves that a packet never takes effect: its state has time >= timeout and no Ack (protocol.md 2)."""
    state, entry = ledger.states[packet.vault_id], ledger.entries[packet.vault_id]
    return is_proven_absent(packet.sequence, packet.timeout, state.inbox_sequence, entry.time)


def is_answered(packet: OpenPacket, ledger: Ledger) -> bool:
    """Whether the cut shows the Ack of a packet's number."""
    return packet.sequence <= ledger.states[packet.vault_id].inbox_sequence


def get_open_view(ledger: Ledger, open_packets: OpenPackets) -> OpenView:
    """Read the list of open packets at a cut.

    Raises:
        Rejected: not in order, an unknown vault, a body that does not decode: the proposal is unsound ("bad_open_packets").
        Conflict: an open packet carries another settlement price than one on record ("two_prices").
    """
    packets = open_packets.packets
    keys = [(p.vault_id, p.sequence, p.timeout, p.plan_digest) for p in packets]
    if len(packets) > MAX_OPEN_PACKETS or keys != sorted(set(keys)) or any(k[0] not in ledger.states for k in keys):
        raise Rejected("open packets are not a list in order", got=len(packets), reason="bad_open_packets")
    bodies: list[tuple[OpenPacket, InboxBody]] = []
    sequence_of: dict[bytes, int] = {}
    absences: dict[bytes, int] = {}
    prices: dict[SettlementKey, int] = dict(ledger.prices_e8)
    trades: list[tuple[bytes, OpenTrade]] = []
    requests: list[tuple[bytes, OpenRequest]] = []
    gained: dict[Key, int] = {}
    spent: dict[Key, int] = {}
    burdened: set[bytes] = set()
    for packet in packets:
        state = ledger.states[packet.vault_id]
        if is_answered(packet, ledger):
            continue
        if is_absent(packet, ledger):
            if packet.sequence == state.inbox_sequence + 1:
                absences[packet.vault_id] = absences.get(packet.vault_id, 0) + 1
            continue
        try:
            body = decode_inbox_body(packet.value, WIDEST_LIMITS)
        except Rejected as error:
            raise Rejected("an open packet has no body", got=error.what, reason="bad_open_packets") from error
        bodies.append((packet, body))
        sequence_of.setdefault(packet.vault_id, packet.sequence)
        if isinstance(body, DecideTrades):
            for item in body.items:
                trade = state.trades.get((item.taker, item.offer, item.nonce))
                if trade is not None and trade.id == item.id:
                    trades.append((packet.vault_id, trade))
        elif isinstance(body, DecideWithdrawals):
            for wanted in body.items:
                request = state.requests.get((wanted.account, wanted.asset))
                if request is not None and request.id == wanted.id:
                    requests.append((packet.vault_id, request))
        elif isinstance(body, Execute):
            _read_execute(ledger, state, body, prices, gained, spent, burdened)
    return OpenView(
        tuple(bodies),
        sequence_of,
        absences,
        prices,
        tuple(trades),
        tuple(requests),
        gained,
        spent,
        frozenset(burdened),
    )


def _read_execute(
    ledger: Ledger,
    state: VaultState,
    body: Execute,
    prices: dict[SettlementKey, int],
    gained: dict[Key, int],
    spent: dict[Key, int],
    burdened: set[bytes],
) -> None:
    for price in body.prices:
        definition = state.series.get(price.series)
        if definition is not None:
            key = get_settlement_key(definition)
            if prices.setdefault(key, price.price_e8) != price.price_e8:
                raise Conflict(
                    "an open packet settles at another price than one on record",
                    got=price.price_e8,
                    expected=prices[key],
                    reason="two_prices",
                )
    priced = {price.series for price in body.prices}
    insured = any(leg.account == INSURANCE for leg in body.legs)
    for leg in body.legs:
        if leg.kind != LegKind.POSITION:
            continue
        portfolio = ledger.portfolio_of.get((state.vault_id, leg.account), leg.account)
        quote_class = state.dues.get(leg.id)
        if quote_class is not None:
            table = gained if leg.delta > 0 else spent
            table[portfolio, quote_class] = table.get((portfolio, quote_class), 0) + leg.delta
            if insured:
                burdened.add(portfolio)
        elif leg.id not in priced:
            burdened.add(portfolio)


# ---------------------------------------------------------------- margin of portfolios


@dataclass
class Book:
    """What a portfolio holds: cash by (vault id, asset) in base units, options by series, dues by class. Changed on copies only."""

    cash: dict[Key, int]
    options: dict[bytes, int]
    dues: dict[bytes, int]
    placed: dict[Key, int] = field(default_factory=dict)
    """Of the options those at vaults that are judged apart, by (vault id, series)."""

    def copy(self) -> Book:
        """Return a copy that may be changed."""
        return Book(dict(self.cash), dict(self.options), dict(self.dues), dict(self.placed))

    def apply(self, effect: Effect) -> None:
        """Add what a decision would change."""
        for key, delta in effect.cash.items():
            self.cash[key] = self.cash.get(key, 0) + delta
        for series, delta in effect.options.items():
            self.options[series] = self.options.get(series, 0) + delta
        for quote_class, delta in effect.dues.items():
            self.dues[quote_class] = self.dues.get(quote_class, 0) + delta
        for key, delta in effect.placed.items():
            self.placed[key] = self.placed.get(key, 0) + delta

    def get_key(self) -> tuple[frozenset[object], ...]:
        """Return a value that is equal for equal books."""
        return tuple(frozenset(table.items()) for table in (self.cash, self.options, self.dues, self.placed))


@dataclass(frozen=True, slots=True)
class Effect:
    """What one undecided item, or one packet, does to one portfolio if it is done."""

    cash: Mapping[Key, int]
    options: Mapping[bytes, int]
    dues: Mapping[bytes, int] = field(default_factory=dict)
    placed: Mapping[Key, int] = field(default_factory=dict)
    """As in `Book`."""


class Context:
    """Inputs, notes, budgets and units of one plan."""

    def __init__(
        self, ledger: Ledger, market: MarketSnapshot, parameters: Parameters, open_packets: OpenPackets
    ) -> None:
        self.ledger = ledger
        self.market = market
        self.parameters = parameters
        self.now = market.now
        self.terms: Terms = get_terms(parameters)
        self.families: dict[str, FamilyParameters] = {f.family: f for f in parameters.families}
        self.open = get_open_view(ledger, open_packets)
        self.view: MarketView = compute_market_view(market, parameters, self.open.prices_e8)
        self.liquidation_view: MarketView = compute_market_view(
            market, parameters, self.open.prices_e8, Action.LIQUIDATION
        )
        self.asset_prices = compute_asset_prices(market, parameters)
        self.currency = parameters.classes[0].quote_class
        self.margin: MarginParameters = verify_margin_parameters(parameters, self.currency)
        self.model: MarginModel = get_model(parameters.underlyings[0].model if parameters.underlyings else "srm")
        self.apart: frozenset[bytes] = frozenset(v for v in ledger.states if self.get_tier_terms(v).is_limiting)
        """Vaults whose facts may carry only so much of an initial margin, by their tier."""
        self.notes: list[PlanNote] = []
        self.units: dict[bytes, list[Unit]] = {vault_id: [] for vault_id in ledger.states}
        self.blocked = self._get_blocked()
        self.in_liquidation: set[bytes] = set(self.open.burdened)
        # Budgets, base units: what accounts and the house may still be debited, and what caps still let pass.
        self.free: dict[tuple[Place, bytes], int] = {}
        self.room: dict[Key, int] = {}
        self.due_used: dict[Key, int] = {}
        """Dues that lands of this plan have spent, by (portfolio, class)."""
        self.lifted: dict[Key, int] = {}
        """What lifts of this plan bring to the house, by (vault, asset), base units."""
        self.insured_classes: set[bytes] = set()
        """Classes in which this plan takes over a loss."""
        self._books: dict[bytes, Book] = {}
        self._decisions: dict[object, bool] = {}
        self._marks: dict[bytes, Decimal] = {}
        self._deposits: dict[Place, tuple[RecentDeposit, ...]] | None = None

    # ------------------------------------------------------------ vaults

    def get_family(self, vault_id: bytes) -> FamilyParameters:
        """Return the constants of a vault's family; Rejected ("bad_parameters") when there are none."""
        family = self.terms.vaults[vault_id].family
        if family not in self.families:
            raise Rejected("a family without constants", got=family, reason="bad_parameters")
        return self.families[family]

    def get_timeout(self, vault_id: bytes) -> int:
        """Return the timeout of every packet of this plan for a vault: its cut time + the family constant."""
        return self.ledger.entries[vault_id].time + self.get_family(vault_id).timeout_s

    def get_leg_limit(self, vault_id: bytes) -> int:
        """Return how many legs a packet may have; after two absences of a packet it is halved (protocol.md 7.7)."""
        limit = self.get_family(vault_id).max_legs >> (self.open.absences.get(vault_id, 0) // 2)
        return max(limit, min(MINIMUM_LEGS, self.get_family(vault_id).max_legs))

    def get_tier_terms(self, vault_id: bytes) -> TierTerms:
        """Return what the facts of a vault count for: by the worst tier among them."""
        return self.margin.tiers[self.ledger.states[vault_id].tier.level]

    def get_value_limit(self, vault_id: bytes, quote_class: bytes) -> int | None:
        """Return the most that facts of a vault may carry in a class, class units, floored; None where its tier has no limit.

        0 where the class has no price in the account currency: what can't be compared with a limit is above it.
        """
        limit = self.get_tier_terms(vault_id).value_limit
        if limit is None:
            return None
        price_e8 = PAR_E8 if quote_class == self.currency else self.view.class_prices_e8.get(quote_class, 0)
        if price_e8 <= 0:
            return 0
        return int(limit * PAR_E8 * 10 ** self.terms.class_decimals[quote_class] / price_e8)

    def get_age(self, vault_id: bytes) -> int:
        """Return the age of a vault's newest proven state at the time of the plan, seconds."""
        return max(0, self.now - self.ledger.entries[vault_id].time)

    def is_fresh(self, vault_id: bytes) -> bool:
        """Whether a vault's state is young enough to lift from: no older than its family constant."""
        return self.now - self.ledger.entries[vault_id].time <= self.get_family(vault_id).timeout_s

    def _get_blocked(self) -> dict[bytes, str]:
        """Vaults that get no settlement packet in this plan, with the code of the reason; one note each."""
        blocked: dict[bytes, str] = {}
        for vault_id in sorted(self.ledger.states):
            state = self.ledger.states[vault_id]
            timeout = self.get_timeout(vault_id)
            pending = state.pending_operators
            if vault_id in self.open.sequence_of:
                number = self.open.sequence_of[vault_id]
                code, text = "open_packet_on_vault", f"packet {number} of this vault is not answered and not absent yet"
            elif timeout <= self.now:
                code, text = "chain_stalled", f"the newest proven state is {self.now - timeout} s too old for a packet"
            elif pending is not None and pending.at < timeout:
                code, text = "rotation", f"operators change at {pending.at}: a packet could arrive after that"
            elif state.paused:
                code, text = "paused", "the vault is paused: it refuses settlement until it is unpaused"
            else:
                continue
            blocked[vault_id] = code
            self.notes.append(PlanNote(code, vault_id, b"", text))
        return blocked

    def note(self, code: str, vault_id: bytes, subject: bytes, text: str) -> None:
        """Record why something was not done."""
        self.notes.append(PlanNote(code, vault_id, subject, text))

    # ------------------------------------------------------------ budgets

    def get_free(self, place: Place, asset: bytes) -> int:
        """Return what is left of an account's free balance after the debits of this plan, base units."""
        key = (place, asset)
        if key not in self.free:
            self.free[key] = self.ledger.states[place[0]].free.get((place[1], asset), 0)
        return self.free[key]

    def get_room(self, vault_id: bytes, asset: bytes) -> int:
        """Return what settlement caps still let users be debited at a vault, base units; per packet is judged apart."""
        key = (vault_id, asset)
        if key not in self.room:
            state = self.ledger.states[vault_id]
            time = self.ledger.entries[vault_id].time
            self.room[key] = get_room(state.caps.get(asset), state.settlement_windows, asset, time)
        return self.room[key]

    def get_debit_limit(self, place: Place, asset: bytes) -> int:
        """Return the most that may be taken from an account in one unit: its free balance, the room of the caps, one packet."""
        if place[1] in SYSTEM:
            return self.get_free(place, asset)
        caps = self.ledger.states[place[0]].caps.get(asset)
        per_packet = caps.per_packet if caps is not None else 0
        return max(0, min(self.get_free(place, asset), self.get_room(place[0], asset), per_packet))

    def spend(self, place: Place, asset: bytes, amount: int) -> None:
        """Take a debit from the budgets."""
        self.free[place, asset] = self.get_free(place, asset) - amount
        if place[1] not in SYSTEM:
            self.room[place[0], asset] = self.get_room(place[0], asset) - amount

    def spend_cash(self, place: Place, asset: bytes, amount: int) -> None:
        """Take what a decision will move from an account's balance; decisions are not settlement debits and use no cap of them."""
        self.free[place, asset] = self.get_free(place, asset) - amount

    def get_deposits(self, place: Place) -> tuple[RecentDeposit, ...]:
        """Return the deposits of an account of the last day."""
        if self._deposits is None:
            table: dict[Place, list[RecentDeposit]] = {}
            for vault_id, state in self.ledger.states.items():
                for deposit in state.recent_deposits:
                    table.setdefault((vault_id, deposit.account), []).append(deposit)
            self._deposits = {key: tuple(rows) for key, rows in table.items()}
        return self._deposits.get(place, ())

    # ------------------------------------------------------------ margin

    def get_book(self, portfolio: bytes) -> Book:
        """Return what a portfolio holds over all vaults at the cut. Do not change it: copy."""
        book = self._books.get(portfolio)
        if book is None:
            places = self.ledger.portfolios[portfolio].places if portfolio in self.ledger.portfolios else ()
            dues = {
                c: self.ledger.dues[portfolio, c]
                for c in self.terms.class_decimals
                if (portfolio, c) in self.ledger.dues
            }
            book = self.make_book(places, dues)
            self._books[portfolio] = book
        return book

    def make_book(self, places: Iterable[Place], dues: Mapping[bytes, int]) -> Book:
        """Return the holdings of some places; assets and classes that the parameters do not name count nothing."""
        cash: dict[Key, int] = {}
        options: dict[bytes, int] = {}
        placed: dict[Key, int] = {}
        for place in places:
            vault_id = place[0]
            for asset, amount in self.ledger.cash.get(place, {}).items():
                if (vault_id, asset) in self.terms.assets:
                    cash[vault_id, asset] = cash.get((vault_id, asset), 0) + amount
            for series, quantity in self.ledger.positions.get(place, {}).items():
                options[series] = options.get(series, 0) + quantity
                if vault_id in self.apart:
                    placed[vault_id, series] = placed.get((vault_id, series), 0) + quantity
        return Book(cash, options, dict(dues), placed)

    def get_place_dues(self, places: Iterable[Place]) -> dict[bytes, int]:
        """Return the dues that lie at some places, by class."""
        out: dict[bytes, int] = {}
        for vault_id, account in places:
            state = self.ledger.states[vault_id]
            for due, quote_class in state.dues.items():
                amount = state.positions.get((account, due), 0)
                if amount and quote_class in self.terms.class_decimals:
                    out[quote_class] = out.get(quote_class, 0) + amount
        return out

    def make_holdings(self, book: Book) -> Holdings:
        """Return a book as the margin model reads it."""
        cash = []
        for (vault_id, asset), units in book.cash.items():
            if units:
                terms = self.terms.assets[vault_id, asset]
                cash.append(
                    CashHolding(
                        vault_id=vault_id,
                        asset=asset,
                        quote_class=terms.quote_class,
                        units=units,
                        decimals=terms.decimals,
                        price_e8=self.asset_prices[vault_id, asset],
                        haircut_ppm=terms.haircut_ppm,
                        tier_level=self.ledger.states[vault_id].tier.level,
                        age_s=self.get_age(vault_id),
                        stale_haircut_ppm_per_hour=terms.stale_haircut_ppm_per_hour,
                        peg_low_e8=terms.peg_low_e8,
                    )
                )
        dues = tuple(DueHolding(c, units, self.terms.class_decimals[c]) for c, units in book.dues.items() if units)
        options = tuple(OptionHolding(s, self.ledger.series[s], q) for s, q in book.options.items() if q)
        return Holdings(tuple(cash), dues, options, self._make_parts(book))

    def _make_parts(self, book: Book) -> tuple[ChainPart, ...]:
        """Return the vaults that are judged apart and where the book has something."""
        held = {vault_id for table in (book.cash, book.placed) for (vault_id, _), units in table.items() if units}
        return tuple(
            ChainPart(
                vault_id,
                self.ledger.states[vault_id].tier.level,
                self.get_age(vault_id),
                tuple(
                    OptionHolding(series, self.ledger.series[series], quantity)
                    for (where, series), quantity in sorted(book.placed.items())
                    if where == vault_id and quantity
                ),
            )
            for vault_id in sorted(held & self.apart)
        )

    def get_execute_effects(self) -> dict[bytes, list[Effect]]:
        """Return what Execute packets, open ones and those of this plan (one per vault), would do to each portfolio.

        They conserve worth, but not every haircut: a request must be good whether they take effect or not.
        """
        out: dict[bytes, list[Effect]] = {}
        rows = [
            (packet.vault_id, [((leg.kind, leg.account, leg.id), leg.delta) for leg in body.legs])
            for packet, body in self.open.bodies
            if isinstance(body, Execute)
        ]
        rows += [(vault_id, [row for u in units for row in u.legs.items()]) for vault_id, units in self.units.items()]
        for vault_id, legs in rows:
            state = self.ledger.states[vault_id]
            found: dict[bytes, tuple[dict[Key, int], dict[bytes, int], dict[bytes, int]]] = {}
            for (kind, account, item), delta in legs:
                portfolio = self.ledger.portfolio_of.get((vault_id, account))
                if portfolio is None or account in SYSTEM:
                    continue
                cash, options, dues = found.setdefault(portfolio, ({}, {}, {}))
                if kind == LegKind.CASH:
                    if (vault_id, item) in self.terms.assets:
                        cash[vault_id, item] = cash.get((vault_id, item), 0) + delta
                elif item in state.dues:
                    quote_class = state.dues[item]
                    dues[quote_class] = dues.get(quote_class, 0) + delta
                else:
                    options[item] = options.get(item, 0) + delta
            for portfolio, (cash, options, dues) in found.items():
                placed = self.get_placed(vault_id, options)
                out.setdefault(portfolio, []).append(Effect(cash, options, dues, placed))
        return out

    def get_placed(self, vault_id: bytes, options: Mapping[bytes, int]) -> dict[Key, int]:
        """Return options at a vault as `Book.placed` has them: nothing where the vault is not judged apart."""
        return {(vault_id, series): delta for series, delta in options.items()} if vault_id in self.apart else {}

    def is_initial_good(self, book: Book) -> bool:
        """Whether IM >= 0, limits of tiers included; Rejected when a price is missing (`model.compute_limited_margin`)."""
        # A short that only an attested long nets to nothing is not nothing.
        if _is_trivial(book) and not any(book.placed.values()):
            return True
        key = (1, book.get_key())
        if key not in self._decisions:
            self._decisions[key] = is_initial_met(self.model, self.make_holdings(book), self.view, self.margin)
        return self._decisions[key]

    def get_initial_flaw(self, book: Book) -> str:
        """Return "" where IM >= 0, else the code of what is lacking: margin, or a better tier of the facts it rests on."""
        if self.is_initial_good(book):
            return ""
        holdings = self.make_holdings(book)
        is_limit = bool(holdings.parts) and is_initial_met(
            self.model, replace(holdings, parts=()), self.view, self.margin
        )
        return TIER_LIMIT if is_limit else MARGIN_SHORT

    def is_maintenance_good(self, book: Book) -> bool:
        """Whether MM >= 0 at the prices liquidation may use; Rejected when one is missing."""
        if _is_trivial(book):
            return True
        key = (2, book.get_key())
        if key not in self._decisions:
            holdings = self.make_holdings(book)
            self._decisions[key] = is_maintenance_met(self.model, holdings, self.liquidation_view, self.margin)
        return self._decisions[key]

    def compute_exact(self, book: Book, view: MarketView) -> MarginResult[Decimal]:
        """Return the margin in 50-digit decimals, for numbers that reach a leg."""
        return self.model.compute_margin(self.make_holdings(book), view, self.margin, DECIMAL)

    def compute_exact_limited(self, book: Book, view: MarketView) -> MarginResult[Decimal]:
        """Return the same with the limits of tiers taken off initial margin: what requests are judged by."""
        return compute_limited_margin(self.model, self.make_holdings(book), view, self.margin, DECIMAL)

    def get_mark(self, series: bytes) -> Decimal:
        """Return the mark of one unit of the underlying in a series, in whole units of its class, in 50-digit decimals.

        Raises:
            Rejected: no price that liquidation may use.
        """
        if series not in self._marks:
            book = Book({}, {series: 10**8}, {})
            rows = self.compute_exact(book, self.liquidation_view).per_market
            self._marks[series] = rows[0].options[0].price
        return self._marks[series]


def _is_trivial(book: Book) -> bool:
    """No option, nothing owed: every margin is >= 0 whatever the prices are."""
    return (
        all(not quantity for quantity in book.options.values())
        and all(units >= 0 for units in book.cash.values())
        and all(units >= 0 for units in book.dues.values())
    )
