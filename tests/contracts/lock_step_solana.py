"""The third vault of the lock step: the committed Solana program in LiteSVM beside bytecode and wasm.

The same calls, in symbols; here a symbol also stands for a user, who is an ed25519 key. Where the program differs on
purpose (contracts/solana/README.md, "What differs"), the difference is said in advance by `Trio.predict`, from what the bytecode
does when the same is put in other words, and what the program does is held to it exactly:

* amounts below 2^64 and deltas of legs below 2^63, where the others go up to 2^96;
* 32 legs, where the bytecode takes 64;
* what the compact form cannot say (another envelope, what is no canonical body, a signature of another length) fails before it
  is sent, and must be refused by the others.

A carrier of a packet may choose how it says it there (longer forms, more accounts); here it is said in many ways, and all must come
to the same.

After a difference of the first two kinds histories could not go on together, so that step is taken back on all sides. Nothing is
left out without a comparison, and `Counts.differences` tells how often which difference came up.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.transaction import VersionedTransaction

from contracts.solana import client as c
from messages.bodies import (
    EVM_LIMITS,
    SOLANA_LIMITS,
    Ack,
    AckStatus,
    DecideTrades,
    DecideWithdrawals,
    Execute,
    InboxBody,
    Leg,
    Limits,
    Reason,
    SeriesDefinition,
    SetCaps,
    decode_inbox_body,
    encode_body,
)
from messages.digests import get_address
from messages.errors import Rejected
from messages.ids import compute_denom_asset
from messages.packet import Packet
from tests.contracts import solana_harness
from tests.contracts.evm_state import RawEvm
from tests.contracts.lock_step import (
    ACCOUNTS,
    ASSETS,
    CAPS,
    COIN,
    CURSORS,
    DENOM,
    KINDS,
    MAX96,
    TOKENS,
    UNKNOWN_ASSET,
    USERS,
    Diverged,
    Known,
    Pair,
    Refusal,
    Side,
    Signing,
    Step,
    Widths,
    pad,
)
from tests.contracts.setting import DAY, KEYS, START, TREASURER
from tests.contracts.solana_harness import HOUSE, INSURANCE, TOKEN_REFUSAL, Machine, SolanaWorld
from tests.contracts.solana_state import RawSolana
from tests.contracts.twins import Twin
from tests.contracts.vault_world import Outcome

M64: Final = 2**64
M63: Final = 2**63
NARROW: Final = Widths(
    amounts=(0, 1, 2**62 - 200_000, M63, M64 - 1, M64, MAX96, 2**128),
    caps=(1, 10_000, 20_000, 40_000, 60_000, 10**6, M64 - 1),
    bad_caps=(0, M64, MAX96, MAX96 + 1, 2**256 - 1),
    deltas=(M63 - 1, 1 - M63, M63, -M63, M64, -M64, 2**96, -(2**96), 2**255 - 1, -(2**255)),
    rich=(2**62 - 10**6, 2**62 - 2 * 10**6),
    large=32,
    purse=2**62 - 1,  # all tokens of a mint together are below 2^64
)
UNSPEAKABLE: Final = Refusal("the compact form cannot say it")
AMOUNTS: Final = ("amount", "quantity", "premium_per_contract")
LATE_CHECKS: Final = (Reason.NONE, Reason.SUM, Reason.CAP)  # of a body whose legs are good one by one


def _make_users() -> list[Keypair]:
    """Return keys in the order of USERS, all below HOUSE and INSURANCE: legs are sorted by accounts."""
    made = (Keypair.from_seed(hashlib.sha256(b"user %d" % i).digest()) for i in range(100))
    keys = [key for key in made if bytes(key.pubkey()) < min(HOUSE, INSURANCE)][: len(USERS)]
    ranks = sorted(range(len(USERS)), key=USERS.__getitem__)
    by_rank = sorted(keys, key=lambda key: bytes(key.pubkey()))
    return [by_rank[ranks.index(i)] for i in range(len(USERS))]


@dataclass(frozen=True)
class Field:
    """Bytes of the content of a kind of record (of the whole state account where ``tag`` is None)."""

    tag: c.Tag | None
    start: int
    end: int

    def find(self, data: bytes) -> slice | None:
        """Return where the bytes are in the data of an account; None if it is of another kind."""
        if self.tag is None:
            return slice(self.start, self.end) if data[:8] == c.STATE_MAGIC else None
        at = c.KEYS_AT + c.KEY_BYTES[self.tag]
        return slice(at + self.start, at + self.end) if data[0] == self.tag else None


class JournalMachine(Machine):
    """A machine that can be taken back: what transactions may write is noted before they run."""

    def __init__(self, time: int, program: bytes = b"") -> None:
        self.journals: list[dict[Pubkey, Account | None]] = [{}]
        self.before: dict[Pubkey, Account | None] = {}  # the last transaction
        super().__init__(time, program)

    def sign(
        self, instructions: Sequence[Instruction], signers: Sequence[Keypair] = (), table: Sequence[Pubkey] = ()
    ) -> VersionedTransaction:
        written = {a.pubkey for i in instructions for a in i.accounts if a.is_writable}
        self.before = {key: self.svm.get_account(key) for key in written}
        self.journals[-1] = {**self.before, **self.journals[-1]}
        return super().sign(instructions, signers, table)

    def begin(self) -> Callable[[], None]:
        """Return what takes every account back to now; several are called in the reverse order."""
        self.journals.append({})

        def restore() -> None:
            for key, account in self.journals.pop().items():
                self.svm.set_account(key, account or Account(0, b"", SYSTEM_PROGRAM))

        return restore

    def forget(self, part: Field) -> None:
        """Undo what the last transaction wrote to a field of records that were there before: a weak vault."""
        for key, account in self.before.items():
            data = self.read(key)
            if account is None or data is None or len(account.data) != len(data):
                continue
            where = part.find(data)
            if where is not None and account.data[where] != data[where]:
                changed = data[: where.start] + bytes(account.data[where]) + data[where.stop :]
                self.put(key, solana_harness.PROGRAM, changed)


class SolanaSide(Side):
    """The program."""

    name = "program"

    def __init__(self, purse: int, program: bytes = b"") -> None:
        super().__init__()
        coin = compute_denom_asset(DENOM)
        self.machine = JournalMachine(START, program)
        self.forgets: Field | None = None
        keys = _make_users()
        treasurer = bytes(keys[USERS.index(TREASURER)].pubkey())
        self.world = world = SolanaWorld(
            [get_address(k) for k in KEYS[:4]],
            3,
            treasurer,
            dict.fromkeys((*TOKENS[:2], coin), CAPS),
            DAY,
            START,
            machine=self.machine,
        )
        self.vault_id, self.client = world.vault_id, world.client
        self.bind(COIN, coin)
        for user, key in zip(USERS, keys, strict=True):
            self.bind(pad(user), world.add_key(bytes(key.secret())))
        for asset in (*TOKENS[:2], coin):
            world.deploy_token(asset)
            for key in keys:
                world.fund(asset, bytes(key.pubkey()), purse)

    # ---- calls ----

    def run(self, step: Step, epoch: int) -> Outcome | Refusal:
        world = self.world
        world.set_time(step.time)
        try:
            out = self._recv(step, epoch) if step.name == "recv" else self._call(step, epoch)
        except solana_harness.Reverted as error:
            if error.reason == TOKEN_REFUSAL:
                return Refusal("transfer")
            if error.reason not in c.ERRORS.values():
                raise Diverged(f"the program failed outside of its checks: {error.reason} {error.logs[-3:]}") from error
            return Refusal(error.reason)
        if isinstance(out, Refusal):
            return out
        if self.forgets is not None:
            self.machine.forget(self.forgets)
        value: object = out.value or None
        if step.name == "offer":
            value = int.from_bytes(out.value, "little")
        return Outcome(value, out.packet, out.inbox, (), out.units, 0)

    def _recv(self, step: Step, epoch: int) -> solana_harness.Outcome | Refusal:
        packet, signatures = self.make_recv(step, epoch)

        def vary(instruction: Instruction) -> Instruction:
            return vary_delivery(instruction, packet, random.Random(step.number))

        try:
            out = self.world.bring(packet, signatures, vary)
        except Rejected:
            return UNSPEAKABLE
        self.inbox_sequence, self.last = packet.sequence, (packet, signatures)
        return out

    def _call(self, step: Step, epoch: int) -> solana_harness.Outcome | Refusal:
        if has_wide_amount(step):
            return UNSPEAKABLE
        args = {k: self.to_words(v) if isinstance(v, bytes) else v for k, v in step.args.items()}
        by = self.to_words(pad(step.by))
        if isinstance(args.get("signature"), Signing):
            args["signature"] = self.make_pause(args["signature"], epoch)
        if len(args.get("signature", bytes(65))) != 65:
            return UNSPEAKABLE
        make = getattr(self, f"_make_{step.name}")
        return self.world.send([make(self.world.keys[by].pubkey(), **args)], by)

    def _make_deposit(self, by: Pubkey, **args: Any) -> Instruction:
        return c.make_deposit(self.world.vault, by, **args)

    def _make_link(self, by: Pubkey, **args: Any) -> Instruction:
        return c.make_link(self.world.vault, by, **args)

    def _make_list_series(self, by: Pubkey, definition: SeriesDefinition) -> Instruction:
        return c.make_list_series(self.world.vault, by, definition)

    def _make_offer(self, by: Pubkey, **args: Any) -> Instruction:
        return c.make_offer(self.world.vault, by, self.world.state.offer_count + 1, **args)

    def _make_cancel(self, by: Pubkey, offer: int) -> Instruction:
        return c.make_cancel(self.world.vault, by, offer)

    def _make_take(self, by: Pubkey, offer: int, quantity: int, nonce: int, for_house: bool) -> Instruction:
        maker, _, asset, *_, side, _ = self.world.load(c.get_offer_id(offer))
        buyer: Any = maker if side == 0 else HOUSE if for_house else bytes(by)
        terms: Any = (offer, quantity, nonce, buyer, asset)
        return c.make_take(self.world.vault, by, *terms, for_house=for_house)

    def _make_request_withdrawal(self, by: Pubkey, **args: Any) -> Instruction:
        return c.make_request_withdrawal(self.world.vault, by, **args)

    def _make_claim(self, by: Pubkey, **args: Any) -> Instruction:
        return c.make_claim(self.world.vault, by, **args)

    def _make_escape(self, by: Pubkey, **args: Any) -> Instruction:
        return c.make_escape(self.world.vault, by, **args)

    def _make_pause(self, by: Pubkey, **args: Any) -> Instruction:
        return c.make_pause(self.world.vault, by, **args)

    # ---- state ----

    def read(self, known: Known) -> dict[str, Any]:
        """Return the same of the program's accounts as `read_evm` of the bytecode's storage."""
        world, word, symbol = self.world, self.to_words, self.to_symbols
        raw, now = RawSolana(world), world.time
        state: dict[str, Any] = {}
        for account in ACCOUNTS:
            key = word(account)
            for asset in (*ASSETS, UNKNOWN_ASSET):
                state["balance", account, asset] = raw.get_balance(key, word(asset))
                request = raw.get_request(key, word(asset))
                state["request", account, asset] = (symbol(request[0]), *request[1:]) if request else None
            for kind in KINDS:
                state["position", account, kind] = raw.get_position(key, kind)
            state["negatives", account] = raw.get_negatives(key)
        control = raw.get_control(now)
        following = control["next"]
        if following:
            following = (*following[:2], symbol(following[2]), following[3])
        state["control"] = {**control, "treasurer": symbol(control["treasurer"]), "next": following}
        for asset in (*ASSETS, UNKNOWN_ASSET):
            state["caps", asset] = raw.get_caps(word(asset), now)
            state["windows", asset] = raw.get_windows(word(asset))
        cursors = raw.get_cursors()
        state["cursors"] = tuple(cursors[name] for name in CURSORS)
        for number in sorted({n for n, _, _ in known.offers}):
            offer = raw.get_offer(number)
            if offer:
                maker, side, series, asset, *rest = offer
                state["offer", number] = (symbol(maker), side, series, symbol(asset), *rest)
        for _, taker, number, nonce in known.trades:
            trade = raw.get_trade(word(taker), number, nonce)
            state["trade", taker, number, nonce] = (symbol(trade[0]), *trade[1:]) if trade else None
        for kind in KINDS:
            state["series", kind] = raw.get_series(kind)
        for asset in ASSETS:
            for user in USERS:
                state["held", asset, user] = world.get_held(word(asset), word(pad(user)))
            state["held", asset, b"vault"] = world.get_held(word(asset))
        return state

    def verify_nothing_hidden(self, state: dict[str, Any]) -> None:
        """Check that no record holds a balance, position or request beside those that were compared; AssertionError."""
        tables = {c.Tag.BALANCE: "balance", c.Tag.POSITION: "position", c.Tag.REQUEST: "request"}
        found = dict.fromkeys(tables.values(), 0)
        for _, account in self.machine.svm.get_program_accounts(solana_harness.PROGRAM):
            data = bytes(account.data)
            if not data or data[0] not in tables:
                continue
            tag = c.Tag(data[0])
            content = data[c.KEYS_AT + c.KEY_BYTES[tag] :]
            found[tables[tag]] += any(content[32:48] if tag == c.Tag.REQUEST else content)
        for name, count in found.items():
            known = sum(1 for key, value in state.items() if key[0] == name and value not in (0, (0, 0), None))
            assert count == known, f"{count} records of {name}, {known} known"

    def begin(self) -> Callable[[], None]:
        world, undo = self.world, self.machine.begin()
        saved = world.head, world.sequence, world.inbox_sequence, self.inbox_sequence, self.last, world.time
        words, symbols, packets = dict(self.words), dict(self.symbols), list(world.packets)

        def restore() -> None:
            undo()
            world.head, world.sequence, world.inbox_sequence, self.inbox_sequence, self.last, time = saved
            world.set_time(time)
            self.words, self.symbols, world.packets = words, symbols, packets

        return restore


# ---- what a carrier may choose ----------------------------------------------------------------------------------------


class _Bytes:
    """What is left of an instruction's data."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        taken, self.data = self.data[:count], self.data[count:]
        assert len(taken) == count, "the data of a delivery ended early"
        return taken


