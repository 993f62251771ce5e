"""What the clearing knows of one vault: the fold of its outbox facts (protocol.md 4, 6; vault.md).

`VaultState` is frozen; `apply_facts` copies its tables once, applies any number of facts to the copy and freezes it again. The
fold never raises on an accepted packet. Content that a user may get wrong (a link with a bad signature) is recorded as void;
content that a right vault can't produce (paying what is not there) is recorded as a contradiction, and
`ledger.verify_conservation` halts on it. What happens to a packet is replayed by the rules of the vault itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from messages.bodies import (
    Ack,
    AckStatus,
    Claimed,
    DecideTrades,
    DecideWithdrawals,
    Deposited,
    Escaped,
    Execute,
    LegKind,
    Linked,
    Paused,
    RotateOperators,
    SeriesDefinition,
    SeriesListed,
    SetCaps,
    TradePending,
    Unpause,
    WithdrawalRequested,
)
from messages.digests import compute_link_digest, compute_vault_id, recover_signer
from messages.documents import VaultParameters
from messages.errors import Rejected
from messages.ids import HOUSE, INSURANCE, ZERO20, compute_due_id, get_evm_address
from messages.outbox import ATTESTED, Fact, TrustTier, combine_tiers

HOUR_S: Final = 3_600
DAY_S: Final = 86_400
REQUEST_LIFE_S: Final = 86_400
"""A withdrawal request is good while block time <= its time + this (vault.md 2)."""

TRADE_LIFE_S: Final = 86_400
"""The plan accepts no trade older than this, so deposits need to be remembered no longer (decision 0010)."""

MAX_NOTES: Final = 64
"""How many of the latest voids, refusals and endings a state remembers, for `explain`."""

ATTESTED_FAMILIES: Final = frozenset({"solana"})
"""Families whose states nobody can prove: operators say what they read (protocol.md 11)."""

Key = tuple[bytes, bytes]
"""(account, asset) or (account, series)."""

TradeKey = tuple[bytes, int, int]
"""(taker, offer, nonce): the key of a trade's record."""


@dataclass(frozen=True, slots=True)
class OpenTrade:
    """A taken offer that waits for the clearing; cost in base units of ``asset``, quantity in 1e-8 contracts."""

    id: bytes
    sequence: int
    stamp: int
    buyer: bytes
    seller: bytes
    series: bytes
    asset: bytes
    quantity: int
    cost: int
    valid_until: int
    taker: bytes
    offer: int
    nonce: int


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A withdrawal request; amount in base units. It lapses 24 h after ``stamp``."""

    id: bytes
    sequence: int
    stamp: int
    account: bytes
    asset: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """The first valid link of an account."""

    portfolio: bytes
    sequence: int
    stamp: int


@dataclass(frozen=True, slots=True)
class RecentDeposit:
    """A deposit of the last day: trades taken earlier do not count it (protocol.md 7.5)."""

    account: bytes
    asset: bytes
    amount: int
    stamp: int


@dataclass(frozen=True, slots=True)
class Caps:
    """Caps of one asset in base units."""

    per_packet: int
    per_hour: int
    per_day: int


@dataclass(frozen=True, slots=True)
class PendingCaps:
    """Caps that take effect at an instant (unix seconds)."""

    at: int
    caps: Caps


@dataclass(frozen=True, slots=True)
class PendingOperators:
    """The operator set that takes over at an instant (unix seconds)."""

    at: int
    threshold: int
    treasurer: bytes
    operators: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Hour and day bucket of the last charge of an asset and what was used in them, base units."""

    hour: int
    hour_used: int
    day: int
    day_used: int


@dataclass(frozen=True, slots=True)
class Note:
    """Something odd, refused or ended: outbox sequence, its time, a stable word and what it is about (trade or request id)."""

    sequence: int
    stamp: int
    reason: str
    subject: bytes


