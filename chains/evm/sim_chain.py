"""The execution layer of the simulated chain: a real EVM (py-evm, Prague rules) with real state roots, in this process.

Nothing is faked: transactions are signed and decoded, the state lies in Merkle Patricia tries, `prove` walks them. What is left
out is what a single honest block producer never needs: re-execution and re-validation of its own blocks, proof of work,
uncles, networking. Time is a slot number handed in; there is no clock and no randomness in here.

Blocks are kept by number and by hash; old states stay readable for ever because trie nodes are never deleted, which is also
what makes a reorg a matter of cutting a list (`reorg`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import rlp
from eth.chains.base import Chain
from eth.consensus.context import ConsensusContext
from eth.db.atomic import AtomicDB
from eth.vm.chain_context import ChainContext
from eth.vm.forks.prague import PragueVM as _PragueVM
from eth.vm.message import Message as _Message
from eth_hash.auto import keccak
from eth_utils.exceptions import ValidationError
from trie.hexary import HexaryTrie

from messages.errors import Rejected

GAS_LIMIT = 36_000_000
MAX_REMEMBERED_CALLS = 256
GAS_BASE_FEE_WEI = 1_000_000_000
MIN_BASE_FEE_WEI = 100_000_000
"""Floor of the base fee. On the real chain it sinks to 7 wei when blocks are empty, and then fee rules are never exercised."""
GENESIS_BALANCE_WEI = 10_000 * 10**18
REPLACE_PERCENT = 10
"""A replacement must raise both fees by at least this much (go-ethereum txpool.pricebump)."""
COINBASE = bytes.fromhex("feefeefeefeefeefeefeefeefeefeefeefeefee0")
ZERO32 = bytes(32)

# py-evm's types tell its own address and hash types apart from bytes; this module is the border to it.
PragueVM: Any = _PragueVM
Message: Any = _Message


@dataclass(frozen=True)
class SimLog:
    """One log. topics: 32 bytes each."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    index: int
    transaction_index: int
    transaction_hash: bytes


@dataclass(frozen=True)
class SimReceipt:
    """What became of a transaction; ``output`` is the return or revert data."""

    transaction_hash: bytes
    index: int
    succeeded: bool
    gas_used: int
    cumulative_gas: int
    effective_gas_price: int
    logs: tuple[SimLog, ...]
    contract: bytes | None
    output: bytes
    encoded: bytes


@dataclass(frozen=True)
class SimTransaction:
    """A signed transaction as it arrived; ``decoded`` is py-evm's object."""

    raw: bytes
    hash: bytes
    sender: bytes
    nonce: int
    max_fee: int
    priority_fee: int
    arrived_slot: int
    decoded: Any


@dataclass(frozen=True)
class SimBlock:
    """A block with everything an RPC endpoint can be asked about it."""

    slot: int
    header: Any
    transactions: tuple[SimTransaction, ...]
    receipts: tuple[SimReceipt, ...]

    @property
    def number(self) -> int:
        """Block number."""
        return int(self.header.block_number)

    @property
    def hash(self) -> bytes:
        """32-byte block hash."""
        return bytes(self.header.hash)

    @property
    def timestamp(self) -> int:
        """Unix seconds."""
        return int(self.header.timestamp)


@dataclass(frozen=True)
class CallResult:
    """Outcome of a call without a transaction; ``output`` is the return or revert data."""

    succeeded: bool
    output: bytes
    gas_used: int
    logs: tuple[tuple[bytes, tuple[bytes, ...], bytes], ...]