def vary_delivery(instruction: Instruction, packet: Packet, chance: random.Random) -> Instruction:
    """Return a delivery that says the same packet in another way: more accounts, longer forms of legs, items and prices."""
    rest = _Bytes(bytes(instruction.data))
    out = rest.take(17)
    count = rest.take(1)
    out += count + rest.take(65 * count[0])
    count = rest.take(1)
    out += count
    for _ in range(count[0]):
        head = rest.take(2)
        out += head + rest.take(c.KEY_BYTES[c.Tag(head[1])])
    out += rest.take(1)
    body = decode_inbox_body(packet.payloads[0].value, SOLANA_LIMITS)
    match body:
        case Execute():
            out += rest.take(32) + rest.take(1)
            out += b"".join(_vary_price(rest, price.series, chance) for price in body.prices)
            out += rest.take(1) + b"".join(_vary_leg(rest, leg, chance) for leg in body.legs)
        case DecideTrades() | DecideWithdrawals():
            out += rest.take(32) + (rest.take(8) if isinstance(body, DecideTrades) else b"") + rest.take(1)
            out += b"".join(_vary_item(rest, item.id, chance) for item in body.items)
        case _:
            out += rest.take(len(rest.data))
    assert not rest.data
    accounts = list(instruction.accounts)
    for _ in range(chance.randrange(3)):  # repeated, or of no use
        stranger = AccountMeta(SYSTEM_PROGRAM, is_signer=False, is_writable=False)
        accounts.append(chance.choice([*accounts, stranger]))
    return Instruction(instruction.program_id, out, accounts)


