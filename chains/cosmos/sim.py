"""A simulated Cosmos chain in this process: application, consensus, endpoints that may lie, and a clock that is moved by hand.

    clock = ManualClock(1_800_000_000)
    chain = SimCosmos("sim-1", clock, n_endpoints=2)
    key = chain.make_key("maker")                                # 32 bytes, funded with test money from the next block on
    vault = chain.deploy(get_wasm("vault"), {...}, key)          # 32-byte address; the message of `instantiate`
    chain.transact(key, vault, {"deposit": {...}}, funds=[("utoken", 5)])    # signed and sent; lands in the first block after now
    chain.mine()                                                 # moves a ManualClock to the next block and makes it
    chain.finalize()                                             # moves a ManualClock until the newest state is under a header
    chain.get_result(hash)                                       # TxResult or None
    chain.query(vault, {"cursors": {}})                          # answer to a smart query on the newest state
    chain.endpoints[0].lies.drop_events = True                   # see `sim_rpc.Lies`
    chain.set_validators({"v0": 40, "v9": 60})                   # announced by the block after the next, in force one later
    chain.halt(); chain.resume()
    first, second = chain.fork()                                 # two blocks of one height, both really signed
    chain.get_checkpoint()                                       # (header hash, height): what a light client is configured with

Time: ``clock`` is any callable that returns unix seconds; a block is due every 5 s. `tick` makes the blocks that are due, and every request
of an endpoint ticks first, so whoever moves the clock need not call anything. A transaction lands in the first block after the second in
which it was sent; the state after it is under the header of the next block. Blocks in which nothing happens are left out, apart from that one
and the newest: hours and weeks of virtual time cost milliseconds. A light client can step over the gap as long as its trusting period lasts,
which no chain can lengthen: whoever moves the clock farther than that lets the client look in between. Everything is
deterministic: the same calls at the same times give the same blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from coincurve import PrivateKey
from coincurve.ecdsa import der_to_cdata, serialize_compact, signature_normalize
from cosmpy.protos.cosmos.base.v1beta1.coin_pb2 import Coin
from cosmpy.protos.cosmos.crypto.secp256k1.keys_pb2 import PubKey
from cosmpy.protos.cosmos.tx.signing.v1beta1.signing_pb2 import SIGN_MODE_DIRECT
from cosmpy.protos.cosmos.tx.v1beta1.tx_pb2 import AuthInfo, Fee, ModeInfo, SignDoc, SignerInfo, TxBody, TxRaw
from cosmpy.protos.cosmwasm.wasm.v1.tx_pb2 import (
    MsgExecuteContract,
    MsgInstantiateContract,
    MsgStoreCode,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from chains.cosmos.comet_sim import POWERS, CometBlock, CometSim, compute_results_hash
from chains.cosmos.sim_chain import (
    BLOCK_BYTES,
    BlockInfo,
    Coins,
    Context,
    Event,
    SimApp,
    TxResult,
    compute_key_address,
    pack,
)
from chains.cosmos.sim_rpc import Lies, SimCometRpc
from chains.cosmos.types import NANOSECONDS
from chains.cosmos.wasm_vm import GasMeter
from chains.sim_clock import ManualClock
from messages.errors import Rejected

__all__ = ["ManualClock", "SimCosmos", "SimEndpoint"]

BLOCK_SECONDS = 5
HISTORY_BLOCKS = 3
"""How many blocks the chain has when it is made, so that something is under a header already."""
FUNDS = 10_000_000_000
DEPLOY_GAS = 20_000_000
CALL_GAS = 3_000_000
POOL_SIZE = 5000
MAX_POOL_BYTES = 64 << 20


@dataclass(frozen=True)
class SimEndpoint:
    """One endpoint over the chain: its door and how it lies."""

    name: str
    rpc: SimCometRpc
    lies: Lies


@dataclass(frozen=True)
class PoolTx:
    """A transaction that waits; ``slot``: the 5-second slot in which it came."""

    raw: bytes
    slot: int


class PoolError(Rejected):
    """The pool does not take a transaction: CometBFT answers with an error, not with a result."""


class SimCosmos:
    """See the module.

    Args:
        chain_id: the chain's own id, without "cosmos:".
        clock: unix seconds.
        n_endpoints: doors over the one chain.
        n_validators: members of the first set, named "v0", "v1", ...
        prefix: what addresses begin with.
        denom: what fees are paid in.
        block_s: seconds between blocks.
    """

    def __init__(
        self,
        chain_id: str,
        clock: Callable[[], float],
        n_endpoints: int = 2,
        n_validators: int = 4,
        prefix: str = "wasm",
        denom: str = "utoken",
        block_s: int = BLOCK_SECONDS,
    ) -> None:
        self.chain_id = chain_id
        self.clock = clock
        self.prefix = prefix
        self.denom = denom
        self.block_s = block_s
        self.app = SimApp(chain_id, prefix, denom)
        powers = {f"v{i}": POWERS[i % len(POWERS)] for i in range(n_validators)}
        self.comet = CometSim(chain_id, powers, seed=f"optsettle sim {chain_id}".encode())
        self.results: list[tuple[TxResult, ...]] = []
        """Of every block, the first being that of height 1."""
        self.block_events: list[tuple[Event, ...]] = []
        self.app_hashes: list[bytes] = []
        """The hash of the state after every block; the next header carries it."""
        self.pool: dict[bytes, PoolTx] = {}
        self.is_halted = False
        self._check: Context | None = None
        self._places: dict[bytes, tuple[int, int]] = {}
        self._funded: set[bytes] = set()
        self._codes: dict[bytes, int] = {}
        self._slot = self.get_slot() - HISTORY_BLOCKS
        self.endpoints = [self._make_endpoint(f"sim-{chain_id}-{i}") for i in range(n_endpoints)]
        for slot in range(self._slot + 1, self._slot + HISTORY_BLOCKS + 1):
            self._make_block(slot)

    def _make_endpoint(self, name: str) -> SimEndpoint:
        lies = Lies()
        return SimEndpoint(name, SimCometRpc(self, lies, name), lies)

    # ------------------------------------------------------------------ time and blocks

    def get_slot(self) -> int:
        """The slot that is running; a block's time is the second at which its slot begins."""
        return int(self.clock()) // self.block_s

    @property
    def height(self) -> int:
        """Height of the newest block."""
        return len(self.comet.blocks)

    @property
    def head(self) -> CometBlock:
        """The newest block."""
        return self.comet.head

    def tick(self) -> None:
        """Make every block that is due by now."""
        now = self.get_slot()
        while not self.is_halted and self._slot < now:
            due = [max(tx.slot, self._slot) + 1 for tx in self.pool.values()]
            if self.app.mints or self._is_unsettled():
                due.append(self._slot + 1)
            self._make_block(min([*due, now]))

    def _is_unsettled(self) -> bool:
        """Whether the newest block did something: then the next one follows it closely, with the hash of what it did."""
        return bool(self.results[-1] or self.block_events[-1]) or self._is_changing()

    def _is_changing(self) -> bool:
        head = self.head.header
        return head.validators_hash != head.next_validators_hash or self.comet.is_changing

    def _make_block(self, slot: int) -> CometBlock:
        height = self.height + 1
        time_ns = slot * self.block_s * NANOSECONDS
        transactions = self._choose(slot)
        header = self.comet.make_header(
            time_ns,
            transactions,
            self.app_hashes[-1] if self.app_hashes else self.app.app_hash,
            compute_results_hash([_get_hashed(r) for r in self.results[-1]] if self.results else []),
        )
        self.block_events.append(self.app.begin(BlockInfo(height, time_ns)))
        self.results.append(tuple(self.app.deliver(raw, index) for index, raw in enumerate(transactions)))
        self.app_hashes.append(self.app.commit())
        block = self.comet.append(self.comet.make_block(header, transactions))
        for index, raw in enumerate(transactions):
            name = sha256(raw).digest()
            self._places[name] = (height, index)
            del self.pool[name]
        self._slot = slot
        self._recheck()
        return block

    def _choose(self, slot: int) -> list[bytes]:
        """The transactions of a block: those that came before its slot, oldest first, as many as fit."""
        chosen: list[bytes] = []
        room = BLOCK_BYTES - 65_536
        for tx in self.pool.values():
            if tx.slot < slot and len(tx.raw) <= room:
                chosen.append(tx.raw)
                room -= len(tx.raw)
        return chosen

    def mine(self, n: int = 1) -> CometBlock:
        """Move the clock (a ManualClock) to the next slot and make its block, n times; the last one."""
        for _ in range(n):
            self.tick()
            self._advance_to((max(self.get_slot(), self._slot) + 1) * self.block_s)
            self.tick()
        return self.head

    def finalize(self) -> CometBlock:
        """Move the clock (a ManualClock) until everything that was sent is in a block and under a header; the block of that header."""
        self.tick()
        if self.pool or self.app.mints:
            self.mine()
        return self.mine()

    def _advance_to(self, time: int) -> None:
        if not isinstance(self.clock, ManualClock):
            raise TypeError("only a ManualClock can be moved from here: move your own clock and call tick()")
        self.clock.advance(max(time - self.clock.now, 0))

    # ------------------------------------------------------------------ consensus

    def get_checkpoint(self) -> tuple[bytes, int]:
        """(32-byte header hash, height) of the newest block: what a light client may start from."""
        self.tick()
        return self.head.hash, self.height

    def set_validators(self, powers: Mapping[str, int]) -> None:
        """Have the next block change the validators, by name; the header after it names them as the next ones, the one after that is theirs."""
        if not any(powers.values()):
            raise ValueError("a chain without validators")
        self.comet.change_validators(powers)

    def halt(self) -> None:
        """Make no blocks from now on: more than a third of the power is away."""
        self.tick()
        self.is_halted = True

    def resume(self) -> None:
        """Make blocks again, from now on."""
        self.is_halted = False
        self._slot = max(self._slot, self.get_slot() - 1)

    def fork(self, height: int | None = None) -> tuple[CometBlock, CometBlock]:
        """(the chain's block, another one of its height that the same validators really signed); the other does not join the chain.

        It claims another state: whoever believes it believes a state that nobody computed.
        """
        block = self.comet.blocks[(height or self.height) - 1]
        other = replace(block.header, app_hash=sha256(b"fork" + block.header.app_hash).digest())
        return block, self.comet.make_block(other, block.transactions)

    # ------------------------------------------------------------------ the pool

    def _recheck(self) -> None:
        """Judge what is left in the pool again on the new state; what has become impossible leaves it."""
        self._check = self.app.make_check_context()
        for name, tx in list(self.pool.items()):
            if self.app.check(self._check, tx.raw).code:
                del self.pool[name]

    def get_check_context(self) -> Context:
        """The newest state with the pool's fees and numbers; good until the next block."""
        if self._check is None:
            self._check = self.app.make_check_context()
        return self._check

    def send_raw(self, raw: bytes) -> tuple[bytes, TxResult]:
        """Take a signed transaction into the pool: (hash, what the check says; code 0: it is in the pool).

        Raises PoolError where the pool knows it already, or is full.
        """
        name = sha256(raw).digest()
        place = self._places.get(name)
        if name in self.pool or (place is not None and self.results[place[0] - 1][place[1]].code == 0):
            raise PoolError("tx already exists in cache", reason="known")
        if len(self.pool) >= POOL_SIZE or sum(len(tx.raw) for tx in self.pool.values()) + len(raw) > MAX_POOL_BYTES:
            raise PoolError(f"mempool is full: number of txs {len(self.pool)} (max: {POOL_SIZE})", reason="full")
        result = self.app.check(self.get_check_context(), raw)
        if result.code == 0:
            self.pool[name] = PoolTx(raw, max(self.get_slot(), self._slot))
        return name, result

    def get_place(self, tx_hash: bytes) -> tuple[int, int] | None:
        """(height, place in the block) of a transaction that is in a block."""
        return self._places.get(tx_hash)

    def get_result(self, tx_hash: bytes) -> TxResult | None:
        """What became of a transaction, or None while it is in no block."""
        self.tick()
        place = self._places.get(tx_hash)
        return None if place is None else self.results[place[0] - 1][place[1]]

    # ------------------------------------------------------------------ accounts and money

    def make_key(self, name: str, amount: int = FUNDS) -> bytes:
        """A private key of this chain that depends on its name alone; funded by the next block, the first time."""
        key = sha256(f"optsettle sim key {self.chain_id} {name}".encode()).digest()
        if key not in self._funded:
            self._funded.add(key)
            self.mint(self.denom, self.get_address_bytes(key), amount)
        return key

    def get_address_bytes(self, key: bytes) -> bytes:
        """The 20-byte address of a private key."""
        return compute_key_address(PrivateKey(key).public_key.format())

    def get_address(self, key: bytes) -> str:
        """The text of a key's address."""
        return self.app.encode(self.get_address_bytes(key))

    def mint(self, denom: str, address: bytes | str, amount: int) -> None:
        """Have the next block begin with new money of an address (20 or 32 bytes, or its text). The pool knows of it at once."""
        owner = self.app.decode(address) if isinstance(address, str) else address
        self.app.mints.append((denom, owner, amount))
        self._recheck()

    def get_balance(self, address: bytes | str, denom: str | None = None) -> int:
        """What an address owns on the newest state; ``denom``: that of fees."""
        self.tick()
        owner = self.app.decode(address) if isinstance(address, str) else address
        return self.app.get_balance(self.app.make_query_context(self.height), owner, denom or self.denom)

    # ------------------------------------------------------------------ transactions

    def deploy(self, code: bytes, msg: Mapping[str, Any], key: bytes, label: str = "contract") -> bytes:
        """Upload a binary, unless the chain has it, and instantiate it without an admin, each in a block; the contract's 32-byte address.

        Rejected ("deployment") with the chain's words where that fails.
        """
        checksum = sha256(code).digest()
        if checksum not in self._codes:
            upload = MsgStoreCode(sender=self.get_address(key), wasm_byte_code=pack(code))
            self._codes[checksum] = int(self._deploy(key, upload, "store_code", "code_id"))
        instantiate = MsgInstantiateContract(
            sender=self.get_address(key), code_id=self._codes[checksum], label=label, msg=_encode_json(msg)
        )
        return self.app.decode(self._deploy(key, instantiate, "instantiate", "_contract_address"))

    def _deploy(self, key: bytes, message: Message, kind: str, attribute: str) -> str:
        sent = self.send(key, message, gas=DEPLOY_GAS)
        self.mine()
        result = self.get_result(sent)
        if result is None or result.code:
            raise Rejected("the contract was not deployed", got=result and result.log, reason="deployment")
        return next(
            value for event, pairs in result.events if event == kind for name, value in pairs if name == attribute
        )

    def transact(
        self,
        key: bytes,
        contract: bytes | str,
        msg: Mapping[str, Any],
        funds: Sequence[tuple[str, int]] = (),
        *,
        gas: int = CALL_GAS,
        timeout_height: int = 0,
    ) -> bytes:
        """Sign and send a call of a contract (32 bytes, or its text); the transaction's hash. Rejected ("refused") by the pool."""
        message = MsgExecuteContract(
            sender=self.get_address(key),
            contract=contract if isinstance(contract, str) else self.app.encode(contract),
            msg=_encode_json(msg),
            funds=[Coin(denom=denom, amount=str(amount)) for denom, amount in sorted(funds)],
        )
        return self.send(key, message, gas=gas, timeout_height=timeout_height)

    def send(self, key: bytes, message: Message, *, gas: int = CALL_GAS, timeout_height: int = 0) -> bytes:
        """Sign and send a transaction with one message; its hash. Rejected ("refused") with the chain's words."""
        self.tick()
        name, result = self.send_raw(self.sign(key, message, gas=gas, timeout_height=timeout_height))
        if result.code:
            raise Rejected(f"the pool refuses the transaction: {result.log}", got=result.code, reason="refused")
        return name

    def sign(
        self,
        key: bytes,
        message: Message,
        *,
        gas: int = CALL_GAS,
        timeout_height: int = 0,
        sequence: int | None = None,
        fee: Coins | None = None,
    ) -> bytes:
        """The bytes of a signed transaction (SIGN_MODE_DIRECT), numbered after everything in the pool unless said otherwise."""
        private = PrivateKey(key)
        account = self.app.get_account(self.get_check_context().branch(GasMeter()), self.get_address_bytes(key))
        if account is None:
            raise Rejected("the chain does not know the account: mint it something first", reason="no_account")
        price = self.app.min_gas_price
        paid = ((self.denom, -(-gas * price.numerator // price.denominator)),) if fee is None else fee
        body = TxBody(
            messages=[AnyMessage(type_url="/" + message.DESCRIPTOR.full_name, value=message.SerializeToString())],
            timeout_height=timeout_height,
        ).SerializeToString()
        public = PubKey(key=private.public_key.format()).SerializeToString()
        auth = AuthInfo(
            signer_infos=[
                SignerInfo(
                    public_key=AnyMessage(type_url="/cosmos.crypto.secp256k1.PubKey", value=public),
                    mode_info=ModeInfo(single=ModeInfo.Single(mode=SIGN_MODE_DIRECT)),
                    sequence=account.sequence if sequence is None else sequence,
                )
            ],
            fee=Fee(amount=[Coin(denom=d, amount=str(a)) for d, a in paid], gas_limit=gas),
        ).SerializeToString()
        document = SignDoc(
            body_bytes=body, auth_info_bytes=auth, chain_id=self.chain_id, account_number=account.account_number
        ).SerializeToString()
        der = private.sign(sha256(document).digest(), hasher=None)
        signature = bytes(serialize_compact(signature_normalize(der_to_cdata(der))[1]))
        return bytes(TxRaw(body_bytes=body, auth_info_bytes=auth, signatures=[signature]).SerializeToString())

    def query(self, contract: bytes | str, msg: Mapping[str, Any]) -> Any:
        """A contract's answer to a query on the newest state; Rejected ("wasm_9", ...) with the chain's words."""
        self.tick()
        address = self.app.decode(contract) if isinstance(contract, str) else contract
        return json.loads(self.app.query_smart(self.app.make_query_context(self.height), address, _encode_json(msg)))


def _get_hashed(result: TxResult) -> tuple[int, bytes, int, int]:
    return result.code, result.data, result.gas_wanted, result.gas_used


def _encode_json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
