"""Step 5 of a plan: which trades and withdrawals are accepted (protocol.md 7.5).

An item is accepted only if IM >= 0 for every portfolio it touches in all outcomes of that portfolio's undecided items, because the vault
may still answer 0 to any of them. A trade counts no deposit and no link that came later than it, so nobody can wait how the
market moves and then decide whether the trade is good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

from messages.bodies import TradeItem, WithdrawalItem
from messages.errors import Rejected
from messages.ids import HOUSE, INSURANCE
from relayer.rules.ledger import OpenRequest, OpenTrade, Place, compute_backing
from relayer.rules.margin.model import to_units_floor
from relayer.rules.plan_context import MARGIN_SHORT, TIER_LIMIT, Book, Context, Effect
from relayer.rules.plan_moves import is_lapsed
from relayer.rules.plan_risk import get_house_position, is_house_price_good
from relayer.rules.vault_state import TRADE_LIFE_S, get_room

MAX_UNDECIDED: Final = 8
"""Undecided items of one portfolio: their outcomes are tried one by one, 2^8 of them (protocol.md 7.5)."""

MAX_OUTCOMES: Final = 10
"""Undecided items and packets under way together: 2^10 margins for one portfolio are still a matter of a second."""

EXPIRY_MARGIN_S: Final = 60
"""No trade once any time in the cut is this close to the expiry."""


_FLAWS: Final = {
    MARGIN_SHORT: "portfolio {} would not have initial margin in every outcome",
    TIER_LIMIT: "portfolio {} would have initial margin only by counting more on facts of a low tier than they may carry",
}


@dataclass
class Decisions:
    """What a vault's decision packets will say."""

    trades: list[OpenTrade] = field(default_factory=list)
    upto: int = 0
    is_judged: bool = False
    withdrawals: list[OpenRequest] = field(default_factory=list)

    def get_trade_items(self) -> tuple[TradeItem, ...]:
        """Return the items of DecideTrades."""
        return tuple(TradeItem(t.id, t.taker, t.offer, t.nonce) for t in self.trades)

    def get_withdrawal_items(self) -> tuple[WithdrawalItem, ...]:
        """Return the items of DecideWithdrawals."""
        return tuple(WithdrawalItem(r.id, r.account, r.asset) for r in self.withdrawals)