def _vary_price(rest: _Bytes, series: bytes, chance: random.Random) -> bytes:
    index = rest.take(1)
    if index[0] == c.EXPLICIT:
        index += rest.take(32)
    elif chance.randrange(2):
        index = bytes([c.EXPLICIT]) + series
    price = rest.take(rest.take(1)[0])
    if len(price) < 32 and chance.randrange(2):
        price = b"\0" + price
    return index + bytes([len(price)]) + price


def _vary_leg(rest: _Bytes, leg: Leg, chance: random.Random) -> bytes:
    index = rest.take(1)
    if index[0] == c.EXPLICIT:
        return index + rest.take(34)
    usual = index + rest.take(8)
    word = (leg.delta % 2**256).to_bytes(32, "big")
    return bytes([c.EXPLICIT]) + index + bytes([leg.kind]) + word if chance.randrange(4) == 0 else usual


def _vary_item(rest: _Bytes, identity: bytes, chance: random.Random) -> bytes:
    index, is_explicit = rest.take(1), rest.take(1)
    if is_explicit[0]:
        return index + is_explicit + rest.take(32)
    return index + b"\1" + identity if chance.randrange(2) else index + is_explicit


# ---- where the program differs on purpose -----------------------------------------------------------------------------


def has_wide_amount(step: Step) -> bool:
    """Tell whether a user call names an amount that is no u64."""
    return any(step.args.get(name, 0) >= M64 for name in AMOUNTS)


