"""A simulated Ethereum network in this process: execution, consensus, endpoints that may lie, and a clock that is moved by hand.

    clock = ManualClock(1_800_000_000)
    network = SimNetwork(31337, clock, n_endpoints=2)
    key = network.make_key("maker")                        # 32 bytes, funded with test ether
    vault = network.deploy(bytecode, args, key)            # 20-byte address; args: ABI-encoded constructor arguments
    network.transact(key, vault, calldata)                 # signed and sent; lands in the first slot after now
    network.mine()                                         # moves a ManualClock to the next slot and makes the block
    network.finalize()                                     # moves a ManualClock until the newest block is finalized
    network.get_receipt(hash)                              # SimReceipt or None
    network.call(vault, calldata)                          # return data of a read at the newest block
    network.endpoints[0].lies.drop_logs = True             # see `sim_rpc.Lies`
    network.reorg(2)                                       # replace the last two (unfinalized) blocks
    network.get_checkpoint()                               # (root, schedule): what a light client is configured with

Time: ``clock`` is any callable that returns unix seconds; slots are 12 s. `tick` makes the blocks that are due, and every request of an
endpoint ticks first, so whoever moves the clock need not call anything. A transaction lands in the first slot after the one it was sent in.
Slots in which nothing happens stay empty, apart from a few blocks that keep finality where a healthy chain would have it (one at the
boundary of the newest finalized epoch, one in the newest epoch, two for each sync-committee period that was jumped over): hours and weeks
of virtual time cost milliseconds. Everything is deterministic: the same calls at the same times give the same blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from chains.evm.beacon_sim import BeaconBlock, BeaconSim, replace_finalized
from chains.evm.forks import Fork, ForkSchedule, Preset, build_devnet
from chains.evm.sim_chain import GENESIS_BALANCE_WEI, SimBlock, SimChain, SimReceipt
from chains.evm.sim_rpc import Lies, LogLimits, SimBeaconTransport, SimExecutionProvider
from chains.sim_clock import ManualClock
from messages.errors import Rejected

__all__ = ["SIM_PRESET", "ManualClock", "SimEndpoint", "SimNetwork"]

SIM_PRESET = Preset(slots_per_epoch=32, epochs_per_period=256, committee_size=512)
HISTORY_EPOCHS = 4
"""How long the chain has run when it is made, so that something is finalized already."""
DEPLOY_GAS = 16_000_000
CALL_GAS = 1_500_000
TIP_WEI = 1_000_000_000
LAG_EPOCHS = 2


@dataclass(frozen=True)
class SimEndpoint:
    """One endpoint over the network's chain: two doors and how it lies."""

    name: str
    beacon: SimBeaconTransport
    execution: SimExecutionProvider
    lies: Lies