@dataclass(frozen=True, slots=True)
class VaultState:
    """Everything the facts of one vault say. Tables hold no zero entries. Treat the mappings as read-only.

    Amounts in base units, positions in 1e-8 contracts (dues in class units), times in unix seconds. ``operators`` and caps are
    those in force at ``last_stamp``; `get_state_at` brings them to another time.
    """

    vault_id: bytes
    delay_s: int
    created_at: int
    outbox_sequence: int
    outbox_head: bytes
    inbox_sequence: int
    accepted_at: int
    last_stamp: int
    tier: TrustTier
    """The worst of all facts; before the first one, what facts of this vault will have."""
    free: Mapping[Key, int]
    claimable: Mapping[Key, int]
    positions: Mapping[Key, int]
    deposited: Mapping[bytes, int]
    claimed: Mapping[bytes, int]
    series: Mapping[bytes, SeriesDefinition]
    dues: Mapping[bytes, bytes]
    trades: Mapping[TradeKey, OpenTrade]
    requests: Mapping[Key, OpenRequest]
    decided_upto: int
    links: Mapping[bytes, LinkRecord]
    recent_deposits: tuple[RecentDeposit, ...]
    prices: Mapping[bytes, int]
    operators: tuple[bytes, ...]
    threshold: int
    operator_epoch: int
    treasurer: bytes
    pause_used: frozenset[bytes]
    paused: bool
    paused_at: int
    """Block time of the last pause, 0 where there was none."""
    pending_operators: PendingOperators | None
    pending_unpause: int | None
    caps: Mapping[bytes, Caps]
    pending_caps: Mapping[bytes, PendingCaps]
    settlement_windows: Mapping[bytes, Window]
    withdrawal_windows: Mapping[bytes, Window]
    done_count: int
    refused_count: int
    void_count: int
    voids: tuple[Note, ...]
    refusals: tuple[Note, ...]
    endings: tuple[Note, ...]
    contradictions: tuple[Note, ...]


def get_vault_id(vault: VaultParameters) -> bytes:
    """Return the vault id of a vault's parameters (protocol.md 2)."""
    return compute_vault_id(vault.chain, vault.account)


def get_expected_tier(vault: VaultParameters) -> TrustTier:
    """Return the tier that facts of a vault will have (protocol.md 11): its own light client, or the word of m of its n operators."""
    if vault.family in ATTESTED_FAMILIES:
        return TrustTier(ATTESTED, vault.threshold, len(vault.operators))
    return TrustTier(1)


def get_initial_state(vault: VaultParameters) -> VaultState:
    """Return the state of a vault right after its creation, before its first packet (vault.md 1)."""
    vault_id = get_vault_id(vault)
    return VaultState(
        vault_id=vault_id,
        delay_s=vault.delay_s,
        created_at=vault.created_at,
        outbox_sequence=0,
        outbox_head=vault_id,
        inbox_sequence=0,
        accepted_at=vault.created_at,
        last_stamp=vault.created_at,
        tier=get_expected_tier(vault),
        free={},
        claimable={},
        positions={},
        deposited={},
        claimed={},
        series={},
        dues={},
        trades={},
        requests={},
        decided_upto=0,
        links={},
        recent_deposits=(),
        prices={},
        operators=tuple(vault.operators),
        threshold=vault.threshold,
        operator_epoch=0,
        treasurer=vault.treasurer,
        pause_used=frozenset(),
        paused=False,
        paused_at=0,
        pending_operators=None,
        pending_unpause=None,
        caps={c.asset: Caps(c.per_packet, c.per_hour, c.per_day) for c in vault.caps},
        pending_caps={},
        settlement_windows={},
        withdrawal_windows={},
        done_count=0,
        refused_count=0,
        void_count=0,
        voids=(),
        refusals=(),
        endings=(),
        contradictions=(),
    )


def get_state_at(state: VaultState, time: int) -> VaultState:
    """Return the state with the control changes that are in force at ``time`` (>= last_stamp), which need no packet."""
    if not _is_change_due(state, time):
        return state
    work = _Work(state)
    _apply_time(work, time)
    return work.freeze()


def apply_fact(state: VaultState, fact: Fact) -> VaultState:
    """Return the state after one fact; see `apply_facts`."""
    return apply_facts(state, (fact,))


