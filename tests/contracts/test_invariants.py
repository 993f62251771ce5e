"""Random histories of a vault keep the invariants of protocol.md 4, whatever users, operators and time do.

After every call, accepted or not: per asset, sum(free + claimable) equals the tokens held; per series, sum(position) is 0;
sequences and heads only move forward, and the head is the Python fold of the packets (`World.send` compares it). A refused
packet moves no balance and no position.
"""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from contracts.evm import get_artifact
from messages.bodies import (
    Ack,
    AckStatus,
    DecideTrades,
    DecideWithdrawals,
    Leg,
    RotateOperators,
    SetCaps,
    TradeItem,
    Unpause,
    WithdrawalItem,
)
from messages.digests import get_address
from messages.ids import compute_due_id
from messages.outbox import compute_next_head
from messages.packet import compute_commitment
from tests.contracts.harness import Reverted
from tests.contracts.setting import (
    ALICE,
    BOB,
    CALL,
    CALL_ID,
    CAP,
    CAROL,
    DAY,
    OPERATORS,
    PLAN,
    THRESHOLD,
    TREASURER,
    as_arguments,
    execute,
    get_token_address,
    make_world,
    move,
)
from tests.contracts.vault_world import HOUSE, INSURANCE, Outcome, compute_slot, pad

USERS = (ALICE, BOB, CAROL, TREASURER)
ACCOUNTS = (*map(pad, USERS), HOUSE, INSURANCE)
DUE_ID = compute_due_id(CALL.quote_class)
SERIES = (CALL_ID, DUE_ID)
SLOTS = get_artifact("vault").storage_slots
MASK96 = 2**96 - 1

users = st.sampled_from(USERS)
accounts = st.sampled_from(ACCOUNTS)
asset_numbers = st.integers(0, 1)
amounts = st.integers(0, 3_000)
contracts, premiums = st.integers(1, 20), st.integers(1, 90)
seconds = st.sampled_from([1, 60, 3_600, DAY, DAY, 31 * DAY])


BALANCE_SLOTS = [
    (a, [compute_slot(SLOTS["balances"], account, a) for account in ACCOUNTS])
    for a in (get_token_address(nonce=1), get_token_address(nonce=2))
]
POSITION_SLOTS = [[compute_slot(SLOTS["position"], account, s) for account in ACCOUNTS] for s in SERIES]