class _Wait(Exception):
    """The trade can be judged neither way now; it waits for a later plan."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class _Over(Exception):
    """The trade is not accepted: the DecideTrades that covers it ends it."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Requests:
    """Judges the requests of all vaults in order; remembers what was accepted."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.undecided: dict[bytes, list[Effect]] = {}
        self.decisions: dict[bytes, Decisions] = {}
        self.latest = max([context.now, *(e.time for e in context.ledger.cut.entries)])
        self.shortfalls: dict[bytes, dict[bytes, int]] = {}
        has_requests = any(state.trades or state.requests for state in context.ledger.states.values())
        self.executes = context.get_execute_effects() if has_requests else {}
        for vault_id, trade in context.open.trades:
            self._remember_trade(vault_id, trade)
        for vault_id, request in context.open.requests:
            self._remember_request(vault_id, request)

    def judge(self) -> dict[bytes, Decisions]:
        """Judge trades, then withdrawals, each by (vault id, outbox sequence); return the decisions by vault."""
        states = self.context.ledger.states
        for vault_id in sorted(states):
            self.decisions[vault_id] = Decisions(upto=states[vault_id].decided_upto)
            self._judge_trades(vault_id)
        for vault_id in sorted(states):
            self._judge_withdrawals(vault_id)
        return self.decisions

    # ------------------------------------------------------------ trades

    def _judge_trades(self, vault_id: bytes) -> None:
        context, decision = self.context, self.decisions[vault_id]
        trades = sorted(context.ledger.states[vault_id].trades.values(), key=lambda t: t.sequence)
        if vault_id in context.blocked:
            for trade in trades:
                context.note(context.blocked[vault_id], vault_id, trade.id, "its vault gets no packet now")
            return
        limit = context.get_family(vault_id).max_items
        waiting: int | None = None
        for trade in trades:
            try:
                if len(decision.trades) >= limit:
                    raise _Wait("packet_full", "the packet holds no more decisions; it comes in a later one")
                self._judge_trade(vault_id, trade)
            except _Wait as wait:
                waiting = trade.sequence if waiting is None else waiting
                context.note(wait.code, vault_id, trade.id, wait.text)
            except _Over as over:
                context.note(over.code, vault_id, trade.id, over.text)
            else:
                decision.trades.append(trade)
                self._remember_trade(vault_id, trade)
                context.spend_cash((vault_id, trade.buyer), trade.asset, trade.cost)
        if trades:
            # Everything up to here is judged: accepted, or over. What waits, and all after it, stays open.
            upto = trades[-1].sequence if waiting is None else waiting - 1
            decision.upto = max(decision.upto, upto)
        is_ended = any(trade.sequence <= decision.upto for trade in trades)
        decision.is_judged = bool(decision.trades) or is_ended

    def _judge_trade(self, vault_id: bytes, trade: OpenTrade) -> None:
        """Raise _Over or _Wait with the first rule that the trade does not meet."""
        context = self.context
        ledger, terms = context.ledger, context.terms
        definition = ledger.states[vault_id].series[trade.series]
        if trade.stamp + TRADE_LIFE_S < self.latest:
            raise _Over("trade_over", "it waited for more than a day")
        if self.latest >= definition.expiry - EXPIRY_MARGIN_S:
            raise _Over("trade_over", "its series expires within a minute, or has expired")
        if ledger.entries[vault_id].time >= trade.valid_until:
            raise _Over("trade_over", "its offer was good for a time that is past")
        market = context.margin.underlyings.get(definition.underlying)
        asset = terms.assets.get((vault_id, trade.asset))
        if (
            market is None
            or market.price_source != definition.price_source
            or asset is None
            or asset.quote_class != definition.quote_class
        ):
            raise _Over("unknown_market", "series, price source or token are not what the parameters name")
        spot = context.view.underlyings[definition.underlying]
        if spot.states or spot.spot_e8 <= 0:
            states = ", ".join(sorted(state.value for state in spot.states))
            raise _Wait("price_missing", f"the price of its underlying can't be used: {states}")
        decimals = terms.class_decimals[definition.quote_class]
        notional = trade.quantity * definition.multiplier_e8 * spot.spot_e8 * 10**decimals // 10**24
        minimum = next(
            c.minimum_notional for c in context.parameters.classes if c.quote_class == definition.quote_class
        )
        if notional < minimum:
            raise _Over("below_minimum_notional", f"its notional is {notional}, the least is {minimum} class units")
        if context.get_free((vault_id, trade.buyer), trade.asset) < trade.cost:
            raise _Over("no_cash", "the buyer has not the cash for the premium at this vault")
        for account in (trade.buyer, trade.seller):
            if account == INSURANCE:
                raise _Over("unknown_market", "INSURANCE does not trade")
            if account == HOUSE:
                self._judge_house(vault_id, trade)
            else:
                self._judge_party(vault_id, trade, (vault_id, account))
        self._judge_inventory(vault_id, trade)

    def _judge_house(self, vault_id: bytes, trade: OpenTrade) -> None:
        """Anyone may take in the name of HOUSE; only what brings its position towards 0 at the auction price counts (7.4)."""
        context = self.context
        buys = trade.buyer == HOUSE
        held = get_house_position(context, vault_id, trade.series)
        held += sum(_sign(t, HOUSE) * t.quantity for t in self.decisions[vault_id].trades if t.series == trade.series)
        if trade.quantity > (-held if buys else held):
            raise _Over("house_position", "the house only trades towards 0 of what it took over")
        scale = context.terms.get_scale(context.terms.assets[vault_id, trade.asset])
        try:
            good = is_house_price_good(context, trade.series, trade.quantity, trade.cost, scale, buys=buys)
        except Rejected as error:
            raise _Wait("price_missing", f"no mark to judge a trade of the house by: {error.got}") from error
        if not good:
            raise _Over("house_price", "the house trades at the mark less its discount or better")

    def _judge_party(self, vault_id: bytes, trade: OpenTrade, place: Place) -> None:
        context = self.context
        portfolio = context.ledger.portfolio_of[place]
        if portfolio in context.in_liquidation:
            raise _Over("in_liquidation", "a portfolio of it is being liquidated")
        effect = get_trade_effect(context, vault_id, trade, portfolio)
        self._require_room(portfolio)
        try:
            flaw = ""
            for book in self._get_books(portfolio, place, trade.stamp):
                flaw = flaw or self._get_flaw_in_any_outcome(book, portfolio, effect)
        except Rejected as error:
            raise _Wait("price_missing", f"its margin is frozen: {error.got}") from error
        if flaw:
            raise _Over(flaw, _FLAWS[flaw].format(f"0x{portfolio.hex()}"))

    def _require_room(self, portfolio: bytes) -> None:
        items, packets = len(self.undecided.get(portfolio, ())), len(self.executes.get(portfolio, ()))
        if items >= MAX_UNDECIDED or items + packets >= MAX_OUTCOMES:
            raise _Wait(
                "too_many_undecided", f"its portfolio has {items} undecided items and {packets} packets under way"
            )

    def _get_books(self, portfolio: bytes, place: Place, stamp: int) -> Iterator[Book]:
        """Yield the holdings a trade of ``stamp`` is judged by: without later deposits, without and with later links."""
        context = self.context
        places = context.ledger.portfolios[portfolio].places
        early = [p for p in places if not _is_linked_after(context, p, stamp)]
        if place not in early:
            early = [place]  # linked after its own trade: it stood alone then
        if len(early) == len(places):
            book = context.get_book(portfolio).copy()
        else:
            yield context.get_book(portfolio)
            book = context.make_book(early, context.get_place_dues(early))
        for vault_id, account in early:
            for deposit in context.get_deposits((vault_id, account)):
                key = (vault_id, deposit.asset)
                if deposit.stamp > stamp and key in context.terms.assets:
                    book.cash[key] = book.cash.get(key, 0) - deposit.amount
        yield book

    def _get_flaw_in_any_outcome(self, book: Book, portfolio: bytes, effect: Effect) -> str:
        """Return "" if IM >= 0 for every subset of the packets under way and the undecided items, with and without the new one.

        Else the code of what is lacking in the first subset where it is not.
        """
        effects = [*self.executes.get(portfolio, ()), *self.undecided.get(portfolio, ()), effect]
        # Largest subsets first: what fails most often fails early.
        for size in range(len(effects), -1, -1):
            for chosen in combinations(effects, size):
                outcome = book.copy()
                for item in chosen:
                    outcome.apply(item)
                flaw = self.context.get_initial_flaw(outcome)
                if flaw:
                    return flaw
        return ""

    def _remember_trade(self, vault_id: bytes, trade: OpenTrade) -> None:
        portfolios = {self.context.ledger.portfolio_of[vault_id, account] for account in (trade.buyer, trade.seller)}
        for portfolio in sorted(portfolios - {HOUSE, INSURANCE}):
            effect = get_trade_effect(self.context, vault_id, trade, portfolio)
            self.undecided.setdefault(portfolio, []).append(effect)

    # ------------------------------------------------------------ inventory

    def _judge_inventory(self, vault_id: bytes, trade: OpenTrade) -> None:
        """The worst-case shortfalls at the vault, after this trade, stay within its inventory parameter (7.5, decision 0015)."""
        context = self.context
        limit = context.terms.vaults[vault_id].inventory_limit
        if vault_id not in self.shortfalls:
            self.shortfalls[vault_id] = self._compute_shortfalls(vault_id)
        table = self.shortfalls[vault_id]
        new: dict[bytes, int] = {}
        for account in (trade.buyer, trade.seller):
            portfolio = context.ledger.portfolio_of[vault_id, account]
            if portfolio in (HOUSE, INSURANCE) or portfolio in new:
                continue
            book = self._get_local_book(portfolio, vault_id)
            for accepted in [*self.decisions[vault_id].trades, trade]:
                if portfolio in self._get_portfolios(vault_id, accepted):
                    book.apply(get_trade_effect(context, vault_id, accepted, portfolio))
            new[portfolio] = self._compute_shortfall(book)
        before = sum(table.values())
        after = before + sum(amount - table.get(portfolio, 0) for portfolio, amount in new.items())
        # A trade that makes nothing worse is no new call on the inventory.
        if after > limit and after > before:
            raise _Over("no_house_inventory", f"shortfalls here would reach {after} of {limit} class units")
        table.update(new)

    def _get_portfolios(self, vault_id: bytes, trade: OpenTrade) -> set[bytes]:
        return {self.context.ledger.portfolio_of[vault_id, account] for account in (trade.buyer, trade.seller)}

    def _get_local_book(self, portfolio: bytes, vault_id: bytes) -> Book:
        """Return what a portfolio has at one vault alone; dues are no cash there."""
        places = [p for p in self.context.ledger.portfolios[portfolio].places if p[0] == vault_id]
        return self.context.make_book(places, {})

    def _compute_shortfalls(self, vault_id: bytes) -> dict[bytes, int]:
        """Return the shortfall of every portfolio that holds options here and something elsewhere."""
        context = self.context
        out: dict[bytes, int] = {}
        seen: set[bytes] = set()
        for place in sorted(p for p in context.ledger.positions if p[0] == vault_id):
            portfolio = context.ledger.portfolio_of[place]
            if portfolio in seen or portfolio in (HOUSE, INSURANCE):
                continue
            seen.add(portfolio)
            if any(p[0] != vault_id for p in context.ledger.portfolios[portfolio].places):
                try:
                    out[portfolio] = self._compute_shortfall(self._get_local_book(portfolio, vault_id))
                except Rejected:
                    continue  # frozen: it can trade nothing itself, and others need not wait for its feed
        return out

    def _compute_shortfall(self, book: Book) -> int:
        """Return max(0, -IM) in units of the account currency, floored against the account: alike on every node."""
        if not any(book.options.values()):
            return 0
        context = self.context
        decimals = context.terms.class_decimals[context.currency]
        result = context.model.compute_margin(context.make_holdings(book), context.view, context.margin)
        unit = 10.0**-decimals
        # Rounded to whole units a float may differ between machines only where it is close to one: decide there in decimals.
        nearest = round(result.initial / unit) * unit
        if abs(result.initial - nearest) <= 1e-9 * max(result.gross, 1.0):
            exact = context.compute_exact(book, context.view)
            return max(0, -to_units_floor(exact, decimals)[0])
        return max(0, -to_units_floor(result, decimals)[0])

    # ------------------------------------------------------------ withdrawals

    def _judge_withdrawals(self, vault_id: bytes) -> None:
        context, decision = self.context, self.decisions[vault_id]
        requests = sorted(context.ledger.states[vault_id].requests.values(), key=lambda r: r.sequence)
        rooms: dict[bytes, tuple[int, int]] = {}
        for request in requests:
            if is_lapsed(context, vault_id, request):
                context.note("request_lapsed", vault_id, request.id, "it is older than 24 hours: ask again")
                continue
            if vault_id in context.blocked:
                context.note(context.blocked[vault_id], vault_id, request.id, "its vault gets no packet now")
                continue
            if len(decision.withdrawals) >= context.get_family(vault_id).max_items:
                context.note("packet_full", vault_id, request.id, "the packet holds no more decisions")
                continue
            try:
                self._judge_withdrawal(vault_id, request, rooms)
            except (_Wait, _Over) as why:
                context.note(why.code, vault_id, request.id, why.text)
                continue
            decision.withdrawals.append(request)
            self._remember_request(vault_id, request)
            context.spend_cash((vault_id, request.account), request.asset, request.amount)
            room, per_packet = rooms[request.asset]
            rooms[request.asset] = (room - request.amount, per_packet - request.amount)

    def _judge_withdrawal(self, vault_id: bytes, request: OpenRequest, rooms: dict[bytes, tuple[int, int]]) -> None:
        context = self.context
        state = context.ledger.states[vault_id]
        place = (vault_id, request.account)
        free = context.get_free(place, request.asset)
        asset = context.terms.assets.get((vault_id, request.asset))
        if asset is not None:
            minimum = next(c.minimum_notional for c in context.parameters.classes if c.quote_class == asset.quote_class)
            # Small change may always leave, as long as nothing stays behind.
            if request.amount < minimum * context.terms.get_scale(asset) and request.amount != free:
                raise _Wait("below_minimum_notional", "less than the least amount, and not all that is there")
        if free < request.amount:
            raise _Wait("no_cash", "the account has less than that at this vault; what may be moved here is on its way")
        caps = state.caps.get(request.asset)
        if request.asset not in rooms:
            time = context.ledger.entries[vault_id].time
            room = get_room(caps, state.withdrawal_windows, request.asset, time)
            rooms[request.asset] = (room, 0 if caps is None else caps.per_packet)
        if request.amount > min(rooms[request.asset]):
            raise _Wait("cap_window_full", "the caps of the vault let no more leave now")
        if request.account == HOUSE:
            self._judge_house_withdrawal(vault_id, request)
            return
        portfolio = context.ledger.portfolio_of[place]
        if portfolio in context.in_liquidation:
            raise _Wait("in_liquidation", "its portfolio is being liquidated")
        self._require_room(portfolio)
        effect = Effect({(vault_id, request.asset): -request.amount} if asset is not None else {}, {})
        try:
            flaw = self._get_flaw_in_any_outcome(context.get_book(portfolio), portfolio, effect)
        except Rejected as error:
            raise _Wait("price_missing", f"its margin is frozen: {error.got}") from error
        if flaw:
            raise _Wait(flaw, _FLAWS[flaw].format(f"0x{portfolio.hex()}"))

    def _judge_house_withdrawal(self, vault_id: bytes, request: OpenRequest) -> None:
        """HOUSE's withdrawals only while backing holds: by solvent portfolios alone, and with margin for what it holds itself."""
        context = self.context
        asset = context.terms.assets.get((vault_id, request.asset))
        if asset is None:
            return
        quote_class = asset.quote_class
        backing = compute_backing(context.ledger.states, context.parameters)[quote_class]
        doubtful = 0
        for (portfolio, due_class), amount in context.ledger.dues.items():
            if due_class != quote_class or amount >= 0 or portfolio in (HOUSE, INSURANCE):
                continue
            try:
                solvent = context.is_maintenance_good(context.get_book(portfolio))
            except Rejected:
                solvent = False
            doubtful += 0 if solvent else -amount
        lacking = max(0, -backing.insurance - backing.insurance_due)
        leaving = [(v, r) for v, d in self.decisions.items() for r in d.withdrawals if r.account == HOUSE]
        leaving += [(v, r) for v, r in context.open.requests if r.account == HOUSE]
        leaving.append((vault_id, request))
        places = [(v, HOUSE) for v in sorted(context.ledger.states)]
        book = context.make_book(places, context.get_place_dues(places))
        units = 0
        for where, wanted in leaving:
            terms = context.terms.assets.get((where, wanted.asset))
            if terms is not None:
                key = (where, wanted.asset)
                book.cash[key] = book.cash.get(key, 0) - wanted.amount
                units += -(-wanted.amount // context.terms.get_scale(terms)) if terms.quote_class == quote_class else 0
        if backing.surplus - lacking - doubtful < units:
            raise _Wait("backing", "the house owes as much as stands behind it")
        beyond = self._compute_beyond_limits(book, quote_class)
        if backing.surplus - lacking - doubtful - beyond < units:
            raise _Wait(TIER_LIMIT, "what stands behind the house is more house cash than facts of that tier may carry")
        try:
            is_flat = not any(book.options.values()) and not any(book.placed.values())
            good = is_flat or context.is_initial_good(book)
        except Rejected:
            good = False
        if not good:
            raise _Wait("backing", "the house holds positions it took over and needs its cash for them")

    def _compute_beyond_limits(self, house: Book, quote_class: bytes) -> int:
        """Return how much cash of HOUSE (as in the book) and INSURANCE is more than facts of its vault's tier may carry, class units."""
        context, terms = self.context, self.context.terms
        beyond = 0
        for vault_id, state in context.ledger.states.items():
            limit = context.get_value_limit(vault_id, quote_class)
            if limit is None:
                continue
            held = 0
            for asset in terms.class_assets.get((vault_id, quote_class), ()):
                units = max(0, house.cash.get((vault_id, asset.asset), 0)) // terms.get_scale(asset)
                held += units + state.free.get((INSURANCE, asset.asset), 0) // terms.get_scale(asset)
            beyond += max(0, held - limit)
        return beyond

    def _remember_request(self, vault_id: bytes, request: OpenRequest) -> None:
        portfolio = self.context.ledger.portfolio_of[vault_id, request.account]
        if portfolio not in (HOUSE, INSURANCE) and (vault_id, request.asset) in self.context.terms.assets:
            effect = Effect({(vault_id, request.asset): -request.amount}, {})
            self.undecided.setdefault(portfolio, []).append(effect)


def _sign(trade: OpenTrade, account: bytes) -> int:
    if trade.buyer == trade.seller:
        return 0
    return 1 if trade.buyer == account else (-1 if trade.seller == account else 0)


def _is_linked_after(context: Context, place: Place, stamp: int) -> bool:
    link = context.ledger.states[place[0]].links.get(place[1])
    return link is not None and link.stamp > stamp


def get_trade_effect(context: Context, vault_id: bytes, trade: OpenTrade, portfolio: bytes) -> Effect:
    """Return what a trade does to a portfolio; both sides in one portfolio cancel out."""
    cash = quantity = 0
    if context.ledger.portfolio_of[vault_id, trade.buyer] == portfolio:
        cash, quantity = cash - trade.cost, quantity + trade.quantity
    if context.ledger.portfolio_of[vault_id, trade.seller] == portfolio:
        cash, quantity = cash + trade.cost, quantity - trade.quantity
    return Effect(
        {(vault_id, trade.asset): cash} if cash and (vault_id, trade.asset) in context.terms.assets else {},
        {trade.series: quantity} if quantity else {},
        placed=context.get_placed(vault_id, {trade.series: quantity}) if quantity else {},
    )
