"""One history, several vaults: the compiled bytecode and the committed wasm get the same calls and must say the same.

A step is written in symbols where the two differ by nature: the id of a trade or request (it is a head, and heads start at the
vault id), and the third asset (an ERC-20 there, a bank coin here). Each side puts its own words in; everything a side says is
put back into symbols and compared: accepted or not, the word of a refusal, the returned value, every byte of the outbox packet, and
the state. The generator chooses what to try next from what the bytecode holds; it judges nothing.

Left out, because the families differ there on purpose: accounts above 20 bytes, 65 to 128 legs, register_denom. The third
vault, the Solana program, joins in `lock_step_solana.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from messages.bodies import (
    Ack,
    AckStatus,
    DecideTrades,
    DecideWithdrawals,
    Execute,
    Leg,
    RotateOperators,
    SeriesDefinition,
    SeriesPrice,
    SetCaps,
    TradeItem,
    Unpause,
    WithdrawalItem,
    compute_series_id,
    encode_body,
)
from messages.digests import SECP256K1_N, compute_packet_digest, compute_pause_digest, get_address, sign_digest
from messages.hashing import keccak256
from messages.ids import compute_denom_asset, compute_due_id, encode_name
from messages.packet import Packet, Payload, compute_commitment
from tests.contracts import cosmos_harness, harness
from tests.contracts.cosmos_state import BALANCE, LOCK, POSITION, REQUEST, RawState, read_token
from tests.contracts.cosmos_world import CosmosWorld, encode_definition, encode_recv
from tests.contracts.evm_engines import make_chain
from tests.contracts.evm_state import RawEvm
from tests.contracts.setting import (
    ALICE,
    BOB,
    CALL,
    CAROL,
    DAY,
    KEYS,
    PLAN,
    START,
    TREASURER,
    as_arguments,
    get_leg_key,
    get_token_address,
)
from tests.contracts.twins import Twin
from tests.contracts.vault_world import HOUSE, INSURANCE, Outcome, World, pad

HOUR = 3_600
MAX96 = 2**96 - 1
USERS = (ALICE, BOB, CAROL, TREASURER)
ACCOUNTS = (*map(pad, USERS), HOUSE, INSURANCE)
NOBODY = bytes(32)
UNKNOWN_ASSET = pad(b"\x77" * 20)
DENOM = "ibc/third"
CAPS = (20_000, 40_000, 60_000)
PURSE = 2**97  # what users hold of every asset
FIRST_DEPOSIT = 100_000


def _find_deployer() -> bytes:
    """Return a deployer whose third token sorts behind the first two, as the id of a bank coin does."""
    for i in range(100):
        deployer = keccak256(b"deployer %d" % i)[12:]
        first, second, third = (get_token_address(deployer, nonce) for nonce in (1, 2, 3))
        if third > max(first, second):
            return deployer
    raise AssertionError("no such deployer")


EVM_DEPLOYER = _find_deployer()
TOKENS = tuple(get_token_address(EVM_DEPLOYER, nonce) for nonce in (1, 2, 3))
COIN = b"\xff" * 16 + b"the third asset!"  # symbol
ASSETS = (*TOKENS[:2], COIN)


def make_symbol(number: int) -> bytes:
    """Return the word that stands for the id made by step ``number``."""
    return b"\xee" * 24 + number.to_bytes(8, "big")


def _define(**changes: Any) -> SeriesDefinition:
    fields = {name: getattr(CALL, name) for name in SeriesDefinition.__dataclass_fields__}
    return SeriesDefinition(**{**fields, "expiry": START + 3 * DAY, **changes})


DEFINITIONS = (
    _define(),
    _define(expiry=START + 30 * DAY, right=0, strike_e8=1),
    _define(expiry=START + 400 * DAY, quote_class=encode_name("EUR"), multiplier_e8=MAX96),
    _define(expiry=START + DAY, quote_class=encode_name("EUR"), strike_e8=MAX96),
)
BAD_DEFINITIONS = (
    _define(strike_e8=0),
    _define(strike_e8=2**96),
    _define(multiplier_e8=0),
    _define(multiplier_e8=2**96),
    _define(right=2),
    _define(twap_seconds=0),
    _define(expiry=START),
    _define(expiry=START + 1_000 * DAY),
)
SERIES = tuple(map(compute_series_id, DEFINITIONS))
DUES = tuple(compute_due_id(encode_name(name)) for name in ("USDC", "EUR"))
KINDS = (*SERIES, *DUES)


class Diverged(AssertionError):
    """The two vaults differ after ``steps``. A class of its own, so that no other failed check can pass for it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.steps: list[Step] = []


@dataclass(frozen=True)
class Step:
    """One call at a time, in symbols: bytes arguments and words of ``value`` may be symbols."""

    number: int
    time: int
    name: str
    by: bytes
    args: dict[str, Any]


@dataclass(frozen=True)
class Signing:
    """Who signs an inbox packet (indices of KEYS), and what is wrong with it."""

    keys: tuple[int, ...]
    flaw: str = ""
    place: int = 0


def _twist(signatures: list[bytes], flaw: str, place: int) -> list[bytes]:
    """Return signatures with one spoilt."""
    if not signatures:
        return signatures
    place %= len(signatures)
    good = signatures[place]
    spoilt = {
        "high s": lambda: (
            good[:32] + (SECP256K1_N - int.from_bytes(good[32:64], "big")).to_bytes(32, "big") + bytes([55 - good[64]])
        ),
        "v 0": lambda: good[:64] + bytes([good[64] - 27]),
        "other v": lambda: good[:64] + bytes([55 - good[64]]),
        "zero": lambda: bytes(65),
        "bit": lambda: bytes([good[0] ^ 1]) + good[1:],
        "short": lambda: good[:64],
        "long": lambda: good + b"\0",
    }
    if flaw == "reversed":
        return signatures[::-1]
    if flaw == "doubled":
        return [signatures[0]] * len(signatures)
    if flaw in spoilt:
        return [*signatures[:place], spoilt[flaw](), *signatures[place + 1 :]]
    return signatures


SIGNATURE_FLAWS = ("high s", "v 0", "other v", "zero", "bit", "reversed", "doubled", "epoch", "vault", "sequence")


