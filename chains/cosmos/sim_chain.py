"""The application of a simulated Cosmos chain: accounts, bank and wasm modules over real stores, in this process.

Nothing is faked: transactions are protobuf, signed in SIGN_MODE_DIRECT; the state lies in IAVL+ trees under a multistore; contracts run in
`wasm_vm`; messages of contracts are dispatched depth first, each in its own branch of the state, with replies. What is left out is what the
product never asks of a chain: staking, governance, IBC, upgrades, migration of contracts. Gas follows the rules of SDK and wasmd closely
enough for estimates and limits to be exercised, not to the unit.

Time and height are handed in; there is no clock and no randomness in here.

Source: Cosmos SDK v0.54 (`baseapp`, `x/auth/ante`, `x/bank`), wasmd v0.70 (`x/wasm/keeper`): keys of the stores, errors and their codes,
events.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import heapq
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from hashlib import sha256
from typing import Any

from coincurve import PublicKey
from coincurve.ecdsa import cdata_to_der, deserialize_compact
from cosmpy.protos.cosmos.auth.v1beta1.auth_pb2 import BaseAccount
from cosmpy.protos.cosmos.bank.v1beta1.tx_pb2 import MsgSend, MsgSendResponse
from cosmpy.protos.cosmos.base.abci.v1beta1.abci_pb2 import TxMsgData
from cosmpy.protos.cosmos.base.v1beta1.coin_pb2 import Coin
from cosmpy.protos.cosmos.crypto.secp256k1.keys_pb2 import PubKey
from cosmpy.protos.cosmos.tx.signing.v1beta1.signing_pb2 import SIGN_MODE_DIRECT
from cosmpy.protos.cosmos.tx.v1beta1.tx_pb2 import AuthInfo, SignDoc, TxBody, TxRaw
from cosmpy.protos.cosmwasm.wasm.v1.tx_pb2 import (
    MsgExecuteContract,
    MsgExecuteContractResponse,
    MsgInstantiateContract,
    MsgInstantiateContractResponse,
    MsgStoreCode,
    MsgStoreCodeResponse,
)
from cosmpy.protos.cosmwasm.wasm.v1.types_pb2 import (
    ACCESS_TYPE_EVERYBODY,
    AbsoluteTxPosition,
    AccessConfig,
    CodeInfo,
    ContractInfo,
)
from Crypto.Hash import RIPEMD160
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError, Message

from chains.cosmos.iavl import EMPTY_HASH, Tree, compute_app_hash, prove_store
from chains.cosmos.ics23 import ExistenceProof, NonExistenceProof
from chains.cosmos.wasm_vm import (
    ContractError,
    GasMeter,
    OutOfGas,
    Storage,
    WasmCode,
    WasmTrap,
    decode_address_once,
    encode_address_once,
)
from chains.http_json import decode_json
from messages.errors import Rejected

AUTH, BANK, WASM = b"acc", b"bank", b"wasm"
STORES = (AUTH, BANK, WASM)
IDLE_STORES = (b"capability", b"distribution", b"gov", b"ibc", b"mint", b"params", b"slashing", b"staking", b"upgrade")
"""Modules without entries: the multistore of a real chain is not flat."""
GAS_MULTIPLIER = 140_000
"""wasmvm gas for one unit of the SDK's."""
GAS_READ, GAS_READ_BYTE, GAS_WRITE, GAS_WRITE_BYTE, GAS_DELETE, GAS_NEXT = 1000, 3, 2000, 30, 1000, 30
GAS_TX_BYTE, GAS_SIGNATURE, GAS_CODE_BYTE = 10, 1000, 3
GAS_INSTANCE, GAS_INSTANCE_AGAIN = 60_000, 2_000
"""For a contract, and for one whose code the transaction has loaded already."""
GAS_EVENT_BYTE, GAS_ATTRIBUTE, GAS_EVENT = 1, 10, 20
MAX_TX_BYTES = 1 << 20
MAX_TX_GAS = 100_000_000
MAX_CODE_BYTES = 800 * 1024
MAX_MEMO = 256
MAX_MESSAGES = 64
MAX_CALL_DEPTH = 32
"""wasmd allows 500; a contract that needs more than this one is not one of ours."""
MAX_QUERY_DEPTH = 10
QUERY_GAS = 3_000_000
BLOCK_BYTES = 4 << 20
GAS_PRICE = Fraction(25, 1000)
FEE_COLLECTOR = sha256(b"fee_collector").digest()[:20]
MINT = sha256(b"mint").digest()[:20]
_PLACE = "[cosmos/cosmos-sdk@v0.54.0/baseapp/baseapp.go:1018]"
"""A simulation says where in the node's source an error arose."""
_DENOM = re.compile(r"[a-zA-Z][a-zA-Z0-9/:._-]{2,127}")
_ANY_ACCOUNT = "/cosmos.auth.v1beta1.BaseAccount"
_ANY_KEY = "/cosmos.crypto.secp256k1.PubKey"

Coins = tuple[tuple[str, int], ...]
"""(denomination, amount) in the order of denominations, amounts positive."""
Event = tuple[str, tuple[tuple[str, str], ...]]
"""Type and attributes."""


class AppError(Rejected):
    """A refusal in the chain's words: ``what`` is the log, ``codespace`` and ``code`` those of the SDK's registry.

    ``is_open``: the text is the same on every node, so a contract may see it; otherwise contracts see code space and code only.
    """

    def __init__(self, codespace: str, code: int, what: str, *, is_open: bool = False) -> None:
        super().__init__(what, reason=f"{codespace}_{code}")
        self.codespace = codespace
        self.code = code
        self.is_open = is_open

    def wrap(self, text: str) -> AppError:
        """The same error inside another sentence; no contract sees its text any more."""
        return AppError(self.codespace, self.code, f"{text}: {self.what}")

    @property
    def redacted(self) -> str:
        """What a contract sees of it."""
        return self.what if self.is_open else f"codespace: {self.codespace}, code: {self.code}"


def _refuse(code: int, text: str) -> AppError:
    return AppError("sdk", code, f"{text}: {_SDK_ERRORS[code]}")


_SDK_ERRORS = {
    2: "tx parse error",
    4: "unauthorized",
    5: "insufficient funds",
    6: "unknown request",
    7: "invalid address",
    8: "invalid pubkey",
    9: "unknown address",
    10: "invalid coins",
    11: "out of gas",
    12: "memo too large",
    13: "insufficient fee",
    15: "no signatures supplied",
    18: "invalid request",
    21: "tx too large",
    26: "invalid height",
    30: "tx timeout height",
    32: "incorrect account sequence",
    38: "not found",
    41: "invalid gas limit",
}