@dataclass
class SimChain:
    """One chain. ``alloc`` maps 20-byte addresses to wei.

    Every method is synchronous and deterministic; `sim.SimNetwork` decides when blocks are made.
    """

    chain_id: int
    genesis_time: int
    slot_seconds: int = 12
    alloc: Mapping[bytes, int] = field(default_factory=dict)
    blocks: list[SimBlock] = field(default_factory=list, init=False)
    pool: dict[bytes, SimTransaction] = field(default_factory=dict, init=False)
    base_fee_floor_wei: int = MIN_BASE_FEE_WEI
    """Raise it to simulate a gas spike."""

    def __post_init__(self) -> None:
        self._db = AtomicDB()
        self._chaindb = Chain.chaindb_class(self._db)
        self._context = ChainContext(self.chain_id)
        self._consensus = ConsensusContext(self._db)
        self._calls: dict[tuple[Any, ...], CallResult] = {}
        self._by_hash: dict[bytes, SimBlock] = {}
        self._by_transaction: dict[bytes, tuple[SimBlock, int]] = {}
        header = PragueVM.create_genesis_header(
            difficulty=0, gas_limit=GAS_LIMIT, timestamp=self.genesis_time, base_fee_per_gas=GAS_BASE_FEE_WEI
        )
        state = PragueVM.build_state(self._db, header, self._context)
        for address, wei in self.alloc.items():
            state.set_balance(address, wei)
        state.persist()
        self._append(SimBlock(0, header.copy(state_root=state.state_root), (), ()))

    # ------------------------------------------------------------------ blocks

    @property
    def head(self) -> SimBlock:
        """The newest block."""
        return self.blocks[-1]

    def get_time(self, slot: int) -> int:
        """Unix seconds of a slot."""
        return self.genesis_time + slot * self.slot_seconds

    def get_block(self, number_or_hash: int | bytes) -> SimBlock | None:
        """A canonical block, or None."""
        if isinstance(number_or_hash, bytes):
            return self._by_hash.get(number_or_hash)
        return self.blocks[number_or_hash] if 0 <= number_or_hash < len(self.blocks) else None

    def get_transaction(self, transaction_hash: bytes) -> tuple[SimBlock, SimTransaction, SimReceipt] | None:
        """A mined transaction, or None."""
        found = self._by_transaction.get(transaction_hash)
        return None if found is None else (found[0], found[0].transactions[found[1]], found[0].receipts[found[1]])

    def _append(self, block: SimBlock) -> None:
        self._db[block.hash] = rlp.encode(block.header)  # py-evm looks up ancestors by hash
        self.blocks.append(block)
        self._by_hash[block.hash] = block
        for index, transaction in enumerate(block.transactions):
            self._by_transaction[transaction.hash] = (block, index)

    def _make_header(self, slot: int, parent_beacon_root: bytes) -> Any:
        parent = self.head.header
        header = PragueVM.create_header_from_parent(
            parent,
            timestamp=self.get_time(slot),
            coinbase=COINBASE,
            gas_limit=GAS_LIMIT,
            parent_beacon_block_root=parent_beacon_root,
            # stands for the randomness of the beacon chain; slot and chain make it differ everywhere
            mix_hash=sha256(b"randao" + slot.to_bytes(8, "big") + self.chain_id.to_bytes(32, "big")).digest(),
        )
        return header.copy(base_fee_per_gas=max(header.base_fee_per_gas, self.base_fee_floor_wei))

    def mine(
        self, slot: int, parent_beacon_root: bytes = ZERO32, *, include: bool = True, extra: bytes = b""
    ) -> SimBlock:
        """Make one block at ``slot`` with the pool's executable transactions that arrived before it.

        ``include`` False makes an empty one; ``extra`` (at most 32 bytes) makes the hash differ, as after a reorg.
        """
        if slot <= self.head.slot:
            raise ValueError(f"slot {slot} is not after the head's slot {self.head.slot}: move the clock")
        header = self._make_header(slot, parent_beacon_root).copy(extra_data=extra)
        vm = PragueVM(header, self._chaindb, self._context, self._consensus)
        block = vm.get_block()
        vm.block_preprocessing(block)
        chosen, receipts = self._execute(vm, header, slot) if include else ((), ())
        gas_used = receipts[-1][0].gas_used if receipts else 0
        bloom = 0
        for receipt, _ in receipts:
            bloom |= int(receipt.bloom)
        filled = vm.set_block_transactions_and_withdrawals(
            block,
            header.copy(gas_used=gas_used, bloom=bloom),
            tuple(t.decoded for t in chosen),
            tuple(r for r, _ in receipts),
        )
        sealed = vm.finalize_block(filled).block.header
        mined = SimBlock(slot, sealed, tuple(chosen), _describe(chosen, receipts, sealed.base_fee_per_gas))
        for transaction in chosen:
            self.pool.pop(transaction.hash, None)
        self._append(mined)
        return mined

    def _execute(
        self, vm: Any, header: Any, slot: int
    ) -> tuple[tuple[SimTransaction, ...], tuple[tuple[Any, Any], ...]]:
        chosen: list[SimTransaction] = []
        receipts: list[tuple[Any, Any]] = []
        running = header
        waiting = [t for t in self.pool.values() if t.arrived_slot < slot and t.max_fee >= header.base_fee_per_gas]
        progress = True
        while progress:  # a nonce that was not next yet may be next after another transaction of its sender
            progress = False
            for transaction in list(waiting):
                if transaction.nonce != vm.state.get_nonce(transaction.sender):
                    continue
                waiting.remove(transaction)
                if running.gas_used + transaction.decoded.gas > GAS_LIMIT:
                    continue
                try:
                    receipt, computation = vm.apply_transaction(running, transaction.decoded)
                except ValidationError:
                    self.pool.pop(transaction.hash, None)  # cannot pay any more: pools evict it
                    continue
                running = running.copy(gas_used=receipt.gas_used, bloom=int(running.bloom) | int(receipt.bloom))
                chosen.append(transaction)
                receipts.append((receipt, computation))
                progress = True
        return tuple(chosen), tuple(receipts)

    def reorg(self, depth: int, *, drop: bool = False) -> tuple[SimBlock, ...]:
        """Forget the last ``depth`` blocks; their transactions return to the pool, or are dropped. Returns those blocks.

        The caller makes the blocks that replace them. Never crosses genesis; finality is the network's business.
        """
        if not 0 < depth < len(self.blocks):
            raise ValueError(f"cannot take back {depth} of {len(self.blocks)} blocks")
        gone = tuple(self.blocks[-depth:])
        del self.blocks[-depth:]
        for block in gone:
            del self._by_hash[block.hash]
            for transaction in block.transactions:
                del self._by_transaction[transaction.hash]
                if not drop:
                    self.pool[transaction.hash] = transaction
        return gone

    # ------------------------------------------------------------------ transactions

    def send_raw(self, raw: bytes, slot: int) -> bytes:
        """Take a signed transaction into the pool, as of ``slot``; returns its hash.

        Raises Rejected with the words that nodes use: already known, nonce too low, replacement transaction underpriced,
        insufficient funds, invalid sender (also for another chain id).
        """
        transaction_hash = keccak(raw)
        if transaction_hash in self.pool:
            raise Rejected("already known", reason="already_known")
        try:
            decoded = PragueVM.get_transaction_builder().decode(raw)
            decoded.validate()
            if decoded.chain_id != self.chain_id:
                raise Rejected("invalid chain id for signer", got=decoded.chain_id, expected=self.chain_id)
            sender = bytes(decoded.sender)
        except (ValidationError, rlp.DecodingError, ValueError, TypeError) as error:
            raise Rejected(f"invalid sender: {error}") from error
        account = self.get_account_state(self.head, sender)
        transaction = SimTransaction(
            raw,
            transaction_hash,
            sender,
            int(decoded.nonce),
            int(decoded.max_fee_per_gas),
            int(decoded.max_priority_fee_per_gas),
            slot,
            decoded,
        )
        if transaction.nonce < account[0]:
            raise Rejected(
                f"nonce too low: next nonce {account[0]}, tx nonce {transaction.nonce}", reason="nonce_too_low"
            )
        if int(decoded.gas) > GAS_LIMIT:
            raise Rejected("exceeds block gas limit")
        if account[1] < int(decoded.gas) * transaction.max_fee + int(decoded.value):
            raise Rejected("insufficient funds for gas * price + value", reason="insufficient_funds")
        for other in list(self.pool.values()):
            if (other.sender, other.nonce) == (sender, transaction.nonce):
                floor = 100 + REPLACE_PERCENT
                if (
                    transaction.max_fee * 100 < other.max_fee * floor
                    or transaction.priority_fee * 100 < other.priority_fee * floor
                ):
                    raise Rejected("replacement transaction underpriced", reason="underpriced")
                del self.pool[other.hash]
        self.pool[transaction_hash] = transaction
        return transaction_hash

    # ------------------------------------------------------------------ state

    def _build_state(self, header: Any) -> Any:
        return PragueVM.build_state(
            self._db, header, self._context, PragueVM.get_prev_hashes(header.parent_hash, self._chaindb)
        )

    def _open(self, block: SimBlock) -> Any:
        return PragueVM.get_state_class().get_account_db_class()(self._db, block.header.state_root)

    def get_account_state(self, block: SimBlock, address: bytes) -> tuple[int, int]:
        """Nonce and balance (wei) of an account after ``block``."""
        accounts = self._open(block)
        return int(accounts.get_nonce(address)), int(accounts.get_balance(address))

    def get_pending_nonce(self, address: bytes) -> int:
        """The nonce after everything of the account that is executable in the pool."""
        nonce = self.get_account_state(self.head, address)[0]
        waiting = {t.nonce for t in self.pool.values() if t.sender == address}
        while nonce in waiting:
            nonce += 1
        return nonce

    def get_code(self, block: SimBlock, address: bytes) -> bytes:
        """Code of an account after ``block``."""
        return bytes(self._open(block).get_code(address))

    def get_storage(self, block: SimBlock, address: bytes, slot: int) -> bytes:
        """32 bytes of storage after ``block``."""
        return int(self._open(block).get_storage(address, slot)).to_bytes(32, "big")

    def call(
        self,
        block: SimBlock,
        *,
        to: bytes | None,
        data: bytes,
        sender: bytes = bytes(20),
        value: int = 0,
        gas: int = GAS_LIMIT,
        slot: int | None = None,
    ) -> CallResult:
        """Execute without a transaction on the state after ``block``, in the context of a block at ``slot`` on top of it.

        The same question is answered from memory: several endpoints and several relayers ask for the same estimate.
        """
        key = (block.hash, to, data, sender, value, gas, slot)
        if key not in self._calls:
            if len(self._calls) >= MAX_REMEMBERED_CALLS:
                self._calls.clear()
            self._calls[key] = self._run_call(block, to, data, sender, value, gas, slot)
        return self._calls[key]

    def _run_call(
        self, block: SimBlock, to: bytes | None, data: bytes, sender: bytes, value: int, gas: int, slot: int | None
    ) -> CallResult:
        header = block.header if slot is None or slot <= block.slot else self._make_header_on(block, slot)
        state = self._build_state(header.copy(state_root=block.header.state_root))
        create = to is None
        message = Message(
            gas=gas,
            to=b"" if to is None else to,
            sender=sender,
            value=value,
            data=b"" if create else data,
            code=data if to is None else state.get_code(to),
            create_address=keccak(rlp.encode([sender, state.get_nonce(sender)]))[12:] if create else None,
        )
        context = state.get_transaction_context_class()(gas_price=0, origin=sender)
        run = state.computation_class.apply_create_message if create else state.computation_class.apply_message
        computation = run(state, message, context)
        logs = tuple(
            (bytes(a), tuple(t.to_bytes(32, "big") for t in ts), bytes(d)) for a, ts, d in computation.get_log_entries()
        )
        used = int(computation.get_gas_used())
        return CallResult(computation.is_success, bytes(computation.output), used, logs)

    def _make_header_on(self, block: SimBlock, slot: int) -> Any:
        return PragueVM.create_header_from_parent(
            block.header, timestamp=self.get_time(slot), coinbase=COINBASE, gas_limit=GAS_LIMIT
        )

    # ------------------------------------------------------------------ proofs

    def prove(
        self, block: SimBlock, address: bytes, slots: Sequence[int]
    ) -> tuple[bytes, list[bytes], list[tuple[int, list[bytes]]]]:
        """Account RLP (empty if absent), account proof, and per slot the value with its proof: what eth_getProof answers."""
        accounts = HexaryTrie(self._db, block.header.state_root)
        key = keccak(address)
        encoded = bytes(accounts.get(key))
        proof = _get_proof_nodes(accounts, key)
        storage: list[tuple[int, list[bytes]]] = []
        root = bytes(rlp.decode(encoded)[2]) if encoded else keccak(rlp.encode(b""))
        trie = HexaryTrie(self._db, root)
        for slot in slots:
            path = keccak(slot.to_bytes(32, "big"))
            value = bytes(trie.get(path))
            storage.append((int.from_bytes(rlp.decode(value), "big") if value else 0, _get_proof_nodes(trie, path)))
        return encoded, proof, storage