@dataclass
class SimNetwork:
    """See the module. ``fork`` is in force from genesis; ``preset`` may shorten epochs and periods."""

    chain_id: int
    clock: Callable[[], float]
    n_endpoints: int = 2
    funded: Sequence[bytes] = ()
    """20-byte addresses that own test ether from genesis on."""
    fork: Fork = Fork.ELECTRA
    preset: Preset = SIM_PRESET
    log_limits: LogLimits = field(default_factory=LogLimits)

    def __post_init__(self) -> None:
        self.schedule = self._build_schedule()
        self._faucet = self._derive_key("faucet")
        alloc = dict.fromkeys(self.funded, GENESIS_BALANCE_WEI)
        alloc[_get_address(self._faucet)] = 10**6 * GENESIS_BALANCE_WEI
        self.chain = SimChain(self.chain_id, self.schedule.genesis_time, self.schedule.seconds_per_slot, alloc)
        self.beacon = BeaconSim(self.schedule, self.chain.head, seed=b"optsettle sim %d" % self.chain_id)
        self.endpoints = [self._make_endpoint(f"sim-{self.chain_id}-{i}") for i in range(self.n_endpoints)]
        self._accounts: dict[bytes, LocalAccount] = {}
        self.tick()

    def _build_schedule(self) -> ForkSchedule:
        slot = 12
        history = HISTORY_EPOCHS * self.preset.slots_per_epoch * slot
        never = 2**64 - 1
        return build_devnet(
            genesis_time=int(self.clock()) // slot * slot - history,
            genesis_validators_root=sha256(b"genesis validators %d" % self.chain_id).digest(),
            seconds_per_slot=slot,
            preset=self.preset,
            epochs=tuple(0 if fork <= self.fork else never for fork in Fork),
            name=f"sim-{self.chain_id}",
        )

    def _make_endpoint(self, name: str) -> SimEndpoint:
        lies = Lies()
        return SimEndpoint(
            name, SimBeaconTransport(self, lies), SimExecutionProvider(self, lies, self.log_limits), lies
        )

    # ------------------------------------------------------------------ time and blocks

    def get_slot(self) -> int:
        """The slot that is running."""
        return self.schedule.get_slot(int(self.clock()))

    def tick(self) -> None:
        """Make every block that is due by now."""
        now = self.get_slot()
        while (slot := self._get_due_slot()) is not None and slot <= now:
            self._fill(slot)
            if self.chain.head.slot < slot:
                self._make_block(slot)
        self._fill(now)

    def _get_due_slot(self) -> int | None:
        """The slot at which the next block with a transaction is made, if any transaction can be executed."""
        floor = self.chain.base_fee_floor_wei
        nonces: dict[bytes, int] = {}
        due: list[int] = []
        for transaction in self.chain.pool.values():
            sender = transaction.sender
            if sender not in nonces:
                nonces[sender] = self.chain.get_account_state(self.chain.head, sender)[0]
            if transaction.nonce == nonces[sender] and transaction.max_fee >= floor:
                due.append(max(transaction.arrived_slot, self.chain.head.slot) + 1)
        return min(due, default=None)

    def _fill(self, now: int) -> None:
        """Make the empty blocks without which finality and committee updates would lag behind a healthy chain's."""
        schedule = self.schedule
        epoch_slots = schedule.preset.slots_per_epoch
        period_slots = epoch_slots * schedule.preset.epochs_per_period
        head = self.chain.head.slot
        wanted: list[int] = []
        # each period that ends before now must hold a block whose finalized block is of the same period
        finalized = self.beacon.get_block(self.beacon.head.finalized_root)
        if finalized is None or finalized.slot < head // period_slots * period_slots:
            after = -(-head // epoch_slots)
            wanted += [after * epoch_slots, (after + LAG_EPOCHS) * epoch_slots]
        for period in range(head // period_slots + 1, now // period_slots + 1):
            wanted += [period * period_slots, period * period_slots + LAG_EPOCHS * epoch_slots]
        # the newest epoch that has a signed block, and the one it finalizes
        newest = max(now - 1, 0) // epoch_slots
        wanted += [max(newest - LAG_EPOCHS, 0) * epoch_slots, newest * epoch_slots]
        for slot in sorted(set(wanted)):
            if self.chain.head.slot < slot < now:
                self._make_block(slot)

    def _make_block(self, slot: int, *, include: bool = True, extra: bytes = b"") -> SimBlock:
        block = self.chain.mine(slot, self.beacon.head.root, include=include, extra=extra)
        self.beacon.add(block)
        return block

    def mine(self) -> SimBlock:
        """Move the clock (a ManualClock) to the next slot, make a block there, return it."""
        self._advance_to(self.schedule.get_time(max(self.get_slot(), self.chain.head.slot) + 1))
        self.tick()
        if self.chain.head.slot < self.get_slot():
            self._make_block(self.get_slot())
        return self.chain.head

    def finalize(self) -> SimBlock:
        """Move the clock (a ManualClock) until the newest block is finalized, at most three epochs; returns that block."""
        self.tick()
        if self.chain.pool:
            self.mine()
        head = self.chain.head
        self._advance_to(self.get_finality_time(head))
        self.tick()
        return head

    def get_finality_time(self, block: SimBlock) -> int:
        """Unix second from which on ``block`` is finalized, if finality does not stall."""
        slots = self.schedule.preset.slots_per_epoch
        return self.schedule.get_time((-(-block.slot // slots) + LAG_EPOCHS) * slots + 1)

    def _advance_to(self, time: int) -> None:
        if not isinstance(self.clock, ManualClock):
            raise TypeError("only a ManualClock can be moved from here: move your own clock and call tick()")
        self.clock.advance(max(time - self.clock.now, 0))

    def get_finalized_block(self, slot: int | None = None) -> SimBlock:
        """The execution block that is finalized now, or was at ``slot``; genesis before anything is."""
        found = self.beacon.get_finalized(self.get_slot() if slot is None else slot)
        block = None if found is None else self.chain.get_block(bytes.fromhex(found.execution["block_hash"][2:]))
        return block or self.chain.blocks[0]

    def get_checkpoint(self) -> bytes:
        """Root of the finalized beacon block: what a light client may start from."""
        self.tick()
        found = self.beacon.get_finalized(self.get_slot())
        if found is None:
            raise ValueError("nothing is finalized yet")
        return found.root

    def reorg(self, depth: int, *, drop: bool = False, include: bool = False) -> tuple[SimBlock, ...]:
        """Replace the last ``depth`` blocks by others at the same slots; returns the ones that are gone.

        Their transactions go back to the pool (``include`` puts them into the new blocks at once) or are dropped. Blocks that the
        newest state finalizes cannot be replaced: ValueError.
        """
        finalized = self.beacon.get_finalized(self.get_slot())
        if self.chain.blocks[-depth].slot <= (finalized.slot if finalized else 0):
            raise ValueError("finalized blocks are not replaced; see Lies.equivocate")
        gone = self.chain.reorg(depth, drop=drop)
        self.beacon.drop(depth)
        for block in gone:
            self._make_block(block.slot, include=include, extra=b"reorg" + block.hash[:8])
        return gone

    def make_equivocation(self, attested: BeaconBlock, finalized: BeaconBlock) -> tuple[BeaconBlock, BeaconBlock]:
        """Another finalized block at the same slot, and an attested block that finalizes it. Neither joins the chain."""
        block = self.chain.get_block(bytes.fromhex(finalized.execution["block_hash"][2:]))
        if block is None:
            raise ValueError("the finalized block is not on the chain")
        other = self.beacon.make(
            block,
            self.beacon.get_block(finalized.parent_root),
            graffiti=b"equivocation",
            finalized=(finalized.finalized_epoch, finalized.finalized_root),
        )
        return replace_finalized(attested, other), other

    # ------------------------------------------------------------------ accounts and transactions

    def _derive_key(self, name: str) -> bytes:
        return sha256(b"optsettle sim key %d " % self.chain_id + name.encode()).digest()

    def make_key(self, name: str, wei: int = 10 * 10**18) -> bytes:
        """A private key of this chain that depends on its name alone; funded, if its account is empty."""
        key = self._derive_key(name)
        self.fund(_get_address(key), wei)
        return key

    def fund(self, address: bytes, wei: int = 10 * 10**18) -> None:
        """See to it that an account owns ``wei`` from the next block on."""
        if self.chain.get_account_state(self.chain.head, address)[1] < wei:
            self.transact(self._faucet, address, b"", value=wei, gas=21_000)

    def deploy(self, bytecode: bytes, args: bytes, key: bytes, *, mine: bool = True) -> bytes:
        """Create a contract; returns its address. Rejected ("deployment") if creation fails."""
        sent = self.transact(key, None, bytecode + args, gas=DEPLOY_GAS)
        if mine:
            self.mine()
        receipt = self.get_receipt(sent)
        if receipt is None or receipt.contract is None:
            raise Rejected("the contract was not created", got=receipt and receipt.output, reason="deployment")
        return receipt.contract

    def transact(self, key: bytes, to: bytes | None, data: bytes, *, value: int = 0, gas: int = CALL_GAS) -> bytes:
        """Sign and send; returns the transaction hash. ``to`` None creates a contract."""
        account = self._accounts.get(key) or self._accounts.setdefault(key, Account.from_key(key))
        base = max(int(self.chain.head.header.base_fee_per_gas), self.chain.base_fee_floor_wei)
        fields: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": self.chain.get_pending_nonce(_get_address(key)),
            "maxFeePerGas": 3 * base + TIP_WEI,
            "maxPriorityFeePerGas": TIP_WEI,
            "gas": gas,
            "value": value,
            "data": data,
        } | ({} if to is None else {"to": to})
        return self.chain.send_raw(bytes(account.sign_transaction(fields).raw_transaction), self.get_slot())

    def get_receipt(self, transaction_hash: bytes) -> SimReceipt | None:
        """The receipt, or None while it is not mined."""
        self.tick()
        found = self.chain.get_transaction(transaction_hash)
        return None if found is None else found[2]

    def call(self, to: bytes, data: bytes, *, sender: bytes = bytes(20)) -> bytes:
        """Return data of a read on the newest state; Rejected ("reverted") if it reverts."""
        self.tick()
        result = self.chain.call(self.chain.head, to=to, data=data, sender=sender, slot=self.get_slot())
        if not result.succeeded:
            raise Rejected("the call reverts", got=result.output, reason="reverted")
        return result.output


def _get_address(key: bytes) -> bytes:
    return bytes.fromhex(str(Account.from_key(key).address)[2:])