class VaultMachine(RuleBasedStateMachine):
    """A vault, its users and a committee that signs whatever the test draws."""

    def __init__(self) -> None:
        super().__init__()
        self.assets = [get_token_address(nonce=1), get_token_address(nonce=2)]
        self.world = make_world(dict.fromkeys(self.assets, (CAP, CAP, CAP)))
        for asset in self.assets:
            assert self.world.deploy_token() == asset
            for user in USERS:
                self.world.fund(asset, user, 10**9)
        self.world.write("list_series", as_arguments(CALL), by=ALICE)
        for user, asset in zip(USERS, self.assets * 2, strict=True):
            self.world.write("deposit", asset, 2_000, pad(user), by=user)
        self.trades: list[TradeItem] = []
        self.requests: list[WithdrawalItem] = []
        self.seen = (0, b"")
        self.accepted = self.refused = 0

    # ---- helpers ----

    def attempt(self, name: str, *args: object, by: bytes) -> Outcome | None:
        """Return what the call did, or None when it reverted (World checks that a revert moved nothing)."""
        try:
            return self.world.write(name, *args, by=by)
        except Reverted:
            return None

    def get_state(self) -> tuple[int, ...]:
        read = self.world.chain.get_storage
        address = self.world.vault.address
        slots = [s for _, column in BALANCE_SLOTS for s in column] + [s for column in POSITION_SLOTS for s in column]
        return tuple(read(address, slot) for slot in slots)

    def certify(self, body: object) -> Ack:
        before = self.get_state()
        ack = self.world.recv(body).ack  # type: ignore[arg-type]  # an inbox body
        if ack.status == AckStatus.REFUSED:
            assert self.get_state() == before, "a refused packet moved something"
            self.refused += 1
        else:
            self.accepted += 1
        return ack

    # ---- users ----

    @rule(user=users, asset=asset_numbers, amount=amounts, beneficiary=accounts)
    def deposit(self, user: bytes, asset: int, amount: int, beneficiary: bytes) -> None:
        self.attempt("deposit", self.assets[asset], amount, beneficiary, by=user)

    @rule(user=users, side=st.integers(0, 1), asset=asset_numbers, contracts=contracts, premium=premiums)
    def offer(self, user: bytes, side: int, asset: int, contracts: int, premium: int) -> None:
        until = self.world.time + DAY
        self.attempt("offer", side, CALL_ID, self.assets[asset], contracts * 10**8, premium, until, by=user)

    @rule(maker=users, side=st.integers(0, 1), contracts=contracts, premium=premiums, taker=users, data=st.data())
    def trade(self, maker: bytes, side: int, contracts: int, premium: int, taker: bytes, data: st.DataObject) -> None:
        """A whole trade in one rule, or random histories would hardly ever have one."""
        buyer = maker if side == 0 else taker
        asset = USERS.index(buyer) % 2  # what the buyer began with
        self.offer(maker, side, asset, contracts, premium)
        self.take(taker, self.world.vault.read("offer_count"), 1, data.draw(st.integers(0, 2)), house=False)
        if self.trades and data.draw(st.booleans()):
            self.certify(DecideTrades(PLAN, 0, (self.trades[-1],)))

    @rule(user=users, amount=amounts, house=st.booleans())
    def withdraw(self, user: bytes, amount: int, house: bool) -> None:
        """A request with its decision and its claim."""
        asset = USERS.index(user) % 2
        self.request_withdrawal(user, asset, amount, house)
        if self.requests:
            self.certify(DecideWithdrawals(PLAN, (self.requests[-1],)))
            self.claim(user, pad(user), asset)

    @rule(
        user=users,
        number=st.integers(1, 6),
        part=st.sampled_from([1, 2, 10]),
        nonce=st.integers(0, 2),
        house=st.booleans(),
    )
    def take(self, user: bytes, number: int, part: int, nonce: int, house: bool) -> None:
        number = min(number, self.world.vault.read("offer_count"))
        quantity = self.world.vault.read("get_offer", number)[5] // part
        out = self.attempt("take", number, quantity, nonce, house, by=user)
        if out is not None:
            assert isinstance(out.value, bytes)
            self.trades.append(TradeItem(out.value, HOUSE if house else pad(user), number, nonce))

    @rule(user=users, number=st.integers(1, 4))
    def cancel(self, user: bytes, number: int) -> None:
        self.attempt("cancel", number, by=user)

    @rule(user=users, asset=asset_numbers, amount=amounts, house=st.booleans())
    def request_withdrawal(self, user: bytes, asset: int, amount: int, house: bool) -> None:
        out = self.attempt("request_withdrawal", self.assets[asset], amount, house, by=user)
        if out is not None:
            assert isinstance(out.value, bytes)
            self.requests.append(WithdrawalItem(out.value, HOUSE if house else pad(user), self.assets[asset]))

    @rule(user=users, account=accounts, asset=asset_numbers)
    def claim(self, user: bytes, account: bytes, asset: int) -> None:
        self.attempt("claim", account, self.assets[asset], by=user)

    @rule(user=users, asset=asset_numbers)
    def escape(self, user: bytes, asset: int) -> None:
        self.attempt("escape", self.assets[asset], by=user)

    @precondition(lambda self: self.world.sequence % 7 == 0)  # seldom: little happens while paused
    @rule(key=st.sampled_from(OPERATORS))
    def pause(self, key: bytes) -> None:
        self.attempt("pause", self.world.sign_pause(key), by=ALICE)

    @rule(wait=seconds)
    def pass_time(self, wait: int) -> None:
        self.world.set_time(self.world.time + wait)

    # ---- the committee ----

    @rule(
        cash=st.lists(st.tuples(asset_numbers, accounts, accounts, st.integers(1, 1_500)), max_size=3),
        dues=st.lists(st.tuples(accounts, accounts, st.integers(1, 1_500)), max_size=2),
        error=st.sampled_from([0, 0, 0, 0, 1]),
    )
    def execute(
        self, cash: list[tuple[int, bytes, bytes, int]], dues: list[tuple[bytes, bytes, int]], error: int
    ) -> None:
        deltas: dict[tuple[int, bytes, bytes], int] = {}
        for number, source, target, amount in cash:
            for leg in move(self.assets[number], source, target, amount):
                key = (0, leg.account, leg.id)
                deltas[key] = deltas.get(key, 0) + leg.delta
        for source, target, amount in dues:
            for account, delta in ((source, -amount), (target, amount)):
                deltas[1, account, DUE_ID] = deltas.get((1, account, DUE_ID), 0) + delta
        legs = [Leg(*key, delta) for key, delta in deltas.items() if delta]
        if legs and error:
            legs[0] = Leg(legs[0].kind, legs[0].account, legs[0].id, legs[0].delta + error)
        ack = self.certify(execute(*legs))
        if legs and error:
            assert ack.status == AckStatus.REFUSED, "a packet whose legs do not sum to 0"

    @rule()
    def close_positions(self) -> None:
        """Bring every option position to 0, as at expiry."""
        positions = {a: self.world.vault.read("position", a, CALL_ID) for a in ACCOUNTS}
        self.certify(execute(*(Leg(1, a, CALL_ID, -n) for a, n in positions.items() if n)))

    @precondition(lambda self: self.trades)
    @rule(data=st.data())
    def decide_trades(self, data: st.DataObject) -> None:
        items = data.draw(st.lists(st.sampled_from(self.trades), max_size=4))
        upto = data.draw(st.sampled_from([0, self.world.sequence // 2, self.world.sequence, self.world.sequence + 1]))
        self.certify(DecideTrades(PLAN, upto, tuple(items)))

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def decide_withdrawals(self, data: st.DataObject) -> None:
        items = data.draw(st.lists(st.sampled_from(self.requests), max_size=4))
        self.certify(DecideWithdrawals(PLAN, tuple(items)))

    @rule(asset=asset_numbers, caps=st.tuples(*[st.sampled_from([1, 1_000, CAP])] * 3))
    def set_caps(self, asset: int, caps: tuple[int, int, int]) -> None:
        self.certify(SetCaps(self.assets[asset], *caps))

    @rule()
    def unpause(self) -> None:
        self.certify(Unpause())

    @rule(wait=st.sampled_from([0, DAY, 2 * DAY]))
    def rotate(self, wait: int) -> None:
        operators = tuple(get_address(k) for k in OPERATORS)
        self.certify(RotateOperators(self.world.epoch + 1, THRESHOLD, self.world.time + wait, pad(CAROL), operators))

    # ---- what always holds ----

    @invariant()
    def every_token_is_owned_once(self) -> None:
        read, address = self.world.chain.get_storage, self.world.vault.address
        for asset, slots in BALANCE_SLOTS:
            words = [read(address, slot) for slot in slots]
            assert all(word >> 192 == 0 for word in words)
            assert sum((word & MASK96) + (word >> 96) for word in words) == self.world.get_held(asset)

    @invariant()
    def positions_of_a_series_sum_to_nothing(self) -> None:
        read, address = self.world.chain.get_storage, self.world.vault.address
        for slots in POSITION_SLOTS:
            words = [read(address, slot) for slot in slots]
            assert sum(word - 2**256 if word >> 255 else word for word in words) == 0

    @invariant()
    def the_count_of_negative_positions_is_right(self) -> None:
        read, address = self.world.chain.get_storage, self.world.vault.address
        for i, account in enumerate(ACCOUNTS[:4]):
            negatives = sum(read(address, column[i]) >> 255 for column in POSITION_SLOTS)
            assert read(address, compute_slot(SLOTS["negatives"], account)) == negatives

    @invariant()
    def sequences_and_heads_only_move_forward(self) -> None:
        sequence, head = self.seen
        assert self.world.sequence >= sequence
        assert (self.world.head == head) == (self.world.sequence == sequence) or not head
        self.seen = (self.world.sequence, self.world.head)
        self.world.epoch = self.world.vault.read("get_control")[3]

    def teardown(self) -> None:
        head = self.world.vault_id
        for packet in self.world.packets:
            head = compute_next_head(head, packet.sequence, compute_commitment(packet))
        assert self.world.get_head() == head
        assert self.accepted + self.refused == self.world.vault.read("inbox_sequence")


IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
VaultMachine.TestCase.settings = settings(
    max_examples=300 if IS_THOROUGH else 10, stateful_step_count=50 if IS_THOROUGH else 25, deadline=None
)
test_random_histories_keep_the_invariants = VaultMachine.TestCase