def apply_facts(state: VaultState, facts: Iterable[Fact]) -> VaultState:
    """Return the state after facts that follow each other, oldest first. One copy of the tables, then O(1) per fact.

    Raises:
        Rejected: a fact of another vault or not the next one: the caller's order is wrong ("wrong_vault", "bad_sequence").
            Never because of what an accepted packet says.
    """
    work = _Work(state)
    for fact in facts:
        if fact.vault_id != work.vault_id:
            raise Rejected("a fact of another vault", got=fact.vault_id, expected=work.vault_id, reason="wrong_vault")
        if fact.sequence != work.outbox_sequence + 1:
            raise Rejected(
                "facts must follow each other",
                got=fact.sequence,
                expected=work.outbox_sequence + 1,
                reason="bad_sequence",
            )
        _apply(work, fact)
    return work.freeze()


# ---------------------------------------------------------------- the working copy

_TABLES: Final = (
    "free",
    "claimable",
    "positions",
    "deposited",
    "claimed",
    "series",
    "dues",
    "trades",
    "requests",
    "links",
    "prices",
    "caps",
    "pending_caps",
    "settlement_windows",
    "withdrawal_windows",
)
_NOTES: Final = ("voids", "refusals", "endings")
_LISTS: Final = (*_NOTES, "recent_deposits", "contradictions")
_NAMES: Final = tuple(VaultState.__slots__)


class _Work:
    """A mutable copy of a state; lives only inside one call. Any: the same attribute is a dict here and a Mapping there."""

    def __init__(self, state: VaultState) -> None:
        values: dict[str, Any] = self.__dict__
        for name in _NAMES:
            value = getattr(state, name)
            if name in _TABLES:
                value = dict(value)
            elif name in _LISTS:
                value = list(value)
            values[name] = value
        self.next_change = _get_next_change(state)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value

    def freeze(self) -> VaultState:
        values: dict[str, Any] = {name: self.__dict__[name] for name in _NAMES}
        oldest = values["last_stamp"] - TRADE_LIFE_S
        values["recent_deposits"] = tuple(d for d in values["recent_deposits"] if d.stamp >= oldest)
        for name in _NOTES:
            values[name] = tuple(values[name][-MAX_NOTES:])
        # Contradictions are kept from the first on: the first one says what went wrong.
        values["contradictions"] = tuple(values["contradictions"][:MAX_NOTES])
        return VaultState(**values)

    def record_void(self, fact: Fact, reason: str, subject: bytes = b"") -> None:
        self.void_count += 1
        self.voids.append(Note(fact.sequence, fact.stamp, reason, subject))

    def record_contradiction(self, fact: Fact, reason: str, subject: bytes = b"") -> None:
        self.contradictions.append(Note(fact.sequence, fact.stamp, reason, subject))
        self.record_void(fact, reason, subject)

    def record_ending(self, fact: Fact, reason: str, subject: bytes) -> None:
        self.endings.append(Note(fact.sequence, fact.stamp, reason, subject))


def _add(table: dict[Any, int], key: Any, delta: int) -> None:
    value = table.get(key, 0) + delta
    if value:
        table[key] = value
    else:
        table.pop(key, None)


# ---------------------------------------------------------------- changes by time


def _get_next_change(state: VaultState | _Work) -> int | None:
    times = [pending.at for pending in state.pending_caps.values()]
    if state.pending_operators is not None:
        times.append(state.pending_operators.at)
    if state.pending_unpause is not None:
        times.append(state.pending_unpause)
    return min(times, default=None)


def _is_change_due(state: VaultState, time: int) -> bool:
    at = _get_next_change(state)
    return at is not None and at <= time


def _apply_time(work: _Work, time: int) -> None:
    """A change under delay is in force from block time >= its instant, without a packet (vault.md 2)."""
    if work.next_change is None or time < work.next_change:
        return
    for asset, pending in list(work.pending_caps.items()):
        if pending.at <= time:
            work.caps[asset] = pending.caps
            del work.pending_caps[asset]
    operators = work.pending_operators
    if operators is not None and operators.at <= time:
        work.operators, work.threshold = operators.operators, operators.threshold
        work.treasurer, work.operator_epoch = operators.treasurer, work.operator_epoch + 1
        work.pause_used, work.pending_operators = frozenset(), None
    if work.pending_unpause is not None and work.pending_unpause <= time:
        work.paused, work.pending_unpause = False, None
    work.next_change = _get_next_change(work)


