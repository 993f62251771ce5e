"""A vault in plain Python, by the pages protocol.md 2 to 4 and vault.md: plans can be executed on it and Acks come back.

For tests only. It checks no signatures (`recv` takes a packet that is taken for certified) and holds tokens as numbers; everything
else is judged in the vault's order. It shares no code with the ledger, so the two check each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from messages.bodies import (
    COSMOS_LIMITS,
    EVM_LIMITS,
    SOLANA_LIMITS,
    Ack,
    Claimed,
    DecideTrades,
    DecideWithdrawals,
    Deposited,
    Escaped,
    Execute,
    Linked,
    Paused,
    Reason,
    RotateOperators,
    SeriesDefinition,
    SeriesListed,
    SetCaps,
    TradePending,
    Unpause,
    WithdrawalRequested,
    compute_series_id,
    decode_inbox_body,
    make_outbox_packet,
)
from messages.documents import VaultParameters
from messages.ids import HOUSE, INSURANCE, compute_due_id
from messages.outbox import compute_next_head
from messages.packet import Packet, compute_commitment
from relayer.rules.ledger import get_vault_id

LIMITS = {"evm": EVM_LIMITS, "cosmos": COSMOS_LIMITS, "solana": SOLANA_LIMITS}


class RevertError(Exception):
    """The call reverts: nothing changed."""


class _RefusedError(Exception):
    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.name)
        self.reason = reason


def need(condition: bool, why: str) -> None:
    if not condition:
        raise RevertError(why)


def check(condition: bool, reason: Reason) -> None:
    if not condition:
        raise _RefusedError(reason)


@dataclass
class Offer:
    maker: bytes
    side: int
    series: bytes
    asset: bytes
    left: int
    premium: int
    valid_until: int
    cancelled: bool = False


@dataclass
class Trade:
    id: bytes
    number: int
    buyer: bytes
    seller: bytes
    series: bytes
    asset: bytes
    quantity: int
    cost: int
    valid_until: int
    offer: int


@dataclass
class VaultModel:
    """One vault. ``time`` is the block time of the next call and is moved by hand."""

    parameters: VaultParameters
    time: int = 0
    inbox_sequence: int = 0
    outbox_sequence: int = 0
    free: dict = field(default_factory=dict)
    claimable: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)
    position: dict = field(default_factory=dict)
    series: dict = field(default_factory=dict)
    dues: set = field(default_factory=set)
    offers: dict = field(default_factory=dict)
    trades: dict = field(default_factory=dict)
    requests: dict = field(default_factory=dict)
    upto: int = 0
    packets: list = field(default_factory=list)

    def __post_init__(self) -> None:
        p = self.parameters
        self.id = get_vault_id(p)
        self.head = self.id
        self.time = self.time or p.created_at
        self.accepted_at = p.created_at
        self.operators, self.threshold, self.epoch, self.treasurer = p.operators, p.threshold, 0, p.treasurer
        self.paused, self.pause_used = False, set()
        self.caps = {c.asset: (c.per_packet, c.per_hour, c.per_day) for c in p.caps}
        self.pending_caps, self.pending_operators, self.pending_unpause = {}, None, None
        self.windows = {"settlement": {}, "withdrawal": {}}
        solana = p.family == "solana"
        self.amount_limit = 2**64 if solana else 2**96
        self.leg_limit = 2**63 if solana else 2**96
        self.balance_limit = 2**64 if solana else 2**96

    # ------------------------------------------------------------ plumbing

    def emit(self, body, inbox: Packet | None = None) -> bytes:
        self.outbox_sequence += 1
        packet = make_outbox_packet(self.id, self.outbox_sequence, self.time, body)
        self.head = compute_next_head(self.head, self.outbox_sequence, compute_commitment(packet))
        self.packets.append((packet, inbox))
        return self.head

    def tick(self) -> None:
        for asset, (at, caps) in list(self.pending_caps.items()):
            if at <= self.time:
                self.caps[asset] = caps
                del self.pending_caps[asset]
        if self.pending_operators and self.pending_operators[0] <= self.time:
            _, self.threshold, self.treasurer, self.operators = self.pending_operators
            self.epoch, self.pause_used, self.pending_operators = self.epoch + 1, set(), None
        if self.pending_unpause is not None and self.pending_unpause <= self.time:
            self.paused, self.pending_unpause = False, None

    @staticmethod
    def add(table: dict, key, delta: int) -> None:
        table[key] = table.get(key, 0) + delta
        if not table[key]:
            del table[key]

    def is_native(self, account: bytes) -> bool:
        if account in (bytes(32), HOUSE, INSURANCE):
            return False
        return self.parameters.family != "evm" or account[:12] == bytes(12)

    # ------------------------------------------------------------ users

    def deposit(self, asset: bytes, amount: int, beneficiary: bytes, arrived: int | None = None) -> None:
        self.tick()
        need(not self.paused, "paused")
        need(0 < amount < self.amount_limit, "amount")
        need(asset in self.caps, "asset")
        need(self.is_native(beneficiary) or beneficiary in (HOUSE, INSURANCE), "beneficiary")
        amount = amount if arrived is None else arrived
        need(amount > 0, "nothing arrived")
        need(self.free.get((beneficiary, asset), 0) + amount < self.balance_limit, "overflow")
        self.add(self.free, (beneficiary, asset), amount)
        self.add(self.held, asset, amount)
        self.emit(Deposited(beneficiary, asset, amount))

    def link(self, by: bytes, portfolio: bytes, valid_until: int, r: bytes, s: bytes, v: int) -> None:
        self.tick()
        self.emit(Linked(by, portfolio, valid_until, r, s, v))

    def list_series(self, definition: SeriesDefinition) -> bytes:
        self.tick()
        d = definition
        need(self.time < d.expiry <= self.time + 400 * 86_400, "expiry")
        need(d.twap_seconds > 0 and d.right in (0, 1), "definition")
        need(0 < d.strike_e8 < 2**96 and 0 < d.multiplier_e8 < 2**96, "definition")
        series = compute_series_id(d)
        need(series not in self.series, "listed")
        self.series[series] = d
        self.dues.add(compute_due_id(d.quote_class))
        self.emit(SeriesListed(series, d))
        return series

    def offer(self, by, side, series, asset, quantity, premium, valid_until) -> int:
        self.tick()
        need(not self.paused, "paused")
        need(side in (0, 1), "side")
        need(series in self.series, "series")
        need(asset in self.caps, "asset")
        need(0 < quantity < self.amount_limit and 0 < premium < self.amount_limit, "amount")
        need(self.time < min(valid_until, self.series[series].expiry), "time")
        number = len(self.offers) + 1
        self.offers[number] = Offer(by, side, series, asset, quantity, premium, valid_until)
        return number

    def cancel(self, by: bytes, number: int) -> None:
        self.tick()
        offer = self.offers.get(number)
        need(offer is not None and offer.maker == by and not offer.cancelled and offer.left > 0, "cancel")
        offer.cancelled = True

    def take(self, by: bytes, number: int, quantity: int, nonce: int, *, for_house: bool = False) -> bytes:
        self.tick()
        need(not self.paused, "paused")
        offer = self.offers.get(number)
        need(offer is not None and not offer.cancelled, "offer")
        taker = HOUSE if for_house else by
        need(taker != offer.maker, "own")
        need(self.time < min(offer.valid_until, self.series[offer.series].expiry), "time")
        need(0 < quantity <= offer.left, "quantity")
        key = (taker, number, nonce)
        old = self.trades.get(key)
        need(old is None or old.number <= self.upto, "open")
        cost = -(-quantity * offer.premium // 10**8)
        need(cost < self.amount_limit, "cost")
        buyer, seller = (offer.maker, taker) if offer.side == 0 else (taker, offer.maker)
        need(self.free.get((buyer, offer.asset), 0) >= cost, "cash")
        body = TradePending(
            buyer, seller, offer.series, offer.asset, quantity, cost, offer.valid_until, taker, number, nonce
        )
        trade_id = self.emit(body)
        self.trades[key] = Trade(
            trade_id,
            self.outbox_sequence,
            buyer,
            seller,
            offer.series,
            offer.asset,
            quantity,
            cost,
            offer.valid_until,
            number,
        )
        return trade_id

    def request_withdrawal(self, by: bytes, asset: bytes, amount: int, *, for_house: bool = False) -> bytes:
        self.tick()
        need(0 < amount < self.amount_limit, "amount")
        need(asset in self.caps, "asset")
        need(not for_house or by == self.treasurer, "treasurer")
        account = HOUSE if for_house else by
        request_id = self.emit(WithdrawalRequested(account, asset, amount))
        self.requests[account, asset] = (request_id, amount, self.time)
        return request_id

    def claim(self, account: bytes, asset: bytes) -> int:
        self.tick()
        amount = self.claimable.get((account, asset), 0)
        need(account not in (HOUSE, INSURANCE) and amount > 0, "nothing")
        self.add(self.claimable, (account, asset), -amount)
        self.add(self.held, asset, -amount)
        self.emit(Claimed(account, asset, amount))
        return amount

    def pause(self, operator: bytes) -> None:
        self.tick()
        need(not self.paused and operator in self.operators and operator not in self.pause_used, "pause")
        self.paused = True
        self.pause_used.add(operator)
        self.emit(Paused(operator))

    def escape(self, by: bytes, asset: bytes) -> None:
        self.tick()
        need(self.time >= self.accepted_at + 30 * 86_400, "too early")
        need(not any(a == by and q < 0 for (a, _), q in self.position.items()), "negative")
        amount = self.free.get((by, asset), 0)
        need(amount > 0, "nothing")
        need(self.claimable.get((by, asset), 0) + amount < self.balance_limit, "overflow")
        self.add(self.free, (by, asset), -amount)
        self.add(self.claimable, (by, asset), amount)
        self.emit(Escaped(by, asset, amount))

    # ------------------------------------------------------------ the clearing

    def recv(self, packet: Packet) -> Ack:
        """Take a packet that is taken for certified; return its Ack."""
        self.tick()
        need(packet.sequence == self.inbox_sequence + 1, "sequence")
        need(self.time < packet.timeout_timestamp <= self.time + 86_400, "timeout")
        limits = LIMITS[self.parameters.family]
        body = decode_inbox_body(packet.payloads[0].value, limits)
        self.inbox_sequence += 1
        self.accepted_at = self.time
        bitmap = 0
        try:
            bitmap = self.apply(body)
            status, reason = 1, Reason.NONE
        except _RefusedError as refused:
            status, reason = 2, refused.reason
        ack = Ack(packet.sequence, compute_commitment(packet), body.KIND, status, int(reason), bitmap)
        self.emit(ack, packet)
        return ack

    def apply(self, body) -> int:
        if isinstance(body, Execute | DecideTrades | DecideWithdrawals):
            check(not self.paused, Reason.PAUSED)
        if isinstance(body, Execute):
            self.execute(body)
        elif isinstance(body, DecideTrades):
            return self.decide_trades(body)
        elif isinstance(body, DecideWithdrawals):
            return self.decide_withdrawals(body)
        elif isinstance(body, RotateOperators):
            check(body.epoch == self.epoch + 1, Reason.EPOCH)
            n = len(body.operators)
            ascending = all(a < b for a, b in zip(body.operators, body.operators[1:], strict=False))
            sound = ascending and bytes(20) not in body.operators and body.threshold <= n < 3 * body.threshold / 2
            check(sound and self.is_native(body.treasurer), Reason.OPERATORS)
            check(body.effective >= self.time + self.parameters.delay_s, Reason.DELAY)
            self.pending_operators = (body.effective, body.threshold, body.treasurer, body.operators)
        elif isinstance(body, SetCaps):
            self.set_caps(body)
        elif isinstance(body, Unpause):
            check(self.paused, Reason.NOT_PAUSED)
            self.pending_unpause = self.time + self.parameters.delay_s
        return 0

    def execute(self, body: Execute) -> None:
        last = None
        sums: dict = {}
        debits: dict = {}
        for leg in body.legs:
            check(leg.kind in (0, 1), Reason.LEG_KIND)
            check(leg.delta != 0, Reason.ZERO)
            check(abs(leg.delta) < self.leg_limit, Reason.RANGE)
            check(self.is_native(leg.account) or leg.account in (HOUSE, INSURANCE), Reason.ACCOUNT)
            key = (leg.kind, leg.account, leg.id)
            check(last is None or last < key, Reason.ORDER)
            last = key
            if leg.kind == 0:
                check(leg.id in self.caps, Reason.ASSET)
                after = self.free.get((leg.account, leg.id), 0) + leg.delta
                check(after >= 0, Reason.CASH)
                check(after < self.balance_limit, Reason.OVERFLOW)
                if leg.delta < 0 and leg.account not in (HOUSE, INSURANCE):
                    debits[leg.id] = debits.get(leg.id, 0) - leg.delta
            else:
                check(leg.id in self.series or leg.id in self.dues, Reason.SERIES)
                before = self.position.get((leg.account, leg.id), 0)
                if leg.id in self.series and leg.account not in (HOUSE, INSURANCE):
                    check(before * leg.delta < 0 and abs(leg.delta) <= abs(before), Reason.DIRECTION)
                check(-(2**127) <= before + leg.delta < 2**127, Reason.OVERFLOW)
            sums[leg.kind, leg.id] = sums.get((leg.kind, leg.id), 0) + leg.delta
        check(not any(sums.values()), Reason.SUM)
        for asset, amount in debits.items():
            check(self.fits("settlement", asset, amount, amount), Reason.CAP)
        for leg in body.legs:
            self.add(self.free if leg.kind == 0 else self.position, (leg.account, leg.id), leg.delta)
        for asset, amount in debits.items():
            self.charge("settlement", asset, amount)

    def used(self, which: str, asset: bytes) -> tuple[int, int]:
        hour, hour_used, day, day_used = self.windows[which].get(asset, (0, 0, 0, 0))
        return (
            hour_used if hour == self.time // 3600 else 0,
            day_used if day == self.time // 86_400 else 0,
        )

    def fits(self, which: str, asset: bytes, amount: int, in_packet: int) -> bool:
        hour, day = self.used(which, asset)
        per_packet, per_hour, per_day = self.caps[asset]
        return in_packet <= per_packet and hour + amount <= per_hour and day + amount <= per_day

    def charge(self, which: str, asset: bytes, amount: int) -> None:
        hour, day = self.used(which, asset)
        self.windows[which][asset] = (self.time // 3600, hour + amount, self.time // 86_400, day + amount)

    def decide_trades(self, body: DecideTrades) -> int:
        check(self.upto <= body.upto <= self.outbox_sequence, Reason.RANGE)
        bitmap = 0
        for index, item in enumerate(body.items):
            key = (item.taker, item.offer, item.nonce)
            trade = self.trades.get(key)
            if trade is None or trade.id != item.id or trade.number <= self.upto:
                continue
            del self.trades[key]
            offer = self.offers[trade.offer]
            in_time = self.time < min(trade.valid_until, self.series[trade.series].expiry)
            has_cash = self.free.get((trade.buyer, trade.asset), 0) >= trade.cost
            fits = self.free.get((trade.seller, trade.asset), 0) + trade.cost < self.balance_limit
            if not in_time or offer.left < trade.quantity or not has_cash or not fits:
                continue
            offer.left -= trade.quantity
            self.add(self.free, (trade.buyer, trade.asset), -trade.cost)
            self.add(self.free, (trade.seller, trade.asset), trade.cost)
            self.add(self.position, (trade.buyer, trade.series), trade.quantity)
            self.add(self.position, (trade.seller, trade.series), -trade.quantity)
            bitmap |= 1 << index
        self.upto = body.upto
        return bitmap

    def decide_withdrawals(self, body: DecideWithdrawals) -> int:
        bitmap = 0
        in_packet: dict = {}
        for index, item in enumerate(body.items):
            key = (item.account, item.asset)
            request_id, amount, at = self.requests.get(key, (None, 0, 0))
            if request_id != item.id or self.time > at + 86_400 or self.free.get(key, 0) < amount:
                continue
            total = in_packet.get(item.asset, 0) + amount
            if not self.fits("withdrawal", item.asset, amount, total):
                continue
            payee = self.treasurer if item.account == HOUSE else item.account
            if self.claimable.get((payee, item.asset), 0) + amount >= self.balance_limit:
                continue
            in_packet[item.asset] = total
            del self.requests[key]
            self.charge("withdrawal", item.asset, amount)
            self.add(self.free, key, -amount)
            self.add(self.claimable, (payee, item.asset), amount)
            bitmap |= 1 << index
        return bitmap

    def set_caps(self, body: SetCaps) -> None:
        check(self.is_native(body.asset), Reason.ASSET)
        new = (body.per_packet, body.per_hour, body.per_day)
        check(all(0 < c < self.amount_limit for c in new), Reason.RANGE)
        self.pending_caps.pop(body.asset, None)
        old = self.caps.get(body.asset)
        if old is not None:
            self.caps[body.asset] = tuple(min(a, b) for a, b in zip(old, new, strict=True))
            if self.caps[body.asset] == new:
                return
        self.pending_caps[body.asset] = (self.time + self.parameters.delay_s, new)