def is_unspeakable(step: Step, *, is_replay: bool) -> bool:
    """Tell whether the call cannot be said to the program: a wide amount, a short signature, another envelope or body."""
    if step.name != "recv":
        signature = step.args.get("signature", bytes(65))
        flaw = signature.flaw if isinstance(signature, Signing) else ""
        length = 65 if isinstance(signature, Signing) else len(signature)
        return has_wide_amount(step) or flaw in ("short", "long") or length != 65
    if is_replay:
        return False  # of a packet that was said before
    args = step.args
    right = {"source_port": "optsettle", "destination_port": "optsettle", "version": "optsettle-1"}
    if args["copies"] != 1 or any(right.get(name) != text for name, text in args["fields"].items()):
        return True
    return _read_body(args["value"], SOLANA_LIMITS) is None


def _read_body(value: bytes, limits: Limits) -> InboxBody | None:
    """Return the body of a value, None if it has none within the limits of a family."""
    try:
        return decode_inbox_body(value, limits)
    except Rejected:
        return None


@dataclass(frozen=True)
class Prediction:
    """What the program must do where it differs: fail with ``word``, or say the ``ack`` (status, reason, bitmap)."""

    name: str
    word: str = ""
    ack: tuple[int, int, int] | None = None


class Trio(Pair):
    """Bytecode, wasm and program."""

    widths = NARROW

    def __init__(self, twin: Twin | None = None, engine: str = "", program: bytes = b"") -> None:
        self.program = SolanaSide(NARROW.purse, program)
        super().__init__(twin, engine)

    def make_more_sides(self) -> list[Side]:
        return [self.program]

    def step(self, step: Step, known: Known) -> bool:
        prediction = self.predict(step)
        if prediction is None:
            return super().step(step, known)
        self.step_apart(step, prediction)
        return False

    def _is_replay(self, step: Step) -> bool:
        return bool(step.args.get("replay")) and self.evm.last is not None

    def step_apart(self, step: Step, prediction: Prediction) -> None:
        """Run a step in which the program differs, hold it to what was predicted, and take it back; Diverged."""
        undo = [side.begin() for side in self.sides]
        try:
            evm, wasm, program = self.run_all(step)
            self.compare_with_first(step, self.cosmos, evm, wasm)
            told = _describe(prediction.name, program)
            if told != prediction:
                raise Diverged(f"the program should have differed as {prediction}, but: {told}")
        finally:
            for restore in undo:
                restore()
        self.counts.steps += 1
        self.counts.differences[prediction.name] = self.counts.differences.get(prediction.name, 0) + 1

    def is_same_word(self, step: Step, side: Side, a: Refusal, b: Refusal) -> bool:
        if side is not self.program:
            return super().is_same_word(step, side, a, b)
        if b == UNSPEAKABLE or is_unspeakable(step, is_replay=self._is_replay(step)):
            return b == UNSPEAKABLE and is_unspeakable(step, is_replay=self._is_replay(step))
        return super().is_same_word(step, side, a, b)

    # ---- predictions ----

    def predict(self, step: Step) -> Prediction | None:
        """Return how the program must differ from the bytecode in a step; None: not at all."""
        if step.name != "recv":
            is_accepted = has_wide_amount(step) and isinstance(self.ask(step), Outcome)
            return Prediction("wide amount", UNSPEAKABLE.word) if is_accepted else None
        body = _read_body(step.args["value"], EVM_LIMITS)
        match body:
            case _ if self._is_replay(step):
                return None  # refused by all
            case Execute() if max(len(body.legs), len(body.prices)) > SOLANA_LIMITS.max_legs:
                is_accepted = isinstance(self.ask(step), Outcome)
                return Prediction("more than 32 legs", UNSPEAKABLE.word) if is_accepted else None
            case Execute():
                return self._predict_execute(step, body)
            case SetCaps() if any(M64 <= cap <= MAX96 for cap in (body.per_packet, body.per_hour, body.per_day)):
                told = self.ask_ack(step)
                if told is not None and told.status == AckStatus.DONE:
                    return Prediction("wide cap", ack=(AckStatus.REFUSED, Reason.RANGE, 0))
        return None

    def ask(self, step: Step, body: InboxBody | None = None) -> Outcome | Refusal:
        """Return what the bytecode would do, with another body if one is given; nothing is kept."""
        if body is not None:
            step = replace(step, args={**step.args, "value": encode_body(body)})
        undo = self.evm.begin()
        try:
            return self.evm.run(step, self.get_epoch(step.time))
        finally:
            undo()

    def ask_ack(self, step: Step, body: InboxBody | None = None) -> Ack | None:
        out = self.ask(step, body)
        return out.ack if isinstance(out, Outcome) else None

    def _predict_execute(self, step: Step, body: Execute) -> Prediction | None:
        """The first leg that is too wide for the program decides, unless all refuse the packet for a leg before it."""
        raw, word = RawEvm(self.evm.world), self.evm.to_words
        for i, leg in enumerate(body.legs):
            is_wide = M63 <= abs(leg.delta) <= MAX96
            is_full = leg.kind == 0 and leg.delta + raw.get_balance(leg.account, word(leg.id))[0] >= M64
            if not is_wide and not is_full:
                continue
            told = self.ask_ack(step)
            before = self.ask_ack(step, replace(body, legs=body.legs[:i]))
            if told is None or before is None or before.reason not in LATE_CHECKS:
                return None
            if is_wide:
                reason = Reason.LEG_KIND if leg.kind > 1 else Reason.RANGE
            else:
                upto = self.ask_ack(step, replace(body, legs=body.legs[: i + 1]))
                assert upto is not None
                reason = Reason.OVERFLOW if upto.reason in LATE_CHECKS else Reason(upto.reason)
            name = "wide leg" if is_wide else "full balance"
            return None if reason == told.reason else Prediction(name, ack=(AckStatus.REFUSED, reason, 0))
        return None


def _describe(name: str, out: Outcome | Refusal) -> Prediction:
    if isinstance(out, Refusal):
        return Prediction(name, out.word)
    return Prediction(name, ack=(out.ack.status, out.ack.reason, out.ack.bitmap)) if out.inbox else Prediction(name)