# ---------------------------------------------------------------- one fact


def _apply(work: _Work, fact: Fact) -> None:
    # Combining takes the worst (protocol.md 10); before the first fact the tier was only what is expected.
    work.tier = combine_tiers(work.tier, fact.tier) if work.outbox_sequence else fact.tier
    work.outbox_sequence, work.outbox_head = fact.sequence, fact.head
    # A vault's clock never falls; a proof of an earlier state could not have folded.
    work.last_stamp = max(work.last_stamp, fact.stamp)
    _apply_time(work, fact.stamp)
    if fact.body is None:
        work.record_void(fact, fact.void or "no_body")
        return
    handler = _HANDLERS.get(type(fact.body))
    if handler is None:
        work.record_void(fact, "unknown_kind")
        return
    handler(work, fact, fact.body)


def _apply_deposited(work: _Work, fact: Fact, body: Deposited) -> None:
    _add(work.deposited, body.asset, body.amount)
    _add(work.free, (body.account, body.asset), body.amount)
    work.recent_deposits.append(RecentDeposit(body.account, body.asset, body.amount, fact.stamp))


def _apply_linked(work: _Work, fact: Fact, body: Linked) -> None:
    """The first valid link of an account counts; everything else is void (protocol.md 6)."""
    if body.account in work.links:
        work.record_void(fact, "already_linked", body.account)
        return
    if fact.stamp > body.valid_until:
        work.record_void(fact, "link_expired", body.account)
        return
    try:
        expected = get_evm_address(body.portfolio)
        digest = compute_link_digest(work.vault_id, body.account, body.portfolio, body.valid_until)
        signer = recover_signer(digest, body.r + body.s + bytes([body.v]))
    except Rejected as error:
        work.record_void(fact, "link_" + error.reason, body.account)
        return
    if expected == ZERO20 or signer != expected:
        work.record_void(fact, "link_signer", body.account)
        return
    work.links[body.account] = LinkRecord(body.portfolio, fact.sequence, fact.stamp)


def _apply_series(work: _Work, fact: Fact, body: SeriesListed) -> None:
    if body.series in work.series:
        work.record_contradiction(fact, "series_twice", body.series)
        return
    work.series[body.series] = body.definition
    work.dues[compute_due_id(body.definition.quote_class)] = body.definition.quote_class


def _apply_trade(work: _Work, fact: Fact, body: TradePending) -> None:
    key = (body.taker, body.offer, body.nonce)
    if key in work.trades or body.series not in work.series:
        work.record_contradiction(fact, "trade_record", fact.head)
        return
    work.trades[key] = OpenTrade(
        fact.head,
        fact.sequence,
        fact.stamp,
        body.buyer,
        body.seller,
        body.series,
        body.asset,
        body.quantity,
        body.cost,
        body.valid_until,
        body.taker,
        body.offer,
        body.nonce,
    )


def _apply_request(work: _Work, fact: Fact, body: WithdrawalRequested) -> None:
    key = (body.account, body.asset)
    if key in work.requests:
        work.record_ending(fact, "request_replaced", work.requests[key].id)
    work.requests[key] = OpenRequest(fact.head, fact.sequence, fact.stamp, body.account, body.asset, body.amount)


def _apply_claimed(work: _Work, fact: Fact, body: Claimed) -> None:
    # Tokens have left whatever we think of it; conservation sees the difference.
    _add(work.claimed, body.asset, body.amount)
    if work.claimable.get((body.account, body.asset), 0) < body.amount:
        work.record_contradiction(fact, "claimed_too_much", body.account)
        return
    _add(work.claimable, (body.account, body.asset), -body.amount)