@dataclass(frozen=True)
class Widths:
    """Numbers at the edges of what vaults can hold, to choose from now and then."""

    amounts: tuple[int, ...]
    caps: tuple[int, ...]
    bad_caps: tuple[int, ...]
    deltas: tuple[int, ...]
    rich: tuple[int, ...] = ()  # deposits that leave hardly anything in a purse
    large: int = 0  # now and then an Execute has about so many legs
    purse: int = PURSE


WIDE = Widths(
    amounts=(0, 1, MAX96, MAX96 + 1, 2**128, 2**200),
    caps=(1, 10_000, 20_000, 40_000, 60_000, 10**6, MAX96),
    bad_caps=(0, MAX96 + 1, 2**128, 2**256 - 1),
    deltas=(MAX96, 2**96, -MAX96, -(2**96), 2**255 - 1, -(2**255)),
)


@dataclass(frozen=True)
class Refusal:
    """A call failed and changed nothing; ``word`` says why."""

    word: str


class Side:
    """One vault; subclasses know how to call it and how to read it."""

    name: str
    vault_id: bytes
    client: str
    world: Any

    def __init__(self) -> None:
        self.words: dict[bytes, bytes] = {}  # symbol -> what stands for it here
        self.symbols: dict[bytes, bytes] = {}  # the other way round
        self.inbox_sequence = 0
        self.last: tuple[Packet, list[bytes]] | None = None  # last accepted

    def bind(self, symbol: bytes, word: bytes) -> None:
        self.words[symbol] = word
        self.symbols[word] = symbol

    @staticmethod
    def _replace(value: bytes, table: dict[bytes, bytes]) -> bytes:
        words = [value[i : i + 32] for i in range(0, len(value), 32)]
        return b"".join(table.get(word, word) for word in words)

    def to_words(self, value: bytes) -> bytes:
        return self._replace(value, self.words)

    def to_symbols(self, value: bytes) -> bytes:
        return self._replace(value, self.symbols)

    def make_recv(self, step: Step, epoch: int) -> tuple[Packet, list[bytes]]:
        """Return the packet of a step and its signatures, made for this vault."""
        args = step.args
        if args["replay"] and self.last is not None:
            return self.last
        f = {
            "source_client": self.client,
            "destination_client": "optsettle-clearing",
            "source_port": "optsettle",
            "destination_port": "optsettle",
            "version": "optsettle-1",
            "encoding": "application/x-solidity-abi",
            **args["fields"],
        }
        payload = Payload(
            f["source_port"], f["destination_port"], f["version"], f["encoding"], self.to_words(args["value"])
        )
        sequence = self.inbox_sequence + 1 + args["skip"]
        timeout = step.time + args["life"]
        packet = Packet(sequence, f["source_client"], f["destination_client"], timeout, (payload,) * args["copies"])
        signing: Signing = args["signing"]
        vault_id = bytes(32) if signing.flaw == "vault" else self.vault_id
        signed = sequence + (signing.flaw == "sequence")
        epoch += signing.flaw == "epoch"
        commitment = compute_commitment(replace(packet, payloads=packet.payloads or (payload,)))
        digest = compute_packet_digest(vault_id, epoch, signed, commitment)
        signatures = [sign_digest(KEYS[k], digest) for k in signing.keys]
        return packet, _twist(signatures, signing.flaw, signing.place)

    def make_pause(self, signing: Signing, epoch: int) -> bytes:
        digest = compute_pause_digest(self.vault_id, epoch + (signing.flaw == "epoch"))
        return _twist([sign_digest(KEYS[signing.keys[0]], digest)], signing.flaw, 0)[0]

    def run(self, step: Step, epoch: int) -> Outcome | Refusal:
        """Return what the call did."""
        raise NotImplementedError

    def read(self, known: Known) -> dict[str, Any]:
        """Return the whole state of the vault in symbols."""
        raise NotImplementedError

    def verify_nothing_hidden(self, state: dict[str, Any]) -> None:
        """Check that nothing is stored beside what was compared, where a store can be listed; AssertionError."""

    def begin(self) -> Callable[[], None]:
        """Return what puts this side back to now; several are called in the reverse order."""
        raise NotImplementedError


class EvmSide(Side):
    """The bytecode."""

    name = "bytecode"

    def __init__(self, twin: Twin | None = None, engine: str = "", purse: int = PURSE) -> None:
        super().__init__()
        self.chain = make_chain(START, engine)
        self.world = world = World(
            [get_address(k) for k in KEYS[:4]],
            3,
            pad(TREASURER),
            dict.fromkeys(TOKENS, CAPS),
            DAY,
            START,
            EVM_DEPLOYER,
            twin=twin,
            chain=self.chain,
        )
        self.vault_id, self.client = world.vault_id, world.client
        for token in TOKENS:
            assert world.deploy_token() == token
            for user in USERS:
                world.fund(token, user, purse)
        self.bind(COIN, TOKENS[2])

    def run(self, step: Step, epoch: int) -> Outcome | Refusal:
        world, args = self.world, step.args
        world.set_time(step.time)
        try:
            if step.name == "recv":
                packet, signatures = self.make_recv(step, epoch)
                data = world.encode_recv(packet, signatures)
                out = world.send("recv", data, step.by)
                self.inbox_sequence, self.last = packet.sequence, (packet, signatures)
                return out
            given = [self._convert(v, epoch) for v in args.values()]
            return world.write(step.name, *given, by=step.by)
        except harness.Reverted as error:
            return Refusal(error.reason)

    def read(self, known: Known) -> dict[str, Any]:
        return read_evm(self, known)

    def _convert(self, value: object, epoch: int) -> object:
        if isinstance(value, Signing):
            return self.make_pause(value, epoch)
        if isinstance(value, SeriesDefinition):
            return as_arguments(value)
        return self.to_words(value) if isinstance(value, bytes) else value

    def begin(self) -> Callable[[], None]:
        world, undo = self.world, self.chain.save()
        saved = world.head, world.sequence, self.inbox_sequence, self.last
        words, symbols, packets = dict(self.words), dict(self.symbols), list(world.packets)

        def restore() -> None:
            undo()
            world.head, world.sequence, self.inbox_sequence, self.last = saved
            self.words, self.symbols, world.packets = words, symbols, packets

        return restore