# ---- state ------------------------------------------------------------------------------------------------------------


class Layer:
    """A branch of one store: what it changes, over another branch or a tree."""

    __slots__ = ("_below", "writes")

    def __init__(self, below: Layer | Tree) -> None:
        self._below = below
        self.writes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        return self.writes[key] if key in self.writes else self._below.get(key)

    def set(self, key: bytes, value: bytes) -> None:
        """Put an entry."""
        self.writes[key] = value

    def remove(self, key: bytes) -> None:
        """Take an entry out, if it is there."""
        self.writes[key] = None

    def scan(
        self, start: bytes | None = None, end: bytes | None = None, descending: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < end in order, as they are now."""
        mine = sorted(
            (k for k in self.writes if (start is None or k >= start) and (end is None or k < end)), reverse=descending
        )
        below = ((key, value) for key, value in self._below.scan(start, end, descending) if key not in self.writes)
        merged = heapq.merge(
            ((key, self.writes[key]) for key in mine), below, key=lambda entry: entry[0], reverse=descending
        )
        return ((key, value) for key, value in merged if value is not None)

    def commit(self) -> None:
        """Write what this branch changed into the one below."""
        if isinstance(self._below, Tree):
            raise TypeError("a tree takes changes by a whole block")
        self._below.writes.update(self.writes)


@dataclass(frozen=True)
class BlockInfo:
    """The block in which something runs."""

    height: int
    time_ns: int


@dataclass
class Context:
    """What a message works on: branches of the stores, gas, events. `branch` gives one that can be thrown away."""

    layers: dict[bytes, Layer]
    block: BlockInfo
    meter: GasMeter
    events: list[Event] = field(default_factory=list)
    transaction: tuple[int, bytes] | None = None
    """Place in the block and hash."""
    call_depth: int = 0
    query_depth: int = 0
    loaded: set[bytes] = field(default_factory=set)
    """Checksums of codes that the transaction has loaded."""

    def branch(self, meter: GasMeter | None = None) -> Context:
        """A context over this one's state, with its own events."""
        layers = {name: Layer(layer) for name, layer in self.layers.items()}
        return replace(self, layers=layers, events=[], meter=meter or self.meter)

    def commit(self) -> None:
        """Keep what the branch did; its events are the caller's to take."""
        for layer in self.layers.values():
            layer.commit()

    def charge(self, gas: int) -> None:
        """Use gas of the SDK; OutOfGas."""
        self.meter.charge(gas * GAS_MULTIPLIER)

    # -- stores, paid for

    def get(self, store: bytes, key: bytes) -> bytes | None:
        """A value of a store."""
        value = self.layers[store].get(key)
        self.charge(GAS_READ + GAS_READ_BYTE * (len(key) + len(value or b"")))
        return value

    def set(self, store: bytes, key: bytes, value: bytes) -> None:
        """Put an entry into a store."""
        self.charge(GAS_WRITE + GAS_WRITE_BYTE * (len(key) + len(value)))
        self.layers[store].set(key, value)

    def remove(self, store: bytes, key: bytes) -> None:
        """Take an entry out of a store."""
        self.charge(GAS_DELETE)
        self.layers[store].remove(key)

    def emit(self, kind: str, *attributes: tuple[str, str]) -> None:
        """Add an event."""
        self.events.append((kind, attributes))


class ContractStorage(Storage):
    """A contract's part of the wasm store: 03 || address || key."""

    def __init__(self, context: Context, address: bytes) -> None:
        self._context = context
        self._prefix = b"\x03" + address

    def get(self, key: bytes, /) -> bytes | None:
        """See `Storage`."""
        return self._context.get(WASM, self._prefix + key)

    def __setitem__(self, key: bytes, value: bytes, /) -> None:
        self._context.set(WASM, self._prefix + key, value)

    def __delitem__(self, key: bytes, /) -> None:
        self._context.remove(WASM, self._prefix + key)

    def scan(self, start: bytes | None, end: bytes | None, descending: bool) -> Iterator[tuple[bytes, bytes]]:
        """See `Storage`."""
        size = len(self._prefix)
        first = self._prefix + (start or b"")
        last = _get_prefix_end(self._prefix) if end is None else self._prefix + end
        for key, value in self._context.layers[WASM].scan(first, last, descending):
            self._context.charge(GAS_NEXT + GAS_READ_BYTE * (len(key) + len(value)))
            yield key[size:], value


def _get_prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin with a prefix."""
    return (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")


# ---- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TxResult:
    """What became of a transaction, as ABCI tells it. ``log`` and ``events`` are not under any hash."""

    code: int
    data: bytes
    log: str
    codespace: str
    gas_wanted: int
    gas_used: int
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Tx:
    """A decoded transaction; ``raw`` as it arrived."""

    raw: bytes
    body: TxBody
    auth: AuthInfo
    signatures: tuple[bytes, ...]
    body_bytes: bytes
    auth_bytes: bytes

    @property
    def hash(self) -> bytes:
        """SHA-256."""
        return sha256(self.raw).digest()

    @property
    def fee(self) -> Coins:
        """What it pays."""
        return _parse_coins(self.auth.fee.amount)


_MESSAGES: Mapping[str, type[Message]] = {
    "/" + kind.DESCRIPTOR.full_name: kind for kind in (MsgStoreCode, MsgInstantiateContract, MsgExecuteContract)
} | {"/cosmos.bank.v1beta1.MsgSend": MsgSend}


def decode_tx(raw: bytes) -> Tx:
    """The transaction of its bytes; AppError 2 (parse error), 21 (too large)."""
    if len(raw) > MAX_TX_BYTES:
        raise _refuse(21, f"{len(raw)} bytes")
    try:
        parts = TxRaw.FromString(raw)
        body, auth = TxBody.FromString(parts.body_bytes), AuthInfo.FromString(parts.auth_info_bytes)
        for message in body.messages:
            if message.type_url in _MESSAGES:
                _MESSAGES[message.type_url].FromString(message.value)
    except DecodeError as error:
        raise _refuse(2, str(error)[:200]) from error
    return Tx(raw, body, auth, tuple(parts.signatures), parts.body_bytes, parts.auth_info_bytes)


def _parse_coins(coins: Sequence[Coin]) -> Coins:
    """Coins of a message; AppError 10 unless they are in order, positive, each denomination once."""
    found = tuple(
        (coin.denom, int(coin.amount) if coin.amount.isascii() and coin.amount.isdigit() else -1) for coin in coins
    )
    names = [denom for denom, _ in found]
    if names != sorted(set(names)) or any(a <= 0 or a >= 2**256 or not _DENOM.fullmatch(d) for d, a in found):
        raise _refuse(10, format_coins(found))
    return found


def format_coins(coins: Coins) -> str:
    """As the SDK writes coins: "5uatom,7utoken"."""
    return ",".join(f"{amount}{denom}" for denom, amount in coins)


def compute_key_address(public_key: bytes) -> bytes:
    """The 20-byte address of a compressed secp256k1 key."""
    return RIPEMD160.new(sha256(public_key).digest()).digest()


def compute_contract_address(code_id: int, instance_id: int) -> bytes:
    """The 32-byte address of an instance: the module's name and two counters, hashed as ADR-028 says."""
    name = b"wasm\x00" + code_id.to_bytes(8, "big") + instance_id.to_bytes(8, "big")
    return sha256(sha256(b"module").digest() + name).digest()


# ---- the application --------------------------------------------------------------------------------------------------


class SimApp:
    """State and rules of one chain. ``min_gas_price``: what a transaction must pay for a unit of gas in ``denom``.

    A block is: `begin`, `deliver` for each transaction, `commit`. `check` judges a transaction for the pool.
    """

    def __init__(self, chain_id: str, prefix: str, denom: str, min_gas_price: Fraction = GAS_PRICE) -> None:
        self.chain_id = chain_id
        self.prefix = prefix
        self.denom = denom
        self.min_gas_price = min_gas_price
        self.trees: dict[bytes, Tree] = {name: Tree() for name in STORES}
        self.versions: dict[int, dict[bytes, Tree]] = {}
        self.blocks: dict[int, BlockInfo] = {}
        self.codes: dict[bytes, bytes] = {}
        """Binaries by checksum; a real node keeps them outside of its stores too."""
        self.mints: list[tuple[str, bytes, int]] = []
        """(denomination, address, amount) that the next block begins with."""
        self._running: Context | None = None
        self._genesis()

    def _genesis(self) -> None:
        context = self._make_context(self.trees, BlockInfo(0, 0))
        self._create_account(context, FEE_COLLECTOR)
        self._create_account(context, MINT)
        self._mint(context, self.denom, MINT, 1_000_000)
        self._write_sequence(context, b"lastCodeId", 0)
        self._flush(context, 1)

    def _make_context(self, trees: Mapping[bytes, Tree], block: BlockInfo, gas: int = MAX_TX_GAS) -> Context:
        return Context({name: Layer(trees[name]) for name in STORES}, block, GasMeter(gas * GAS_MULTIPLIER))

    # ------------------------------------------------------------------ blocks

    @property
    def app_hash(self) -> bytes:
        """The hash of the newest committed state."""
        return compute_app_hash(self.get_store_hashes(self.trees))

    def get_store_hashes(self, trees: Mapping[bytes, Tree]) -> dict[bytes, bytes]:
        """The root of every store."""
        return dict.fromkeys(IDLE_STORES, EMPTY_HASH) | {name: tree.hash for name, tree in trees.items()}

    def begin(self, block: BlockInfo) -> tuple[Event, ...]:
        """Begin a block; events of what happens before its transactions."""
        self._running = self._make_context(self.trees, block, MAX_TX_GAS * 1000)
        self._apply_mints(self._running)
        self.mints.clear()
        return tuple((kind, (*pairs, ("mode", "BeginBlock"))) for kind, pairs in self._running.events)

    def _apply_mints(self, context: Context) -> None:
        for denom, address, amount in self.mints:
            self._mint(context, denom, address, amount)

    def deliver(self, raw: bytes, index: int) -> TxResult:
        """Run a transaction of the block that was begun."""
        if self._running is None:
            raise RuntimeError("no block has begun")
        return self._run_tx(self._running, raw, index)

    def commit(self) -> bytes:
        """End the block; the new state's hash."""
        running = self._running
        if running is None:
            raise RuntimeError("no block has begun")
        height = running.block.height
        self._flush(running, height)
        self.versions[height] = self.trees
        self.blocks[height] = running.block
        self._running = None
        return self.app_hash

    def _flush(self, context: Context, version: int) -> None:
        trees = dict(self.trees)
        for name, layer in context.layers.items():
            tree = trees[name]
            for key in sorted(
                layer.writes
            ):  # in this order the SDK writes a block's changes, and the shape of a tree depends on it
                value = layer.writes[key]
                tree = tree.remove(key, version) if value is None else tree.set(key, value, version)
            trees[name] = tree
        self.trees = trees

    # ------------------------------------------------------------------ transactions

    def make_check_context(self) -> Context:
        """A branch of the newest state in which the pool's transactions pay their fees and count their numbers."""
        newest = max(self.blocks, default=0)
        context = self._make_context(self.trees, self.blocks.get(newest, BlockInfo(0, 0)))
        self._apply_mints(context)
        return context

    def check(self, context: Context, raw: bytes) -> TxResult:
        """Judge a transaction for the pool, over everything that is in it; a good one leaves its mark in ``context``."""
        gas_wanted = 0
        try:
            tx = decode_tx(raw)
            gas_wanted = int(tx.auth.fee.gas_limit)
            own = context.branch(GasMeter(min(gas_wanted, MAX_TX_GAS) * GAS_MULTIPLIER))
            self._ante(own, tx, is_check=True)
        except AppError as error:
            return TxResult(error.code, b"", error.what, error.codespace, gas_wanted, 0, ())
        except OutOfGas:
            text = f"out of gas in location: txSize; gasWanted: {gas_wanted}, gasUsed: {gas_wanted + 1}: out of gas"
            return TxResult(11, b"", text, "sdk", gas_wanted, gas_wanted + 1, ())
        own.commit()
        return TxResult(0, b"", "", "", gas_wanted, _get_used(own.meter), ())

    def simulate(self, context: Context, raw: bytes) -> TxResult:
        """Run a transaction on a branch that is thrown away, whatever is signed and paid. AppError."""
        tx = decode_tx(raw)
        own = context.branch(GasMeter(MAX_TX_GAS * GAS_MULTIPLIER))
        own.block = BlockInfo(own.block.height + 1, own.block.time_ns)
        own.transaction = (0, tx.hash)
        try:
            self._ante(own, tx, is_simulation=True)
            data, events = self._run_messages(own, tx)
        except AppError as error:
            raise AppError(
                error.codespace, error.code, f"{error.what} {_PLACE} with gas used: '{_get_used(own.meter)}'"
            ) from error
        except OutOfGas as error:
            raise _refuse(11, "out of gas in location: simulation") from error
        return TxResult(0, data, "", "", 0, _get_used(own.meter), (*own.events, *events))

    def _run_tx(self, block: Context, raw: bytes, index: int) -> TxResult:
        wanted = 0
        own = block.branch(GasMeter(MAX_TX_GAS * GAS_MULTIPLIER))
        events: tuple[Event, ...] = ()
        try:
            tx = decode_tx(raw)
            wanted = int(tx.auth.fee.gas_limit)
            own = block.branch(GasMeter(min(wanted, MAX_TX_GAS) * GAS_MULTIPLIER))
            own.transaction = (index, tx.hash)
            self._ante(own, tx)
            own.commit()  # the fee is paid and the number used, whatever the messages do
            events = tuple(own.events)
            messages = block.branch(own.meter)
            messages.transaction = own.transaction
            data, told = self._run_messages(messages, tx)
            messages.commit()
        except AppError as error:
            used = _get_used(own.meter)
            return TxResult(error.code, b"", error.what, error.codespace, wanted, used, events)
        except OutOfGas:
            text = f"out of gas in location: wasm contract; gasWanted: {wanted}, gasUsed: {wanted + 1}: out of gas"
            return TxResult(11, b"", text, "sdk", wanted, wanted + 1, events)
        return TxResult(0, data, "", "", wanted, _get_used(own.meter), (*events, *told))

    def _ante(self, context: Context, tx: Tx, *, is_check: bool = False, is_simulation: bool = False) -> None:
        """What every transaction must be before its messages run; the order is the SDK's."""
        body, fee = tx.body, tx.auth.fee
        if not body.messages or len(body.messages) > MAX_MESSAGES:
            raise _refuse(18, "must contain at least one message")
        if not tx.signatures:
            raise _refuse(15, "no signatures")
        if body.timeout_height and context.block.height > body.timeout_height:
            raise _refuse(30, f"block height: {context.block.height}, timeout height: {body.timeout_height}")
        if len(body.memo) > MAX_MEMO:
            raise _refuse(12, f"maximum number of characters is {MAX_MEMO} but received {len(body.memo)} characters")
        context.charge(GAS_TX_BYTE * len(tx.raw))
        senders = self._get_senders(tx)
        coins = tx.fee
        if is_check and not is_simulation:
            self._verify_fee(coins, int(fee.gas_limit))
        payer = senders[0]
        if self.get_account(context, payer) is None:
            raise _refuse(9, f"fee payer address: {self.encode(payer)} does not exist")
        if coins:
            try:
                self._send(context, payer, FEE_COLLECTOR, coins)
            except AppError as error:
                raise _refuse(5, error.what) from error
        context.emit("tx", ("fee", format_coins(coins)), ("fee_payer", self.encode(payer)))
        self._verify_signatures(context, tx, senders, is_simulation=is_simulation)

    def _get_senders(self, tx: Tx) -> list[bytes]:
        """The addresses that must sign, in order, each once."""
        found: list[bytes] = []
        for message in tx.body.messages:
            kind = _MESSAGES.get(message.type_url)
            if kind is None:
                raise _refuse(6, f"no message handler found for {message.type_url[:100]}")
            decoded: Any = kind.FromString(message.value)
            address = self.decode(decoded.from_address if isinstance(decoded, MsgSend) else decoded.sender)
            if address not in found:
                found.append(address)
        return found

    def _verify_fee(self, coins: Coins, gas: int) -> None:
        needed = -(-gas * self.min_gas_price.numerator // self.min_gas_price.denominator)
        if needed and dict(coins).get(self.denom, 0) < needed:
            required = f"{needed}{self.denom}"
            raise _refuse(13, f"insufficient fees; got: {format_coins(coins)} required: {required}")

    def _verify_signatures(self, context: Context, tx: Tx, senders: Sequence[bytes], *, is_simulation: bool) -> None:
        infos = tx.auth.signer_infos
        if not len(infos) == len(tx.signatures) == len(senders):
            raise _refuse(4, f"invalid number of signer;  expected: {len(senders)}, got {len(tx.signatures)}")
        for address, info, signature in zip(senders, infos, tx.signatures, strict=True):
            account = self.get_account(context, address)
            if account is None:
                raise _refuse(9, f"account {self.encode(address)} does not exist")
            key = self._get_public_key(account, info.public_key, address)
            if info.sequence != account.sequence:
                raise _refuse(32, f"account sequence mismatch, expected {account.sequence}, got {info.sequence}")
            context.charge(GAS_SIGNATURE)
            if not is_simulation:
                document = SignDoc(
                    body_bytes=tx.body_bytes,
                    auth_info_bytes=tx.auth_bytes,
                    chain_id=self.chain_id,
                    account_number=account.account_number,
                ).SerializeToString(deterministic=True)
                is_direct = info.mode_info.single.mode == SIGN_MODE_DIRECT
                if not is_direct or not _is_signed(key, document, signature):
                    raise _refuse(
                        4,
                        f"signature verification failed; please verify account number ({account.account_number})"
                        f" and chain-id ({self.chain_id}): (unable to verify single signer signature)",
                    )
            account.sequence += 1
            account.pub_key.type_url = _ANY_KEY
            account.pub_key.value = PubKey(key=key).SerializeToString()
            self._set_account(context, account)
            context.emit("tx", ("acc_seq", f"{self.encode(address)}/{info.sequence}"))
            context.emit("tx", ("signature", base64.b64encode(signature).decode()))

    def _get_public_key(self, account: BaseAccount, told: AnyMessage, address: bytes) -> bytes:
        # a key that is told must be the sender's also where the chain knows one already
        held = told if told.type_url else account.pub_key
        try:
            key = bytes(PubKey.FromString(held.value).key)
        except DecodeError as error:
            raise _refuse(8, "a key that is none") from error
        if held.type_url != _ANY_KEY or len(key) != 33 or compute_key_address(key) != address:
            raise _refuse(8, f"pubKey does not match signer address {self.encode(address)}")
        return key

    def _run_messages(self, context: Context, tx: Tx) -> tuple[bytes, tuple[Event, ...]]:
        data = TxMsgData()
        events: list[Event] = []
        for index, message in enumerate(tx.body.messages):
            own = context.branch()
            try:
                answer, sender, module = self._run_message(own, message)
            except AppError as error:
                raise error.wrap(f"failed to execute message; message index: {index}") from error
            own.commit()
            action: Event = ("message", (("action", message.type_url), ("sender", sender), ("module", module)))
            events += [(kind, (*attributes, ("msg_index", str(index)))) for kind, attributes in (action, *own.events)]
            url = "/" + answer.DESCRIPTOR.full_name
            data.msg_responses.append(AnyMessage(type_url=url, value=answer.SerializeToString()))
        return data.SerializeToString(), tuple(events)

    def _run_message(self, context: Context, message: AnyMessage) -> tuple[Message, str, str]:
        """(answer, sender, module)."""
        decoded: Any = _MESSAGES[message.type_url].FromString(message.value)
        if isinstance(decoded, MsgSend):
            source, target = self.decode(decoded.from_address), self.decode(decoded.to_address)
            self._send_openly(context, source, target, _parse_coins(decoded.amount))
            return MsgSendResponse(), decoded.from_address, "bank"
        sender = self.decode(decoded.sender)
        answer: Message
        if isinstance(decoded, MsgStoreCode):
            answer = self._store_code(context, sender, decoded.wasm_byte_code)
        elif isinstance(decoded, MsgInstantiateContract):
            admin = self.decode(decoded.admin) if decoded.admin else b""
            funds = _parse_coins(decoded.funds)
            address, data = self._instantiate(
                context, sender, admin, int(decoded.code_id), decoded.msg, decoded.label, funds
            )
            answer = MsgInstantiateContractResponse(address=self.encode(address), data=data or b"")
        else:
            contract = self.decode(decoded.contract)
            data = self._execute(context, sender, contract, decoded.msg, _parse_coins(decoded.funds))
            answer = MsgExecuteContractResponse(data=data or b"")
        return answer, decoded.sender, "wasm"

    # ------------------------------------------------------------------ accounts and money

    def encode(self, address: bytes) -> str:
        """The text of an address."""
        return encode_address_once(address, self.prefix)

    def decode(self, text: str) -> bytes:
        """The bytes of an address; AppError 7."""
        try:
            return decode_address_once(text, self.prefix)
        except Rejected as error:
            raise _refuse(7, f"decoding bech32 failed: {text[:100]}") from error

    def get_account(self, context: Context, address: bytes) -> BaseAccount | None:
        """An account, or None."""
        raw = context.get(AUTH, b"\x01" + address)
        return None if raw is None else BaseAccount.FromString(AnyMessage.FromString(raw).value)

    def _set_account(self, context: Context, account: BaseAccount) -> None:
        held = AnyMessage(type_url=_ANY_ACCOUNT, value=account.SerializeToString(deterministic=True))
        key = b"\x01" + decode_address_once(account.address, self.prefix)
        context.set(AUTH, key, held.SerializeToString(deterministic=True))

    def _create_account(self, context: Context, address: bytes) -> None:
        if context.get(AUTH, b"\x01" + address) is not None:
            return
        # a hash with the top bit set, as of SDK 0.54, but of the address alone: known before the block that makes the account
        number = int.from_bytes(sha256(address).digest()[:8], "big") | 1 << 63
        self._set_account(context, BaseAccount(address=self.encode(address), account_number=number))

    def get_balance(self, context: Context, address: bytes, denom: str) -> int:
        """What an address owns of a denomination."""
        return int(context.get(BANK, _get_balance_key(address) + denom.encode()) or b"0")

    def get_balances(self, context: Context, address: bytes) -> Coins:
        """Everything that an address owns."""
        prefix = _get_balance_key(address)
        found = context.layers[BANK].scan(prefix, _get_prefix_end(prefix))
        return tuple((key[len(prefix) :].decode(), int(value)) for key, value in found)

    def get_supply(self, context: Context, denom: str) -> int:
        """How much there is of a denomination."""
        return int(context.get(BANK, b"\x00" + denom.encode()) or b"0")

    def _put(self, context: Context, key: bytes, amount: int) -> None:
        if amount:
            context.set(BANK, key, str(amount).encode())
        else:
            context.remove(BANK, key)

    def _mint(self, context: Context, denom: str, address: bytes, amount: int) -> None:
        self._put(context, b"\x00" + denom.encode(), self.get_supply(context, denom) + amount)
        key = _get_balance_key(address) + denom.encode()
        self._put(context, key, self.get_balance(context, address, denom) + amount)
        self._create_account(context, address)
        coin = f"{amount}{denom}"
        context.emit("coin_received", ("receiver", self.encode(address)), ("amount", coin))
        context.emit("coinbase", ("minter", self.encode(MINT)), ("amount", coin))

    def _burn(self, context: Context, address: bytes, coins: Coins) -> None:
        self._subtract(context, address, coins)
        for denom, amount in coins:
            self._put(context, b"\x00" + denom.encode(), self.get_supply(context, denom) - amount)
        context.emit("burn", ("burner", self.encode(address)), ("amount", format_coins(coins)))

    def _subtract(self, context: Context, address: bytes, coins: Coins) -> None:
        for denom, amount in coins:
            held = self.get_balance(context, address, denom)
            if held < amount:
                raise _refuse(5, f"spendable balance {held}{denom} is smaller than {amount}{denom}")
            self._put(context, _get_balance_key(address) + denom.encode(), held - amount)
        context.emit("coin_spent", ("spender", self.encode(address)), ("amount", format_coins(coins)))

    def _send(self, context: Context, source: bytes, target: bytes, coins: Coins) -> None:
        text = format_coins(coins)
        self._subtract(context, source, coins)
        for denom, amount in coins:
            key = _get_balance_key(target) + denom.encode()
            self._put(context, key, self.get_balance(context, target, denom) + amount)
        context.emit("coin_received", ("receiver", self.encode(target)), ("amount", text))
        self._create_account(context, target)
        sender = self.encode(source)
        context.emit("transfer", ("recipient", self.encode(target)), ("sender", sender), ("amount", text))
        context.emit("message", ("sender", sender))

    def _send_openly(self, context: Context, source: bytes, target: bytes, coins: Coins) -> None:
        if not coins:
            raise _refuse(10, "")
        if target in (FEE_COLLECTOR, MINT):
            raise _refuse(4, f"{self.encode(target)} is not allowed to receive funds")
        self._send(context, source, target, coins)

    # ------------------------------------------------------------------ contracts

    def _read_sequence(self, context: Context, name: bytes) -> int:
        return int.from_bytes(context.get(WASM, b"\x04" + name) or b"", "big")

    def _write_sequence(self, context: Context, name: bytes, number: int) -> None:
        context.set(WASM, b"\x04" + name, number.to_bytes(8, "big"))

    def _store_code(self, context: Context, sender: bytes, wasm: bytes) -> MsgStoreCodeResponse:
        if wasm[:2] == b"\x1f\x8b":
            wasm = _unpack(wasm)
        context.charge(GAS_CODE_BYTE * len(wasm))
        try:
            code = WasmCode(wasm, self.prefix)
        except Rejected as error:
            raise AppError("wasm", 2, f"{error}: create wasm contract failed") from error
        self.codes[code.checksum] = wasm
        number = self._read_sequence(context, b"lastCodeId") + 1
        self._write_sequence(context, b"lastCodeId", number)
        info = CodeInfo(
            code_hash=code.checksum,
            creator=self.encode(sender),
            instantiate_config=AccessConfig(permission=ACCESS_TYPE_EVERYBODY),
        )
        context.set(WASM, b"\x01" + number.to_bytes(8, "big"), info.SerializeToString(deterministic=True))
        required = [("required_capability", name) for name in sorted(code.capabilities)]
        context.emit("store_code", ("code_checksum", code.checksum.hex()), ("code_id", str(number)), *required)
        return MsgStoreCodeResponse(code_id=number, checksum=code.checksum)

    def get_code_info(self, context: Context, code_id: int) -> CodeInfo:
        """What is stored of a code; AppError wasm 28."""
        raw = context.get(WASM, b"\x01" + code_id.to_bytes(8, "big"))
        if raw is None:
            raise AppError("wasm", 28, f"code id {code_id}: no such code")
        return CodeInfo.FromString(raw)

    def get_contract_info(self, context: Context, contract: bytes) -> ContractInfo:
        """What is stored of a contract; AppError wasm 22."""
        raw = context.get(WASM, b"\x02" + contract)
        if raw is None:
            raise AppError("wasm", 22, f"address {self.encode(contract)}: no such contract")
        return ContractInfo.FromString(raw)

    def _load(self, context: Context, code_id: int) -> WasmCode:
        checksum = bytes(self.get_code_info(context, code_id).code_hash)
        context.charge(GAS_INSTANCE_AGAIN if checksum in context.loaded else GAS_INSTANCE)
        context.loaded.add(checksum)
        return WasmCode(self.codes[checksum], self.prefix)

    def _make_env(self, context: Context, contract: bytes) -> dict[str, Any]:
        transaction = context.transaction
        return {
            "block": {
                "height": context.block.height,
                "time": str(context.block.time_ns),
                "chain_id": self.chain_id,
            },
            "transaction": None
            if transaction is None
            else {"index": transaction[0], "hash": base64.b64encode(transaction[1]).decode()},
            "contract": {"address": self.encode(contract)},
        }

    def _make_info(self, sender: bytes, funds: Coins) -> dict[str, Any]:
        return {
            "sender": self.encode(sender),
            "funds": [{"denom": denom, "amount": str(amount)} for denom, amount in funds],
        }

    def _instantiate(
        self, context: Context, sender: bytes, admin: bytes, code_id: int, msg: bytes, label: str, funds: Coins
    ) -> tuple[bytes, bytes | None]:
        if not label or len(label) > 128:
            raise AppError("wasm", 12, "label: empty")
        _verify_json(msg)
        context = self._go_deeper(context)
        code = self._load(context, code_id)
        number = self._read_sequence(context, b"lastContractId") + 1
        self._write_sequence(context, b"lastContractId", number)
        address = compute_contract_address(code_id, number)
        self._create_account(context, address)
        if funds:
            self._send(context, sender, address, funds)
        response = self._call(
            context,
            address,
            4,
            lambda storage, env, querier: code.instantiate(
                storage, env, self._make_info(sender, funds), msg, querier, context.meter
            ),
        )
        info = ContractInfo(
            code_id=code_id,
            creator=self.encode(sender),
            admin=self.encode(admin) if admin else "",
            label=label,
            created=AbsoluteTxPosition(
                block_height=context.block.height, tx_index=context.transaction[0] if context.transaction else 0
            ),
            ibc2_port_id=f"wasm2{self.encode(address)}",
        )
        context.set(WASM, b"\x02" + address, info.SerializeToString(deterministic=True))
        context.emit("instantiate", ("_contract_address", self.encode(address)), ("code_id", str(code_id)))
        try:
            return address, self._handle_response(context, address, response)
        except AppError as error:
            raise error.wrap("dispatch") from error

    def _execute(self, context: Context, sender: bytes, contract: bytes, msg: bytes, funds: Coins) -> bytes | None:
        _verify_json(msg)
        context = self._go_deeper(context)
        code = self._load(context, self.get_contract_info(context, contract).code_id)
        if funds:
            self._send(context, sender, contract, funds)
        response = self._call(
            context,
            contract,
            5,
            lambda storage, env, querier: code.execute(
                storage, env, self._make_info(sender, funds), msg, querier, context.meter
            ),
        )
        context.emit("execute", ("_contract_address", self.encode(contract)))
        return self._handle_response(context, contract, response)

    def _reply(self, context: Context, contract: bytes, reply: Mapping[str, Any]) -> bytes | None:
        context = self._go_deeper(context)
        code = self._load(context, self.get_contract_info(context, contract).code_id)
        msg = json.dumps(reply, separators=(",", ":"), ensure_ascii=False).encode()
        response = self._call(
            context, contract, 5, lambda storage, env, querier: code.reply(storage, env, msg, querier, context.meter)
        )
        context.emit("reply", ("_contract_address", self.encode(contract)))
        try:
            return self._handle_response(context, contract, response)
        except AppError as error:
            raise error.wrap("dispatch") from error

    def _go_deeper(self, context: Context) -> Context:
        if context.call_depth >= MAX_CALL_DEPTH:
            raise AppError("wasm", 30, "max call depth exceeded")
        return replace(context, call_depth=context.call_depth + 1)  # the same state and events, one call further in

    def _call(self, context: Context, contract: bytes, code: int, run: Any) -> dict[str, Any]:
        """Run an entry point; what goes wrong in it in the chain's words."""
        words = {4: "instantiate wasm contract failed", 5: "execute wasm contract failed"}
        try:
            response: dict[str, Any] = run(
                ContractStorage(context, contract),
                self._make_env(context, contract),
                lambda request: self._answer(context, request),
            )
        except ContractError as error:
            raise AppError("wasm", code, f"{error.what}: {words[code]}", is_open=True) from error
        except OutOfGas:
            raise
        except WasmTrap as error:
            raise AppError("wasm", 29, f"Error calling the VM: {error.what}: wasmvm error") from error
        return response

    def _handle_response(self, context: Context, contract: bytes, response: Mapping[str, Any]) -> bytes | None:
        """Tell the contract's events, dispatch its messages; the data it answers with, a reply's data counting before its own."""
        own = _get_list(response, "attributes")
        custom = [
            (_get_text(event, "type").strip(), _get_list(event, "attributes"))
            for event in _get_list(response, "events")
        ]
        if own:
            context.emit("wasm", *self._read_attributes(context, contract, own))
        for kind, attributes in custom:
            if len(kind) <= 2:
                raise AppError("wasm", 21, f"Event type too short: '{kind}': invalid event")
            context.charge(GAS_EVENT)
            context.emit(f"wasm-{kind}", *self._read_attributes(context, contract, attributes))
        data = _decode_base64(response.get("data"))
        for message in _get_list(response, "messages"):
            answered = self._dispatch(context, contract, message)
            if answered is not None:
                data = answered
        return data

    def _read_attributes(
        self, context: Context, contract: bytes, attributes: Sequence[Mapping[str, Any]]
    ) -> list[tuple[str, str]]:
        found = [("_contract_address", self.encode(contract))]
        for attribute in attributes:
            key, value = (_get_text(attribute, name).strip() for name in ("key", "value"))
            if not key:
                raise AppError("wasm", 21, f"Empty attribute key. Value: {value}: invalid event")
            if key.startswith("_"):
                raise AppError("wasm", 21, f"Attribute key starts with reserved prefix _: '{key}': invalid event")
            context.charge(GAS_ATTRIBUTE + GAS_EVENT_BYTE * (len(key) + len(value)))
            found.append((key, value))
        return found

    def _dispatch(self, context: Context, contract: bytes, message: Mapping[str, Any]) -> bytes | None:
        """Run one message of a contract in a branch of the state, and its reply if it wants one; the reply's data."""
        reply_on = message.get("reply_on")
        if reply_on not in ("always", "error", "success", "never"):
            raise AppError("wasm", 14, "replyOn value: invalid")
        limit = message.get("gas_limit")
        meter = context.meter
        if isinstance(limit, int) and limit * GAS_MULTIPLIER < meter.remaining:
            meter = GasMeter(limit * GAS_MULTIPLIER)
        own = context.branch(meter)
        failure: AppError | None = None
        answer: Message | None = None
        try:
            answer = self._run_contract_message(own, contract, message.get("msg"))
        except AppError as error:
            failure = error
        except OutOfGas:
            if meter is context.meter:
                raise
            failure = _refuse(11, "SubMsg hit gas limit")
        if meter is not context.meter:
            context.meter.charge(meter.used)
        events: list[Event] = []
        if failure is None:
            own.commit()
            # wasmd sorts the attributes for the reply, and by that those of the transaction too
            is_wasm = "wasm" in (message.get("msg") or {})
            events = [
                (kind, tuple(sorted(pairs, key=lambda pair: pair[0])) if is_wasm else pairs)
                for kind, pairs in own.events
                if kind != "message"
            ]
            context.events += events
        elif reply_on in ("never", "success"):
            raise failure
        if reply_on == "never" or (reply_on == "error" and failure is None):
            return None
        told = events if failure is None and is_wasm else []  # of events of contracts only
        try:
            return self._reply(context, contract, _make_reply(message, answer, failure, told))
        except AppError as error:
            raise error.wrap("reply") from error

    def _run_contract_message(self, context: Context, contract: bytes, message: Any) -> Message:
        match message:
            case {"bank": {"send": {"to_address": str(target), "amount": list(amount)}}}:
                self._send_openly(context, contract, self.decode(target), _read_coins(amount))
                return MsgSendResponse()
            case {"bank": {"burn": {"amount": list(amount)}}}:
                self._burn(context, contract, _read_coins(amount))
                return MsgSendResponse()
            case {"wasm": {"execute": {"contract_addr": str(target), "msg": msg, "funds": list(funds)}}}:
                data = self._execute(
                    context, contract, self.decode(target), _decode_base64(msg) or b"", _read_coins(funds)
                )
                return MsgExecuteContractResponse(data=data or b"")
            case {"wasm": {"instantiate": {"code_id": int(code_id), "msg": msg, "funds": list(funds), **rest}}}:
                admin = self.decode(str(rest["admin"])) if rest.get("admin") else b""
                address, data = self._instantiate(
                    context,
                    contract,
                    admin,
                    code_id,
                    _decode_base64(msg) or b"",
                    str(rest.get("label", "")),
                    _read_coins(funds),
                )
                return MsgInstantiateContractResponse(address=self.encode(address), data=data or b"")
        raise AppError("wasm", 20, "no handler found: unknown message from the contract")

    # ------------------------------------------------------------------ queries

    def make_query_context(self, height: int) -> Context:
        """A branch of the state after a height, with the gas of a query. KeyError for a height that is not there."""
        context = self._make_context(self.versions[height], self.blocks[height], QUERY_GAS)
        return context.branch()

    def query_smart(self, context: Context, contract: bytes, msg: bytes) -> bytes:
        """A contract's answer to a query; AppError wasm 9, 22, 27, 29; OutOfGas."""
        if context.query_depth >= MAX_QUERY_DEPTH:
            raise AppError("wasm", 27, "max query stack size exceeded")
        inner = replace(context, query_depth=context.query_depth + 1)
        code = self._load(inner, self.get_contract_info(inner, contract).code_id)
        storage = ContractStorage(inner, contract)
        env = self._make_env(inner, contract)
        try:
            return code.query(storage, env, msg, lambda request: self._answer(inner, request), inner.meter)
        except ContractError as error:
            raise AppError("wasm", 9, f"{error.what}: query wasm contract failed", is_open=True) from error
        except OutOfGas:
            raise
        except WasmTrap as error:
            raise AppError("wasm", 29, f"Error calling the VM: {error.what}: wasmvm error") from error

    def _answer(self, context: Context, request: bytes) -> bytes:
        """What the chain answers to a contract's query: JSON of SystemResult<ContractResult<Binary>>."""
        wrapped: dict[str, Any]
        try:
            asked = decode_json(request)
        except Rejected as error:
            text = base64.b64encode(request).decode()
            return _dump({"error": {"invalid_request": {"error": str(error)[:200], "request": text}}})
        try:
            result = self._answer_request(context.branch(), asked)
            wrapped = {"ok": {"ok": base64.b64encode(result).decode()}}
        except _SystemError as error:
            wrapped = {"error": error.value}
        except AppError as error:
            wrapped = {"ok": {"error": error.redacted}}
        return _dump(wrapped)

    def _answer_request(self, context: Context, request: Any) -> bytes:
        match request:
            case {"bank": {"balance": {"address": str(address), "denom": str(denom)}}}:
                amount = self.get_balance(context, self.decode(address), denom)
                return _dump({"amount": {"denom": denom, "amount": str(amount)}})
            case {"bank": {"all_balances": {"address": str(address)}}}:
                coins = self.get_balances(context, self.decode(address))
                return _dump({"amount": [{"denom": denom, "amount": str(amount)} for denom, amount in coins]})
            case {"bank": {"supply": {"denom": str(denom)}}}:
                return _dump({"amount": {"denom": denom, "amount": str(self.get_supply(context, denom))}})
            case {"wasm": {"smart": {"contract_addr": str(address), "msg": msg}}}:
                contract = self._find_contract(context, address)
                return self.query_smart(context, contract, _decode_base64(msg) or b"")
            case {"wasm": {"raw": {"contract_addr": str(address), "key": key}}}:
                value = ContractStorage(context, self.decode(address)).get(_decode_base64(key) or b"")
                return value or b""
            case {"wasm": {"contract_info": {"contract_addr": str(address)}}}:
                info = self.get_contract_info(context, self._find_contract(context, address))
                return _dump(
                    {
                        "code_id": int(info.code_id),
                        "creator": info.creator,
                        "admin": info.admin or None,
                        "pinned": False,
                        "ibc_port": info.ibc_port_id or None,
                        "ibc2_port": info.ibc2_port_id or None,
                    }
                )
        kind = next(iter(request), "") if isinstance(request, dict) else ""
        raise _SystemError({"unsupported_request": {"kind": str(kind)[:100]}})

    def _find_contract(self, context: Context, text: str) -> bytes:
        contract = self.decode(text)
        if context.get(WASM, b"\x02" + contract) is None:
            raise _SystemError({"no_such_contract": {"addr": text}})
        return contract

    # ------------------------------------------------------------------ proofs

    def prove(
        self, height: int, store: bytes, key: bytes
    ) -> tuple[bytes | None, list[ExistenceProof | NonExistenceProof]]:
        """(value or None, proofs of the store and of the multistore) in the state after a height. KeyError; ValueError."""
        trees = self.versions[height]
        tree = trees.get(store, Tree())
        return tree.get(key), [tree.prove(key), prove_store(self.get_store_hashes(trees), store)]


class _SystemError(Exception):
    """A query that the chain cannot put to anybody; ``value``: its JSON."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        super().__init__(value)
        self.value = value


# ---- small things -----------------------------------------------------------------------------------------------------


def _get_used(meter: GasMeter) -> int:
    return -(-meter.used // GAS_MULTIPLIER)


def _get_balance_key(address: bytes) -> bytes:
    return b"\x02" + bytes([len(address)]) + address


def _is_signed(key: bytes, document: bytes, signature: bytes) -> bool:
    if len(signature) != 64:
        return False
    try:
        der = cdata_to_der(deserialize_compact(signature))
        return bool(PublicKey(key).verify(der, sha256(document).digest(), hasher=None))
    except ValueError:
        return False


def _unpack(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        wasm = unpacker.decompress(packed, MAX_CODE_BYTES)
    except zlib.error as error:
        raise AppError("wasm", 2, f"uncompress wasm archive: {error}: create wasm contract failed") from error
    if unpacker.unconsumed_tail:
        raise AppError("wasm", 13, "uncompress wasm archive: exceeds limit")
    return wasm


def pack(wasm: bytes) -> bytes:
    """A binary as it is sent: compressed, always in the same bytes."""
    return gzip.compress(wasm, 6, mtime=0)


def _verify_json(msg: bytes) -> None:
    try:
        decode_json(msg)
    except Rejected as error:
        raise AppError("wasm", 14, "payload msg: invalid") from error


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _decode_base64(value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise AppError("wasm", 29, "Error parsing the contract's answer: wasmvm error") from error


def _get_list(value: Mapping[str, Any], name: str) -> list[Any]:
    found = value.get(name) or []
    if not isinstance(found, list) or any(not isinstance(item, Mapping) for item in found):
        raise AppError("wasm", 29, "Error parsing the contract's answer: wasmvm error")
    return found


def _get_text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise AppError("wasm", 29, "Error parsing the contract's answer: wasmvm error")
    return found


def _read_coins(coins: Sequence[Any]) -> Coins:
    """Coins of a contract's message; zero amounts are dropped, as wasmd drops them."""
    found = [
        Coin(denom=str(coin.get("denom")), amount=str(coin.get("amount")))
        for coin in coins
        if isinstance(coin, Mapping)
    ]
    return _parse_coins(sorted((coin for coin in found if coin.amount != "0"), key=lambda coin: coin.denom))


def _make_reply(
    message: Mapping[str, Any],
    answer: Message | None,
    failure: AppError | None,
    events: Sequence[tuple[str, Sequence[tuple[str, str]]]],
) -> dict[str, Any]:
    """The JSON of a Reply. wasmd leaves the gas that was used at zero."""
    result: dict[str, Any]
    if failure is not None:
        result = {"error": failure.redacted}
    else:
        assert answer is not None
        value = base64.b64encode(answer.SerializeToString()).decode()
        told = [
            {"type": kind, "attributes": [{"key": k, "value": v} for k, v in attributes]} for kind, attributes in events
        ]
        url = "/" + answer.DESCRIPTOR.full_name
        result = {"ok": {"events": told, "data": value, "msg_responses": [{"type_url": url, "value": value}]}}
    return {"id": message.get("id", 0), "payload": message.get("payload") or "", "gas_used": 0, "result": result}