def _apply_escaped(work: _Work, fact: Fact, body: Escaped) -> None:
    key = (body.account, body.asset)
    if work.free.get(key, 0) < body.amount:
        work.record_contradiction(fact, "escaped_too_much", body.account)
        return
    _add(work.free, key, -body.amount)
    _add(work.claimable, key, body.amount)


def _apply_paused(work: _Work, fact: Fact, body: Paused) -> None:
    if work.paused or body.operator not in work.operators or body.operator in work.pause_used:
        work.record_contradiction(fact, "pause", body.operator)
        return
    work.paused, work.paused_at = True, fact.stamp
    work.pause_used |= {body.operator}


def _apply_ack(work: _Work, fact: Fact, ack: Ack) -> None:
    if ack.inbox_sequence != work.inbox_sequence + 1:
        work.record_contradiction(fact, "inbox_sequence")
        return
    work.inbox_sequence, work.accepted_at = ack.inbox_sequence, fact.stamp
    body = fact.inbox_body
    if isinstance(body, Execute):
        # A signed price binds whatever became of its packet: the journals of the signers hold it too (decision 0012). The
        # vault does not look at prices, so a second one is the operators' fault, not the vault's: the first one stands.
        for price in body.prices:
            if work.prices.setdefault(price.series, price.price_e8) != price.price_e8:
                work.record_void(fact, "second_price", price.series)
    if ack.status == AckStatus.REFUSED:
        work.refused_count += 1
        work.refusals.append(Note(ack.inbox_sequence, fact.stamp, str(ack.reason), b""))
        return
    work.done_count += 1
    handler = _INBOX_HANDLERS.get(type(body))
    if handler is None:
        work.record_contradiction(fact, "ack_without_body")
        return
    handler(work, fact, ack, body)


# ---------------------------------------------------------------- packets that were done


def _apply_execute(work: _Work, fact: Fact, _ack: Ack, body: Execute) -> None:
    debits: dict[bytes, int] = {}
    for leg in body.legs:
        if leg.kind == LegKind.CASH:
            if work.free.get((leg.account, leg.id), 0) + leg.delta < 0:
                work.record_contradiction(fact, "cash", leg.account)
                return
            if leg.delta < 0 and leg.account not in (HOUSE, INSURANCE):
                debits[leg.id] = debits.get(leg.id, 0) - leg.delta
        elif leg.id not in work.series and leg.id not in work.dues:
            work.record_contradiction(fact, "unknown_series", leg.id)
            return
    for leg in body.legs:
        _add(work.free if leg.kind == LegKind.CASH else work.positions, (leg.account, leg.id), leg.delta)
    for asset, amount in debits.items():
        _charge(work.settlement_windows, asset, amount, fact.stamp)


def _charge(windows: dict[bytes, Window], asset: bytes, amount: int, time: int) -> None:
    """Buckets floor(time / 3600) and floor(time / 86400); what was used is never given back (protocol.md 4.2)."""
    old = windows.get(asset)
    hour, day = time // HOUR_S, time // DAY_S
    hour_used = old.hour_used if old is not None and old.hour == hour else 0
    day_used = old.day_used if old is not None and old.day == day else 0
    windows[asset] = Window(hour, hour_used + amount, day, day_used + amount)


def _apply_trades(work: _Work, fact: Fact, ack: Ack, body: DecideTrades) -> None:
    for index, item in enumerate(body.items):
        key = (item.taker, item.offer, item.nonce)
        trade = work.trades.get(key)
        done = ack.bitmap >> index & 1
        if trade is None or trade.id != item.id:
            # names nothing: bit 0, and no trade is over by it (vault.md 3)
            if done:
                work.record_contradiction(fact, "unknown_trade", item.id)
            continue
        del work.trades[key]
        work.record_ending(fact, "trade_done" if done else "trade_not_done", trade.id)
        if not done:
            continue
        if work.free.get((trade.buyer, trade.asset), 0) < trade.cost:
            work.record_contradiction(fact, "cash", trade.id)
            continue
        _add(work.free, (trade.buyer, trade.asset), -trade.cost)
        _add(work.free, (trade.seller, trade.asset), trade.cost)
        _add(work.positions, (trade.buyer, trade.series), trade.quantity)
        _add(work.positions, (trade.seller, trade.series), -trade.quantity)
    for key, trade in list(work.trades.items()):
        if trade.sequence <= body.upto:
            del work.trades[key]
            work.record_ending(fact, "trade_over", trade.id)
    work.decided_upto = body.upto