class CosmosSide(Side):
    """The wasm."""

    name = "wasm"

    def __init__(self, purse: int = PURSE) -> None:
        super().__init__()
        coin = compute_denom_asset(DENOM)
        self.world = world = CosmosWorld(
            [get_address(k) for k in KEYS[:4]],
            3,
            pad(TREASURER),
            dict.fromkeys((*TOKENS[:2], coin), CAPS),
            DAY,
            START,
        )
        self.vault_id, self.client = world.vault_id, world.client
        for token in TOKENS[:2]:
            world.deploy_token(token)
        assert world.add_denom(DENOM) == coin
        world.write("register_denom", ALICE, denom=DENOM)
        for asset in (*TOKENS[:2], coin):
            for user in USERS:
                world.fund(asset, user, purse)
        self.bind(COIN, coin)

    def run(self, step: Step, epoch: int) -> Outcome | Refusal:
        world = self.world
        world.set_time(step.time)
        world.chain.nanoseconds = step.number * 37_000_001 % 10**9  # a vault looks at whole seconds, truncated
        try:
            if step.name == "recv":
                packet, signatures = self.make_recv(step, epoch)
                out = world.send(encode_recv(packet, signatures), step.by)
                self.inbox_sequence, self.last = packet.sequence, (packet, signatures)
                return out
            return world.write(step.name, step.by, **{k: self._convert(v, epoch) for k, v in step.args.items()})
        except cosmos_harness.Reverted as error:
            if error.reason == "trap":
                raise Diverged(f"the wasm trapped: {error.text}") from error
            return Refusal(error.reason)

    def read(self, known: Known) -> dict[str, Any]:
        return read_cosmos(self, known)

    def verify_nothing_hidden(self, state: dict[str, Any]) -> None:
        verify_nothing_hidden(self, state)

    def _convert(self, value: object, epoch: int) -> object:
        if isinstance(value, Signing):
            return self.make_pause(value, epoch)
        if isinstance(value, SeriesDefinition):
            return encode_definition({n: getattr(value, n) for n in SeriesDefinition.__dataclass_fields__})
        return self.to_words(value) if isinstance(value, bytes) else value

    def begin(self) -> Callable[[], None]:
        world, chain = self.world, self.world.chain
        saved, height = chain._save(), chain.height
        heads = world.head, world.sequence, self.inbox_sequence, self.last
        words, symbols, packets = dict(self.words), dict(self.symbols), list(world.packets)

        def restore() -> None:
            chain._restore(saved)
            chain.height = height
            world.head, world.sequence, self.inbox_sequence, self.last = heads
            self.words, self.symbols, world.packets = words, symbols, packets

        return restore


# ---- what both hold ---------------------------------------------------------------------------------------------------

CURSORS = ("inbox_sequence", "outbox_sequence", "accepted_at", "decided_upto", "offer_count")


@dataclass
class Known:
    """What the generator remembers to choose from; keys of records, never a judgement."""

    trades: list[tuple[bytes, bytes, int, int]] = field(default_factory=list)  # symbol, taker, offer, nonce
    requests: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)  # symbol, account, asset
    offers: list[tuple[int, int, int]] = field(default_factory=list)  # number, quantity, valid_until
    listed: list[int] = field(default_factory=list)


def _name_owner(owner: bytes) -> bytes:
    return owner if owner in USERS else b"vault"


def _read_state(raw: RawEvm | RawState, side: Side, now: int, known: Known) -> dict[str, Any]:
    """Return what two vaults keep alike in symbols: everything but the tokens they hold."""
    word = side.to_words
    state: dict[str, Any] = {}
    for account in ACCOUNTS:
        for asset in (*ASSETS, UNKNOWN_ASSET):
            state["balance", account, asset] = raw.get_balance(account, word(asset))
            request = raw.get_request(account, word(asset))
            state["request", account, asset] = (side.to_symbols(request[0]), *request[1:]) if request else None
        for kind in KINDS:
            state["position", account, kind] = raw.get_position(account, kind)
        state["negatives", account] = raw.get_negatives(account)
    state["control"] = raw.get_control(now)
    for asset in (*ASSETS, UNKNOWN_ASSET):
        state["caps", asset] = raw.get_caps(word(asset), now)
        state["windows", asset] = raw.get_windows(word(asset))
    cursors = raw.get_cursors()
    state["cursors"] = tuple(cursors[name] for name in CURSORS)
    for number in sorted({n for n, _, _ in known.offers}):
        offer = raw.get_offer(number)
        state["offer", number] = (*offer[:3], side.to_symbols(offer[3]), *offer[4:]) if offer else None
    for _, taker, number, nonce in known.trades:
        trade = raw.get_trade(taker, number, nonce)
        state["trade", taker, number, nonce] = (side.to_symbols(trade[0]), *trade[1:]) if trade else None
    for kind in KINDS:
        state["series", kind] = raw.get_series(kind)
    return state


def read_evm(side: EvmSide, known: Known) -> dict[str, Any]:
    """Return the whole state of the bytecode in symbols."""
    world = side.world
    state = _read_state(RawEvm(world), side, world.time, known)
    for asset in ASSETS:
        token = world.tokens[side.to_words(asset)]
        for owner in (*USERS, world.vault.address):
            state["held", asset, _name_owner(owner)] = token.read("balanceOf", owner)
    return state


_get_bech32 = cache(cosmos_harness.to_bech32)


def _get_held(world: CosmosWorld, asset: bytes, owner: bytes) -> int:
    """Return what `CosmosWorld.get_held` returns, without running the token."""
    if asset in world.denoms:
        return world.get_held(asset, owner)
    return read_token(world.chain.stores[cosmos_harness.shorten(asset)], _get_bech32(owner))


def read_cosmos(side: CosmosSide, known: Known) -> dict[str, Any]:
    """Return the same of the wasm's raw storage."""
    world = side.world
    raw = RawState(world.chain.stores[world.address])
    assert raw.get(LOCK) is None, "a lock outlived its transaction"
    state = _read_state(raw, side, world.time, known)
    for asset in ASSETS:
        for owner in (*USERS, world.address):
            state["held", asset, _name_owner(owner)] = _get_held(world, side.to_words(asset), owner)
    return state