def _get_proof_nodes(trie: Any, key: bytes) -> list[bytes]:
    # Nodes shorter than 32 bytes lie inside their parent and are not listed (as go-ethereum does); the root always is.
    nodes = [rlp.encode(node) for node in trie.get_proof(key)]
    return [node for index, node in enumerate(nodes) if index == 0 or len(node) >= 32]


def _describe(
    transactions: Sequence[SimTransaction], receipts: Sequence[tuple[Any, Any]], base_fee: int
) -> tuple[SimReceipt, ...]:
    described: list[SimReceipt] = []
    log_index = 0
    before = 0
    for index, (transaction, (receipt, computation)) in enumerate(zip(transactions, receipts, strict=True)):
        logs: list[SimLog] = []
        for log in receipt.logs:
            topics = tuple(topic.to_bytes(32, "big") for topic in log.topics)
            logs.append(SimLog(bytes(log.address), topics, bytes(log.data), log_index, index, transaction.hash))
            log_index += 1
        created = computation.msg.is_create and computation.is_success
        described.append(
            SimReceipt(
                transaction.hash,
                index,
                bool(computation.is_success),
                int(receipt.gas_used) - before,
                int(receipt.gas_used),
                min(transaction.max_fee, base_fee + transaction.priority_fee),
                tuple(logs),
                bytes(computation.msg.storage_address) if created else None,
                bytes(computation.output),
                bytes(receipt.encode()),
            )
        )
        before = int(receipt.gas_used)
    return tuple(described)