def _apply_withdrawals(work: _Work, fact: Fact, ack: Ack, body: DecideWithdrawals) -> None:
    for index, item in enumerate(body.items):
        if not ack.bitmap >> index & 1:
            continue
        key = (item.account, item.asset)
        request = work.requests.get(key)
        if request is None or request.id != item.id:
            work.record_contradiction(fact, "unknown_request", item.id)
            continue
        if work.free.get(key, 0) < request.amount:
            work.record_contradiction(fact, "cash", request.id)
            continue
        del work.requests[key]
        work.record_ending(fact, "withdrawal_done", request.id)
        payee = work.treasurer if request.account == HOUSE else request.account
        _add(work.free, key, -request.amount)
        _add(work.claimable, (payee, request.asset), request.amount)
        _charge(work.withdrawal_windows, request.asset, request.amount, fact.stamp)


def _apply_rotation(work: _Work, _fact: Fact, _ack: Ack, body: RotateOperators) -> None:
    work.pending_operators = PendingOperators(body.effective, body.threshold, body.treasurer, body.operators)
    work.next_change = _get_next_change(work)


def _apply_caps(work: _Work, fact: Fact, _ack: Ack, body: SetCaps) -> None:
    """Each falling cap falls at once; if any rises, the new triple follows after the delay (vault.md 2)."""
    new = Caps(body.per_packet, body.per_hour, body.per_day)
    old = work.caps.get(body.asset)
    work.pending_caps.pop(body.asset, None)
    if old is not None:
        lowered = Caps(
            min(old.per_packet, new.per_packet), min(old.per_hour, new.per_hour), min(old.per_day, new.per_day)
        )
        work.caps[body.asset] = lowered
        if lowered == new:
            work.next_change = _get_next_change(work)
            return
    work.pending_caps[body.asset] = PendingCaps(fact.stamp + work.delay_s, new)
    work.next_change = _get_next_change(work)


def _apply_unpause(work: _Work, fact: Fact, _ack: Ack, _body: Unpause) -> None:
    work.pending_unpause = fact.stamp + work.delay_s
    work.next_change = _get_next_change(work)


_HANDLERS: Final[Mapping[type, Callable[[_Work, Fact, Any], None]]] = {
    Deposited: _apply_deposited,
    Linked: _apply_linked,
    SeriesListed: _apply_series,
    TradePending: _apply_trade,
    WithdrawalRequested: _apply_request,
    Claimed: _apply_claimed,
    Paused: _apply_paused,
    Escaped: _apply_escaped,
    Ack: _apply_ack,
}
_INBOX_HANDLERS: Final[Mapping[type, Callable[[_Work, Fact, Ack, Any], None]]] = {
    Execute: _apply_execute,
    DecideTrades: _apply_trades,
    DecideWithdrawals: _apply_withdrawals,
    RotateOperators: _apply_rotation,
    SetCaps: _apply_caps,
    Unpause: _apply_unpause,
}


# ---------------------------------------------------------------- questions


def get_used(windows: Mapping[bytes, Window], asset: bytes, time: int) -> tuple[int, int]:
    """Return what is used of the hour and of the day that contain ``time``, base units."""
    window = windows.get(asset)
    if window is None:
        return 0, 0
    return (
        window.hour_used if window.hour == time // HOUR_S else 0,
        window.day_used if window.day == time // DAY_S else 0,
    )


def get_room(caps: Caps | None, windows: Mapping[bytes, Window], asset: bytes, time: int) -> int:
    """Return how much of an asset may still pass at ``time`` and, as used amounts only lapse, at any later time."""
    if caps is None:
        return 0
    hour, day = get_used(windows, asset, time)
    return max(0, min(caps.per_hour - hour, caps.per_day - day))