def verify_invariants(state: dict[str, Any]) -> None:
    """Check protocol.md 4 on a state: every token held is somebody's, every series sums to nothing; AssertionError."""
    for asset in ASSETS:
        owned = sum(sum(state["balance", account, asset]) for account in ACCOUNTS)
        assert owned == state["held", asset, b"vault"], f"owned {owned}, held {state['held', asset, b'vault']}"
    for kind in KINDS:
        assert sum(state["position", account, kind] for account in ACCOUNTS) == 0, (
            "positions of a series do not sum to 0"
        )
    for account in ACCOUNTS[: len(USERS)]:
        negatives = sum(state["position", account, kind] < 0 for kind in KINDS)
        assert state["negatives", account] == negatives, "the count of negative positions is wrong"


def verify_nothing_hidden(side: CosmosSide, state: dict[str, Any]) -> None:
    """Check that the wasm's store holds no balance, position or request beside those that were compared; AssertionError."""
    tables = {BALANCE: "balance", POSITION: "position", REQUEST: "request"}
    found = dict.fromkeys(tables.values(), 0)
    for key in side.world.chain.stores[side.world.address]:
        if key[0] in tables and len(key) == 65:
            found[tables[key[0]]] += 1
    for name, count in found.items():
        known = sum(1 for key, value in state.items() if key[0] == name and value not in (0, (0, 0), None))
        assert count == known, f"{count} records of {name}, {known} known"


# ---- what to try next -------------------------------------------------------------------------------------------------

Weights = dict[str, int]
WEIGHTS: Weights = {
    "execute": 16,
    "trades": 10,
    "withdrawals": 8,
    "caps": 5,
    "rotate": 4,
    "unpause": 3,
    "malformed": 4,
    "take": 14,
    "offer": 9,
    "request_withdrawal": 8,
    "claim": 6,
    "deposit": 6,
    "list_series": 3,
    "cancel": 3,
    "link": 2,
    "pause": 2,
    "escape": 3,
}
FOLLOWERS = {"offer": "take", "take": "trades", "request_withdrawal": "withdrawals", "withdrawals": "claim"}


class Generator:
    """Draws steps. It reads the bytecode's balances only to make calls that are likely to go through."""

    def __init__(self, seed: int, side: EvmSide, known: Known, widths: Widths = WIDE) -> None:
        self.random = random.Random(seed)
        self.widths = widths
        self.side = side
        self.raw = RawEvm(side.world)
        self.known = known
        self.time = START
        self.number = 0
        self.prelude: list[tuple[str, bytes, dict[str, Any]]] = []  # calls to begin with
        if widths.rich and seed % 8 == 0:
            asset, beneficiary = self.pick(ASSETS), self.pick(ACCOUNTS)
            for by in (ALICE, BOB, CAROL):
                args = {"asset": asset, "amount": self.pick(widths.rich), "beneficiary": beneficiary}
                self.prelude.append(("deposit", by, args))
        self.follow: list[str] = []  # a whole trade or withdrawal would hardly ever come about by chance

    def chance(self, one_in: int) -> bool:
        return self.random.randrange(one_in) == 0

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.random.randrange(len(options))]

    def draw(self) -> Step:
        """Return the next step."""
        self.number += 1
        if self.prelude:
            call, by, args = self.prelude.pop()
            return Step(self.number, self.time, call, by, args)
        self.pass_time()
        (name,) = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if self.follow:
            name = self.follow.pop()
        elif name in ("take", "cancel", "trades") and not self.known.offers and not self.chance(6):
            name = "offer"
        if name in FOLLOWERS and self.chance(2):
            self.follow.append(FOLLOWERS[name])
        control = self.raw.get_control(self.time)
        if control["paused"] and self.chance(2):  # little happens while paused
            if control["unpause_at"]:
                self.time = max(self.time, control["unpause_at"] - self.chance(4))
            else:
                name = "unpause"
        elif control["next"] and self.chance(3):
            self.time = max(self.time, control["next"][0] - self.chance(4))
        args = getattr(self, f"draw_{name}")()
        call = (
            "recv" if name in ("execute", "trades", "withdrawals", "caps", "rotate", "unpause", "malformed") else name
        )
        by = self.pick(USERS)
        if call in ("offer", "cancel", "take"):
            by = self.pick(USERS)
        elif call == "request_withdrawal" and args["for_house"] and not self.chance(4):
            by = self.get_treasurer()
        return Step(self.number, self.time, call, by, args)

    def get_treasurer(self) -> bytes:
        treasurer = self.raw.get_control(self.time)["treasurer"]
        assert isinstance(treasurer, bytes)
        return treasurer[12:]

    def pass_time(self) -> None:
        """Mostly seconds; now and then to the edge of an hour, a day, a delay, the 30 days of escape."""
        draw = self.random.randrange(60 if self.follow and not self.chance(8) else 100)
        now = self.time
        if draw < 60:
            self.time += self.random.randrange(0, 30)
        elif draw < 75:
            self.time = (now // HOUR + 1) * HOUR - self.random.randrange(2)
        elif draw < 82:
            self.time = (now // DAY + 1) * DAY - self.random.randrange(2)
        elif draw < 90:
            edges = [at + d for at in self.get_instants() for d in (-1, 0, 1) if at + d > now]
            self.time = self.pick(edges) if edges else now + 1
        elif draw < 93:
            self.time += DAY + self.random.randrange(3) - 1
        elif draw < 94:
            accepted = self.raw.get_cursors()["accepted_at"]
            self.time = max(now, accepted + 30 * DAY + self.random.randrange(3) - 1)
        self.time = max(now, self.time)

    def get_instants(self) -> list[int]:
        """Return times at which something changes: pending control, ends of offers and requests."""
        control = self.raw.get_control(self.time)
        instants: list[int] = [control["next"][0] if control["next"] else 0, control["unpause_at"]]
        instants += [until for _, _, until in self.known.offers[-3:]]
        instants += [DEFINITIONS[i].expiry for i in self.known.listed if DEFINITIONS[i].expiry < self.time + 4 * DAY]
        for _, account, asset in self.known.requests[-2:]:
            request = self.raw.get_request(account, self.side.to_words(asset))
            instants.append(request[2] + DAY if request else 0)
        return [at for at in instants if self.time <= at < self.time + 60 * DAY]

    def get_free(self, account: bytes, asset: bytes) -> int:
        return self.raw.get_balance(account, self.side.to_words(asset))[0]

    def get_position(self, account: bytes, kind: bytes) -> int:
        return self.raw.get_position(account, kind)

    def draw_amount(self, around: int) -> int:
        """Return an amount near ``around``, or an edge of what an amount may be."""
        if self.chance(12):
            return int(self.pick(self.widths.amounts))
        if self.chance(3):
            return max(around + self.random.randrange(-1, 2), 0)
        return self.random.randrange(1, max(around, 2) + 1)

    def draw_account(self) -> bytes:
        return NOBODY if self.chance(25) else bytes(self.pick(ACCOUNTS))

    def draw_asset(self) -> bytes:
        return UNKNOWN_ASSET if self.chance(15) else bytes(self.pick(ASSETS))

    # ---- users ----

    def draw_deposit(self) -> dict[str, Any]:
        return {"asset": self.draw_asset(), "amount": self.draw_amount(50_000), "beneficiary": self.draw_account()}

    def draw_link(self) -> dict[str, Any]:
        signature = self.random.randbytes(self.pick([65, 65, 65, 64]))
        return {"portfolio": self.draw_account(), "valid_until": self.draw_u64(self.time), "signature": signature}

    def draw_u64(self, around: int) -> int:
        return int(self.pick([0, around, around + 1, 2**64 - 1, self.random.randrange(2**64)]))

    def draw_list_series(self) -> dict[str, Any]:
        return {"definition": self.pick(BAD_DEFINITIONS if self.chance(3) else DEFINITIONS)}

    def draw_offer(self) -> dict[str, Any]:
        live = [SERIES[i] for i in self.known.listed if DEFINITIONS[i].expiry > self.time]
        series = self.pick(KINDS) if self.chance(10) or not live else self.pick(live)
        until = (
            self.time + self.pick([0, 10, DAY, 10 * DAY, 10 * DAY, 40 * DAY])
            if not self.chance(12)
            else self.draw_u64(self.time)
        )
        return {
            "side": 2 if self.chance(20) else self.random.randrange(2),
            "series": series,
            "asset": self.draw_asset(),
            "quantity": self.draw_amount(300),
            "premium_per_contract": self.draw_amount(10**10) if self.chance(3) else self.random.randrange(1, 10**9),
            "valid_until": until,
        }

    def draw_number(self) -> int:
        if not self.known.offers or self.chance(15):
            return int(self.pick([0, 1, len(self.known.offers) + 1, 2**64 - 1]))
        live = [o for o in self.known.offers if o[2] > self.time]
        return int(self.pick(live[-4:] if live and not self.chance(6) else self.known.offers[-4:])[0])

    def draw_cancel(self) -> dict[str, Any]:
        return {"offer": self.draw_number()}

    def draw_take(self) -> dict[str, Any]:
        number = self.draw_number()
        quantity = next((q for n, q, _ in self.known.offers if n == number), 100)
        part = quantity if self.chance(3) else self.draw_amount(max(quantity // self.pick([1, 2, 4]), 1))
        nonce = self.draw_u64(7) if self.chance(10) else self.random.randrange(3)
        return {"offer": number, "quantity": part, "nonce": nonce, "for_house": self.chance(4)}

    def draw_request_withdrawal(self) -> dict[str, Any]:
        return {
            "asset": self.draw_asset(),
            "amount": self.draw_amount(self.pick((5_000, *CAPS))),
            "for_house": self.chance(4),
        }

    def draw_claim(self) -> dict[str, Any]:
        rows = [(a, x) for a in ACCOUNTS[:4] for x in ASSETS if self.raw.get_balance(a, self.side.to_words(x))[1]]
        if rows and not self.chance(4):
            account, asset = self.pick(rows)
            return {"account": account, "asset": asset}
        if self.known.requests and not self.chance(4):
            _, account, asset = self.pick(self.known.requests[-5:])
            return {"account": pad(self.get_treasurer()) if account == HOUSE else account, "asset": asset}
        return {"account": self.draw_account(), "asset": self.draw_asset()}

    def draw_escape(self) -> dict[str, Any]:
        if self.chance(2):
            earliest = self.raw.get_cursors()["accepted_at"] + 30 * DAY
            self.time = max(self.time, earliest - self.chance(4))
        return {"asset": self.draw_asset()}

    def draw_pause(self) -> dict[str, Any]:
        flaw = (
            self.pick(("high s", "v 0", "other v", "zero", "bit", "short", "long", "epoch")) if self.chance(3) else ""
        )
        return {"signature": Signing((self.random.randrange(len(KEYS)),), flaw)}

    # ---- the committee ----

    def wrap(self, value: bytes) -> dict[str, Any]:
        """Return the arguments of recv around a payload value, now and then with something wrong."""
        args = {
            "value": value,
            "skip": 0,
            "life": int(self.pick([1, 1_800, 1_800, DAY])),
            "copies": 1,
            "fields": {},
            "replay": False,
            "signing": Signing(self.draw_signers()),
        }
        draw = self.random.randrange(34)
        if draw == 0:
            args["skip"] = self.pick([-1, 1, 2])
        elif draw == 1:
            args["life"] = self.pick([0, -1, DAY + 1])
        elif draw == 2:
            args["copies"] = self.pick([0, 2])
        elif draw in (3, 10):
            field_ = self.pick(
                ["source_client", "destination_client", "source_port", "destination_port", "version", "encoding"]
            )
            args["fields"] = {field_: self.pick(["", "optsettle", "optsettle-1", "vault-0123456789abcdef"])}
        elif draw in (4, 5):
            args["replay"] = True
        elif draw in (6, 7, 8):
            signing = args["signing"]
            args["signing"] = Signing(signing.keys, self.pick(SIGNATURE_FLAWS), self.random.randrange(20))
        elif draw == 9:
            args["signing"] = Signing(tuple(sorted(self.random.sample(range(len(KEYS)), self.random.randrange(6)))))
        return args

    def draw_signers(self) -> tuple[int, ...]:
        """Return a good set of signers."""
        control = self.raw.get_control(self.time)
        ours = [i for i, key in enumerate(KEYS) if get_address(key).hex() in control["operators"]]
        return tuple(sorted(self.random.sample(ours, min(control["threshold"], len(ours)))))

    def draw_execute(self) -> dict[str, Any]:
        deltas: dict[tuple[int, bytes, bytes], int] = {}

        def move(kind: int, source: bytes, target: bytes, what: bytes, amount: int) -> None:
            for account, delta in ((source, -amount), (target, amount)):
                deltas[kind, account, what] = deltas.get((kind, account, what), 0) + delta

        for _ in range(self.pick([0, 1, 1, 2, 3])):
            asset, source = self.pick(ASSETS), self.pick(ACCOUNTS)
            most = min(self.get_free(source, asset), self.pick(CAPS))
            move(
                0,
                source,
                self.pick(ACCOUNTS),
                asset,
                self.draw_amount(most) if self.chance(5) else most // self.pick([1, 2, 9]),
            )
        for _ in range(self.pick([0, 0, 1, 2])):
            due = self.pick(DUES)
            move(
                1,
                self.pick(ACCOUNTS),
                self.pick(ACCOUNTS),
                due,
                self.random.randrange(1, MAX96 if self.chance(5) else 5_000),
            )
        for _ in range(self.pick([0, 0, 1, 1])):
            series = self.pick(SERIES)
            held = {a: self.get_position(a, series) for a in ACCOUNTS}
            longs, shorts = [a for a in held if held[a] > 0], [a for a in held if held[a] < 0]
            if longs and shorts:
                source, target = self.pick(longs), self.pick(shorts)
                most = min(held[source], -held[target])
                move(1, source, target, series, most + 1 if self.chance(6) else self.random.randrange(1, most + 1))
            elif self.chance(3):
                move(1, self.pick(ACCOUNTS), self.pick(ACCOUNTS), series, self.random.randrange(1, 100))
        if self.widths.large and self.chance(20):
            self.add_many(deltas)
        legs = sorted((Leg(*key, delta) for key, delta in deltas.items() if delta), key=get_leg_key)
        prices = tuple(
            SeriesPrice(self.pick(KINDS), self.random.randrange(10**12)) for _ in range(self.pick([0, 0, 1, 2]))
        )
        if legs and self.chance(4):
            legs = self.spoil(legs)
        return self.wrap(encode_body(Execute(PLAN, prices, tuple(legs))))

    def add_many(self, deltas: dict[tuple[int, bytes, bytes], int]) -> None:
        """Add legs, most often good ones, until there are about as many as a packet may have: cash, dues, the house's."""
        rows = [(0, account, asset) for asset in ASSETS for account in ACCOUNTS]
        rows += [(1, account, due) for due in DUES for account in ACCOUNTS]
        rows += [(1, account, SERIES[i]) for i in self.known.listed for account in (HOUSE, INSURANCE)]
        pairs = [(a, b) for a, b in zip(rows[::2], rows[1::2], strict=True) if a not in deltas and b not in deltas]
        count = (self.widths.large + self.pick([-2, 0, 0, 2]) - len(deltas)) // 2
        for a, b in pairs[: max(count, 0)]:
            payer, payee = (b, a) if a[0] == 0 and not self.get_free(*a[1:]) else (a, b)
            deltas[payer], deltas[payee] = -1, 1

    def spoil(self, legs: list[Leg]) -> list[Leg]:
        """Return legs with something that must be refused, most often."""
        i = self.random.randrange(len(legs))
        leg = legs[i]
        changed = self.pick(
            [
                Leg(2, leg.account, leg.id, leg.delta),
                Leg(255, leg.account, leg.id, leg.delta),
                Leg(leg.kind, leg.account, leg.id, 0),
                Leg(leg.kind, NOBODY, leg.id, leg.delta),
                Leg(leg.kind, leg.account, UNKNOWN_ASSET, leg.delta),
                Leg(leg.kind, leg.account, self.pick(KINDS), leg.delta),
                Leg(leg.kind, leg.account, NOBODY, leg.delta),
                Leg(1 - leg.kind, leg.account, leg.id, leg.delta),
                *(Leg(leg.kind, leg.account, leg.id, leg.delta + d) for d in (-1, 1)),
                *(Leg(leg.kind, leg.account, leg.id, d) for d in self.widths.deltas),
                None,
            ]
        )
        spoilt = legs[:i] + ([] if changed is None else [changed]) + legs[i + 1 :]
        if self.chance(4):
            self.random.shuffle(spoilt)
        elif self.chance(4):
            spoilt.append(spoilt[-1] if spoilt else leg)
        return spoilt

    def draw_trades(self) -> dict[str, Any]:
        items = []
        for _ in range(self.pick([0, 1, 1, 2, 3])):
            if not self.known.trades or self.chance(12):
                symbol, taker, offer, nonce = (
                    keccak256(b"unknown"),
                    self.draw_account(),
                    self.draw_u64(1),
                    self.draw_u64(0),
                )
            else:
                symbol, taker, offer, nonce = self.pick(self.known.trades[-4:])
            if self.chance(6):
                symbol = self.pick([bytes(32), keccak256(b"another history"), self.side.vault_id])
            if self.chance(20):
                nonce ^= 1
            items.append(TradeItem(symbol, taker, offer, nonce))
        if items and self.chance(6):
            items.append(items[-1])
        sequence = self.side.world.sequence
        upto = self.raw.get_cursors()["decided_upto"]
        if self.chance(3):
            upto = self.pick([0, sequence, sequence, sequence + 1, self.random.randrange(sequence + 1)])
        if self.chance(30):
            upto = 2**64 - 1
        return self.wrap(encode_body(DecideTrades(PLAN, upto, tuple(items))))

    def draw_withdrawals(self) -> dict[str, Any]:
        items = []
        for _ in range(self.pick([0, 1, 1, 2, 3])):
            if not self.known.requests or self.chance(12):
                symbol, account, asset = keccak256(b"unknown"), self.draw_account(), self.draw_asset()
            else:
                symbol, account, asset = self.pick(self.known.requests[-4:])
            if self.chance(10):
                symbol = self.pick([bytes(32), keccak256(b"another history")])
            items.append(WithdrawalItem(symbol, account, asset))
        if items and self.chance(6):
            items.append(items[-1])
        return self.wrap(encode_body(DecideWithdrawals(PLAN, tuple(items))))

    def draw_caps(self) -> dict[str, Any]:
        asset = self.pick([*ASSETS, UNKNOWN_ASSET, NOBODY, HOUSE])
        caps = [self.pick(self.widths.caps) for _ in range(3)]
        if self.chance(6):
            caps[self.random.randrange(3)] = self.pick(self.widths.bad_caps)
        return self.wrap(encode_body(SetCaps(asset, *caps)))

    def draw_rotate(self) -> dict[str, Any]:
        epoch = self.raw.get_control(self.time)["epoch"]
        count = self.pick([1, 3, 4, 4, 5])
        operators = sorted(get_address(k) for k in self.random.sample(KEYS, count))
        threshold = count * 2 // 3 + 1
        if self.chance(6):
            operators = self.pick(
                [
                    operators[::-1],
                    [*operators[:-1], operators[-2 % count]],
                    [bytes(20), *operators[1:]],
                    [],
                    [bytes(18) + bytes([1, i]) for i in range(20)],
                    [bytes(18) + bytes([1, i]) for i in range(21)],
                ]
            )
        if self.chance(8):
            threshold = self.pick([0, threshold - 1, count, count + 1, 255])
        wait = self.pick([DAY, DAY, DAY + 1, DAY - 1, 2 * DAY])
        treasurer = self.draw_account()
        step = self.pick([1, 1, 1, 1, 0, 2])
        return self.wrap(
            encode_body(RotateOperators(epoch + step, threshold, self.time + wait, treasurer, tuple(operators)))
        )

    def draw_unpause(self) -> dict[str, Any]:
        return self.wrap(encode_body(Unpause()))

    def draw_malformed(self) -> dict[str, Any]:
        """A body with one word or its length changed. Large numbers are HOUSE, since a large account is native here, not there."""
        draws = (self.draw_execute, self.draw_trades, self.draw_withdrawals, self.draw_caps, self.draw_unpause)
        args: dict[str, Any] = self.pick(draws)()
        value = args["value"]
        words = [value[i : i + 32] for i in range(0, len(value), 32)]
        place = self.random.randrange(len(words))
        number = self.pick([0, 1, 2, 31, 32, 33, 37, 38, 64, 96, 128, 160, 192, 255, 256, 2**16, 2**64])
        draw = self.random.randrange(7)
        if draw == 0:
            words[place] = number.to_bytes(32, "big")
        elif draw == 1:
            words[place] = HOUSE
        elif draw in (2, 6):
            words = self.add_gap(words)
        elif draw == 3:
            words.append(bytes(self.pick([1, 31, 32])))
        elif draw == 4:
            words = words[:-1]
        else:
            words[0] = self.pick([0, 1, 16, 31, 38, 2**16 + 32]).to_bytes(32, "big")
        args["value"] = b"".join(words)
        return args

    @staticmethod
    def add_gap(words: list[bytes]) -> list[bytes]:
        """Return an Execute or decision with a word between its arrays, and the offset that skips it."""
        at = {32: 3, 33: 3, 34: 2}.get(int.from_bytes(words[0], "big"))
        if at is None or len(words) <= at:
            return [*words, bytes(32)]
        offset = int.from_bytes(words[at], "big")  # counted from the kind word
        moved = (offset + 32).to_bytes(32, "big")
        gap = offset // 32
        return [*words[:at], moved, *words[at + 1 : gap], bytes(32), *words[gap:]]


# ---- both together ----------------------------------------------------------------------------------------------------


def _word(value: object) -> bytes:
    return bytes.fromhex(value) if isinstance(value, str) else bytes(value)  # type: ignore[call-overload,no-any-return]


@dataclass
class Counts:
    """How much was tried."""

    sequences: int = 0
    steps: int = 0
    accepted: int = 0
    done: int = 0
    refused: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    differences: dict[str, int] = field(default_factory=dict)  # those that are meant, by name


# refusals that have two words: of a call, by the bytecode, by another vault
SYNONYMS = {
    ("pause", "signatures", "signature"),
    ("deposit", "", "transfer"),  # the token has no word for it
    ("deposit", "", "token"),
    ("deposit", "", "kind"),
    ("take", "cash", "overflow"),  # a cost that no balance of the family can hold
}


class Pair:
    """Vaults with the same beginning; `run` plays a history on all of them and takes it back."""

    widths = WIDE

    def __init__(self, twin: Twin | None = None, engine: str = "") -> None:
        self.evm, self.cosmos = EvmSide(twin, engine, self.widths.purse), CosmosSide(self.widths.purse)
        self.sides: list[Side] = [self.evm, self.cosmos, *self.make_more_sides()]
        self.counts = Counts()
        self.first = Known()
        number = 10**6  # numbers of the steps of the beginning
        beginning: list[tuple[str, bytes, dict[str, Any]]] = [
            ("deposit", by, {"asset": asset, "amount": FIRST_DEPOSIT, "beneficiary": beneficiary})
            for asset in ASSETS
            for by, beneficiary in [*((u, pad(u)) for u in USERS), (TREASURER, HOUSE)]
        ]
        beginning += [("list_series", ALICE, {"definition": d}) for d in DEFINITIONS[:3]]
        for name, by, args in beginning:
            number += 1
            assert self.step(Step(number, START, name, by, args), self.first), "the beginning failed"

    def make_more_sides(self) -> list[Side]:
        """Return the vaults beside bytecode and wasm."""
        return []

    def get_epoch(self, time: int) -> int:
        """Return the epoch in force at ``time``, as the bytecode will see it."""
        epoch: int = RawEvm(self.evm.world).get_control(time)["epoch"]
        return epoch

    def step(self, step: Step, known: Known) -> bool:
        """Run one step on all, compare, and remember what it made; tell whether it was accepted."""
        outs = self.run_all(step)
        self.counts.steps += 1
        self.compare(step, outs)
        done = [out for out in outs if isinstance(out, Outcome)]
        if not done:
            return False
        self.counts.accepted += 1
        self.counts.calls[step.name] = self.counts.calls.get(step.name, 0) + 1
        self.remember(step, done[0], known)
        return True

    def run_all(self, step: Step) -> list[Outcome | Refusal]:
        """Run one step on every side, in their order; ids that it made are bound to their symbols."""
        epoch = self.get_epoch(step.time)
        outs = []
        for side in self.sides:
            try:
                out = side.run(step, epoch)
            except Diverged:
                raise
            except AssertionError as error:
                raise Diverged(f"the {side.name} broke a rule of every call: {error!r}") from error
            outs.append(out)
            if isinstance(out, Refusal):
                continue
            if out.inbox is not None:
                side.bind(b"\xdd" * 24 + out.inbox.sequence.to_bytes(8, "big"), compute_commitment(out.inbox))
            if step.name in ("take", "request_withdrawal"):
                side.bind(make_symbol(step.number), _word(out.value))
        return outs

    def compare(self, step: Step, outs: Sequence[Outcome | Refusal]) -> None:
        """Compare what every side did with what the first one did; Diverged."""
        for side, out in zip(self.sides[1:], outs[1:], strict=True):
            self.compare_with_first(step, side, outs[0], out)

    def compare_with_first(self, step: Step, side: Side, a: Outcome | Refusal, b: Outcome | Refusal) -> None:
        if isinstance(a, Outcome) and isinstance(b, Outcome):
            self.compare_outcomes(step, side, a, b)
            return
        told = [o.word if isinstance(o, Refusal) else "accepted" for o in (a, b)]
        if isinstance(a, Outcome) or isinstance(b, Outcome) or not self.is_same_word(step, side, a, b):
            raise Diverged(f"{self.evm.name}: {told[0]}, {side.name}: {told[1]}")

    def is_same_word(self, step: Step, side: Side, a: Refusal, b: Refusal) -> bool:
        """Tell whether two refusals, the bytecode's and that of ``side``, say the same."""
        if a.word == b.word or (step.name, a.word, b.word) in SYNONYMS:
            return True
        if step.name == "recv":
            # what is no packet of words at all fails in the bytecode's first look at the envelope, or before it
            value, copies = step.args["value"], step.args["copies"]
            if copies == 0 or not value:
                return (a.word, b.word) == ("", "envelope")
            return len(value) % 32 != 0 and a.word == "envelope" and b.word in ("timeout", "signatures", "malformed")
        if step.name == "pause" and a.word == "":  # calldata too long for the bytecode to be read
            return bool(step.args["signature"].flaw == "long")
        # before the wasm runs: the bank has no such coins, or what is no number of 128 bits cannot be read
        if step.name == "deposit" and b.word == "coins":
            return bool(step.args["asset"] == COIN)
        return b.word == "kind" and any(isinstance(v, int) and v >= 2**128 for v in step.args.values())

    def compare_outcomes(self, step: Step, side: Side, a: Outcome, b: Outcome) -> None:
        told = [s.to_symbols(out.out) if out.out is not None else None for s, out in ((self.evm, a), (side, b))]
        if told[0] != told[1]:
            raise Diverged(f"packets differ: {self.evm.name} {a.body}, {side.name} {b.body}")
        if step.name in ("take", "request_withdrawal"):
            if (_word(a.value), _word(b.value)) != (self.evm.world.head, side.world.head):
                raise Diverged("an id is not the head after its packet")
        elif step.name == "list_series":
            if _word(a.value) != _word(b.value):
                raise Diverged("ids of series differ")
        elif a.value != b.value:
            raise Diverged(f"values differ: {self.evm.name} {a.value}, {side.name} {b.value}")

    def remember(self, step: Step, out: Outcome, known: Known) -> None:
        args = step.args
        if step.name == "take":
            taker = HOUSE if args["for_house"] else pad(step.by)
            known.trades.append((make_symbol(step.number), taker, args["offer"], args["nonce"]))
        elif step.name == "request_withdrawal":
            account = HOUSE if args["for_house"] else pad(step.by)
            known.requests.append((make_symbol(step.number), account, args["asset"]))
        elif step.name == "offer":
            assert isinstance(out.value, int)
            known.offers.append((out.value, args["quantity"], args["valid_until"]))
        elif step.name == "list_series":
            known.listed.append(DEFINITIONS.index(args["definition"]))
        elif step.name == "recv":
            ack = out.body
            assert isinstance(ack, Ack)
            self.counts.done += ack.status == AckStatus.DONE
            self.counts.refused += ack.status == AckStatus.REFUSED

    def compare_states(self, known: Known) -> None:
        left = self.evm.read(known)
        for side in self.sides[1:]:
            right = side.read(known)
            for key in [*left, *(k for k in right if k not in left)]:
                if left.get(key) != right.get(key):
                    raise Diverged(f"state {key}: {self.evm.name} {left.get(key)}, {side.name} {right.get(key)}")
            try:
                side.verify_nothing_hidden(right)
            except AssertionError as error:
                raise Diverged(f"the {side.name} holds more: {error}") from error
        try:
            verify_invariants(left)
        except AssertionError as error:
            raise Diverged(f"all broke an invariant: {error}") from error

    def run(self, length: int, seed: int = 0, steps: Sequence[Step] | None = None) -> list[Step]:
        """Play a drawn history of ``length`` steps, or given ``steps``, and take it back.

        Raises Diverged; its ``steps`` are those that were run.
        """
        known = Known(listed=list(self.first.listed))
        undo = [side.begin() for side in self.sides]
        generator = Generator(seed, self.evm, known, self.widths)
        done: list[Step] = []
        self.counts.sequences += 1
        try:
            for i in range(len(steps) if steps is not None else length):
                step = steps[i] if steps is not None else generator.draw()
                done.append(step)
                self.step(step, known)
            self.compare_states(known)
        except Diverged as error:
            error.steps = done
            raise
        finally:
            for restore in undo:
                restore()
        return done

    def shrink(self, steps: Sequence[Step], tries: int = 80) -> list[Step]:
        """Return a shorter history that still diverges: parts are left out while it does."""
        steps = list(steps)
        size = max(len(steps) // 2, 1)
        while tries > 0:
            at = 0
            while at < len(steps) and tries > 0:
                shorter = steps[:at] + steps[at + size :]
                tries -= 1
                try:
                    self.run(0, steps=shorter)
                except Diverged as error:
                    steps = error.steps
                else:
                    at += size
            if size == 1:
                break
            size = max(size // 2, 1)
        return steps


def check(pair: Pair, seed: int, length: int) -> None:
    """Play one history; a difference is told with the shortest history found."""
    try:
        pair.run(length, seed)
    except Diverged as error:
        steps = pair.shrink(error.steps)
        story = "\n".join(f"  {s.number} t={s.time - START} {s.name} by {s.by.hex()[:8]} {s.args}" for s in steps)
        raise Diverged(f"seed {seed}: {error}\nshortest history found:\n{story}") from error
