"""A simulated Solana cluster in this process: programs in LiteSVM, slots, forks, endpoints that may lie, and a clock that is moved by hand.

    clock = ManualClock(1_800_000_000)
    chain = SimSolana("sim-1", clock, n_endpoints=4)            # .chain: CAIP-2 name; .program: the vault program, installed
    key = chain.make_key("maker")                               # 32-byte seed; its account has had money since the first slot
    mint = chain.create_mint(6)                                 # 32 bytes; a mint since the first slot
    chain.mint_to(mint, chain.get_account_key(key), 5_000_000)  # sent; lands in the next slot, with the token account
    state = chain.create_vault(key, operators, 3, treasurer, 86_400, {mint: (cap, cap, cap)})     # 32 bytes, confirmed
    signature = chain.send(key, [instruction])                  # signed and sent, as base58; lands in the first block after now
    chain.mine()                                                # moves a ManualClock until what was sent is confirmed
    chain.finalize()                                            # moves a ManualClock until what was sent is final
    chain.get_result(signature)                                 # TxResult or None
    chain.read(address)                                         # newest data of an account, or None
    chain.endpoints[0].lies.drop_events = True                  # see `sim_rpc.Lies`
    chain.fork()                                                # replace unfinalized blocks by ones without their transactions

Time: ``clock`` is any callable that returns unix seconds; a slot is 0.4 s. `tick` makes the blocks that are due, and every request of an endpoint
ticks first, so whoever moves the clock need not call anything. A transaction lands in the first block after the slot in which it was sent;
confirmed is one slot behind, finalized 32. Slots in which nothing happens are computed, never made: hours and weeks of virtual time cost
nothing. Everything is deterministic: the same calls at the same times give the same blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from heapq import heapify, heappop, heappush
from typing import Any, Final

import base58
from solders.account import Account
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import ID as COMPUTE_BUDGET
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.token import ID as TOKEN_PROGRAM
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from chains.sim_clock import ManualClock
from chains.solana.sim_chain import (
    CONFIRMED_SLOTS,
    FINALITY_SLOTS,
    FIRST_SLOT,
    MAX_UNITS,
    TABLE_PROGRAM,
    Bank,
    Landed,
    Ledger,
    PoolTx,
    View,
    get_block_slot,
    get_next_block_slot,
    read_table,
    read_transaction,
)
from chains.solana.sim_rpc import Lies, SimSolanaRpc
from contracts.solana import client, get_program
from messages.errors import Rejected

__all__ = ["ManualClock", "SimEndpoint", "SimSolana", "TxResult"]

HISTORY_SLOTS: Final = 1_000
"""How old the chain is when it is made."""
FUNDS: Final = 1_000_000_000_000
ASSOCIATED_PROGRAM: Final = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
POOL_SIZE: Final = 5_000
RETRY_SLOTS: Final = 5
RETRIED: Final = frozenset(
    {"AccountNotFound", "AddressLookupTableNotFound", "InsufficientFundsForFee", "InvalidAddressLookupTableIndex"}
)
_MINT: Final = struct.Struct("<I32sQBBI32s")


@dataclass(frozen=True)
class SimEndpoint:
    """One endpoint over the chain: its door and how it lies."""

    name: str
    rpc: SimSolanaRpc
    lies: Lies


@dataclass(frozen=True)
class TxResult:
    """What became of a transaction. ``error``: "" or the word of the vault's error (else the node's own text); ``value``: return data."""

    error: str
    units: int
    slot: int
    fee: int
    value: bytes
    logs: tuple[str, ...]


class SimSolana:
    """See the module.

    Args:
        name: whatever; the genesis hash comes from it.
        clock: unix seconds.
        n_endpoints: doors over the one chain.
    """

    def __init__(self, name: str, clock: Callable[[], float], n_endpoints: int = 4) -> None:
        self.name = name
        self.clock = clock
        genesis = sha256(f"optsettle sim genesis {name}".encode()).digest()
        self.genesis_hash = base58.b58encode(genesis).decode()
        self.chain = f"solana:{self.genesis_hash[:32]}"
        self.program = Pubkey.from_bytes(sha256(b"optsettle sim vault program").digest())
        self.bank = Bank(genesis, int(clock()) - HISTORY_SLOTS * 2 // 5)
        self.bank.install(self.program, get_program("vault"))
        self.pool: dict[str, PoolTx] = {}
        self.dropped: dict[str, str] = {}
        """Why a transaction that was sent will never be in a block, by its signature."""
        self.unit_price = 0
        """What nodes tell as the price of a compute unit in the newest blocks, in micro-lamports."""
        self._n_sent = 0
        self._n_mints = 0
        self._n_vaults = 0
        self._faucet = self.make_key("faucet", FUNDS * 1_000)
        self.endpoints = [self._make_endpoint(f"sim-{name}-{i}") for i in range(n_endpoints)]

    def _make_endpoint(self, name: str) -> SimEndpoint:
        lies = Lies()
        return SimEndpoint(name, SimSolanaRpc(self, lies, name), lies)

    # ------------------------------------------------------------------ time and blocks

    def get_slot(self) -> int:
        """The slot that is running."""
        return FIRST_SLOT + int((self.clock() - self.bank.start_time) * 5 // 2)

    def compute_view(self, ledger: Ledger | None = None, newest: int | None = None) -> View:
        """What can be seen of a branch (default: the chain) when ``newest`` is the running slot."""
        slot = self.get_slot() if newest is None else newest
        processed, confirmed, finalized = (get_block_slot(slot - lag) for lag in (0, CONFIRMED_SLOTS, FINALITY_SLOTS))
        return View(ledger or self.bank.ledger, processed, confirmed, finalized)

    def tick(self) -> None:
        """Make every block that is due by now. What cannot run yet is tried again every 2 s while its block hash lasts, as nodes do."""
        now = self.get_slot()
        due = [(get_next_block_slot(tx.slot), place, tx) for place, tx in enumerate(self.pool.values())]
        heapify(due)
        while due and due[0][0] <= now:
            slot, place, tx = heappop(due)
            result = self.bank.execute(tx.raw, slot)
            if isinstance(result, str) and result in RETRIED:
                self.pool[tx.signature] = again = PoolTx(tx.raw, tx.signature, slot + RETRY_SLOTS)
                heappush(due, (get_next_block_slot(again.slot), place, again))
                continue
            del self.pool[tx.signature]
            if isinstance(result, str):
                self.dropped[tx.signature] = result

    def mine(self) -> int:
        """Move the clock (a ManualClock) to a later slot in which everything that was sent is confirmed; that slot."""
        self.tick()
        target = get_next_block_slot(self.get_slot()) + CONFIRMED_SLOTS
        self._advance_to(target)
        return self.get_slot()

    def finalize(self) -> int:
        """Move the clock (a ManualClock) until everything that was sent is final, or never will be; the finalized slot."""
        self.tick()
        self._advance_to(get_next_block_slot(self.get_slot()) + FINALITY_SLOTS + 1)
        while self.pool or max(self.bank.ledger.blocks, default=0) > self.compute_view().finalized:
            self._advance_to(self.get_slot() + RETRY_SLOTS)
        return self.compute_view().finalized

    def _advance_to(self, slot: int) -> None:
        if not isinstance(self.clock, ManualClock):
            raise TypeError("only a ManualClock can be moved from here: move your own clock and call tick()")
        while self.get_slot() < slot:
            self.clock.advance(1)
        self.tick()

    def fork(self, *, drop: bool = False, include: bool = False) -> tuple[str, ...]:
        """Replace the blocks that are not final by ones without their transactions; their signatures.

        The transactions wait again, and land in the next block if their block hash is of both branches; ``drop``: nobody keeps them. The
        other branch is kept for endpoints that follow it (`Lies.follow_fork`). ``include``: they are in the new branch's newest block at once.
        """
        self.tick()
        view = self.compute_view()
        gone = self.bank.fork(view.finalized + 1)
        for one in gone:
            if drop:
                self.dropped[one.signature] = "forked"
            else:
                self.pool[one.signature] = PoolTx(one.raw, one.signature, view.processed - include)
        self.tick()
        return tuple(one.signature for one in gone)

    # ------------------------------------------------------------------ transactions

    def send_raw(self, raw: bytes) -> str:
        """Take a signed transaction; its signature as base58. Whether it ever lands, the blocks tell.

        Rejected ("size", "malformed", "bad_signature", "full").
        """
        self.tick()
        signature = str(read_transaction(raw).signatures[0])
        if len(self.pool) >= POOL_SIZE:
            raise Rejected("too many transactions wait", got=len(self.pool), reason="full")
        if signature not in self.bank.ledger.by_signature:
            self.dropped.pop(signature, None)
            self.pool.setdefault(signature, PoolTx(raw, signature, self.get_slot()))
        return signature

    def send(
        self,
        key: bytes,
        instructions: Sequence[Instruction],
        tables: Sequence[bytes | Pubkey] = (),
        signers: Sequence[bytes] = (),
    ) -> str:
        """Sign and send; the signature as base58.

        Args:
            key: seed of who pays.
            instructions: a limit of compute units that is different each time stands before them, unless they bring one: two equal calls
                in one slot are two transactions.
            tables: addresses of lookup tables that may be used.
            signers: seeds of those who sign beside the payer.
        """
        self.tick()
        blockhash = Hash(self.bank.ledger.compute_hash(self.compute_view().finalized))
        return self.send_raw(bytes(self.make_transaction(key, instructions, tables, signers, blockhash)))

    def make_transaction(
        self,
        key: bytes,
        instructions: Sequence[Instruction],
        tables: Sequence[bytes | Pubkey],
        signers: Sequence[bytes],
        blockhash: Hash,
    ) -> VersionedTransaction:
        """The signed transaction of `send` under a given block hash."""
        payer = Keypair.from_seed(key)
        known = [self._load_table(_to_pubkey(address)) for address in tables]
        budget = []
        if all(one.program_id != COMPUTE_BUDGET for one in instructions):
            self._n_sent += 1
            budget.append(set_compute_unit_limit(MAX_UNITS - self._n_sent % 100_000))
        message = MessageV0.try_compile(payer.pubkey(), [*budget, *instructions], known, blockhash)
        others = [Keypair.from_seed(seed) for seed in signers if seed != key]
        return VersionedTransaction(message, [payer, *others])

    def _load_table(self, address: Pubkey) -> AddressLookupTableAccount:
        table = self.bank.get_account(address, self.get_slot())
        if table is None or table.owner != TABLE_PROGRAM:
            raise Rejected("not a lookup table", got=str(address), reason="no_table")
        return AddressLookupTableAccount(address, list(read_table(bytes(table.data))))

    def get_landed(self, signature: str) -> Landed | None:
        """A transaction that is in a block."""
        self.tick()
        return self.bank.ledger.by_signature.get(signature)

    def get_result(self, signature: str) -> TxResult | None:
        """What became of a transaction, or None while it is in no block (see also ``dropped``)."""
        found = self.get_landed(signature)
        if found is None:
            return None
        value = found.returned[1] if found.returned is not None else b""
        return TxResult(self._get_word(found), found.units, found.slot, found.fee, value, found.logs)

    def _get_word(self, landed: Landed) -> str:
        error: Any = landed.error
        if not isinstance(error, dict) or "InstructionError" not in error:
            return "" if error is None else str(error)
        what = error["InstructionError"][1]
        code = what.get("Custom") if isinstance(what, dict) else None
        if code is None:
            return str(what)
        # a code that came up from a program that the vault called is that program's
        origin = next((line.split()[1] for line in landed.logs if " failed: " in line), "")
        return client.ERRORS.get(code, f"custom {code}") if origin == str(self.program) else f"{origin}: custom {code}"

    # ------------------------------------------------------------------ accounts and money

    def make_key(self, name: str, lamports: int = FUNDS) -> bytes:
        """The 32-byte seed of a key that depends on its name alone; its account has had money since the first slot."""
        seed = sha256(f"optsettle sim key {self.name} {name}".encode()).digest()
        account = Keypair.from_seed(seed).pubkey()
        if account not in self.bank.ledger.versions:
            self.bank.put(account, Account(lamports, b"", SYSTEM_PROGRAM))
        return seed

    def get_account_key(self, key: bytes) -> bytes:
        """The account (public key, 32 bytes) of a seed."""
        return bytes(Keypair.from_seed(key).pubkey())

    def get_balance(self, address: bytes | Pubkey) -> int:
        """Lamports of an account."""
        account = self.get_account(address)
        return 0 if account is None else account.lamports

    def get_account(self, address: bytes | Pubkey) -> Account | None:
        """An account as it is now."""
        self.tick()
        return self.bank.get_account(_to_pubkey(address), self.get_slot())

    def read(self, address: bytes | Pubkey) -> bytes | None:
        """The data of an account as it is now; None where there is none."""
        account = self.get_account(address)
        return None if account is None else bytes(account.data)

    def create_mint(self, decimals: int = 6) -> bytes:
        """A new mint of the classic token program, 32 bytes, there since the first slot; `mint_to` makes its tokens."""
        self._n_mints += 1
        address = sha256(f"optsettle sim mint {self.name} {self._n_mints}".encode()).digest()
        data = _MINT.pack(1, self.get_account_key(self._faucet), 0, decimals, 1, 0, bytes(32))
        self.bank.put(Pubkey.from_bytes(address), Account(self.bank.compute_rent(len(data)), data, TOKEN_PROGRAM))
        return address

    def mint_to(self, mint: bytes, owner: bytes, amount: int) -> str:
        """Send new tokens to the owner's canonical token account, which is opened where need be; lands in the next block."""
        target = get_associated_token_address(Pubkey.from_bytes(owner), Pubkey.from_bytes(mint))
        payer = Keypair.from_seed(self._faucet).pubkey()
        accounts = [
            AccountMeta(Pubkey.from_bytes(mint), is_signer=False, is_writable=True),
            AccountMeta(target, is_signer=False, is_writable=True),
            AccountMeta(payer, is_signer=True, is_writable=False),
        ]
        give = Instruction(TOKEN_PROGRAM, struct.pack("<BQ", 7, amount), accounts)
        return self.send(self._faucet, [make_open_tokens(payer, mint, owner), give])

    def open_tokens(self, mint: bytes, owner: bytes) -> str:
        """Open the owner's canonical token account; lands in the next block."""
        payer = Keypair.from_seed(self._faucet).pubkey()
        return self.send(self._faucet, [make_open_tokens(payer, mint, owner)])

    def get_tokens(self, mint: bytes, owner: bytes) -> int:
        """Base units on the owner's canonical token account now."""
        address = get_associated_token_address(Pubkey.from_bytes(owner), Pubkey.from_bytes(mint))
        data = self.read(address)
        return int.from_bytes(data[64:72], "little") if data else 0

    # ------------------------------------------------------------------ the vault

    def create_vault(
        self,
        creator_key: bytes,
        operators: Sequence[bytes],
        threshold: int,
        treasurer: bytes,
        delay: int,
        caps: Mapping[bytes, Sequence[int]],
        number: int | None = None,
    ) -> bytes:
        """Create a vault of the installed program and its token accounts; its state account, 32 bytes. Moves the clock until it is confirmed.

        Rejected ("deployment") if the program refuses.
        """
        if number is None:
            self._n_vaults += 1
            number = self._n_vaults
        creator = Keypair.from_seed(creator_key).pubkey()
        state = client.find_state(self.program, creator, number)
        instruction = client.make_create(
            self.program, creator, number, self.chain, operators, threshold, treasurer, delay, caps
        )
        sent = self.send(creator_key, [instruction])
        for mint in caps:
            self.open_tokens(mint, bytes(state))
        self.mine()
        result = self.get_result(sent)
        if result is None or result.error:
            why = self.dropped.get(sent) if result is None else result.error
            raise Rejected("the vault was not created", got=why, reason="deployment")
        return bytes(state)


def make_open_tokens(payer: Pubkey, mint: bytes, owner: bytes) -> Instruction:
    """Open the canonical token account of an owner where it is not open yet."""
    holder, asset = Pubkey.from_bytes(owner), Pubkey.from_bytes(mint)
    accounts = [
        AccountMeta(payer, is_signer=True, is_writable=True),
        AccountMeta(get_associated_token_address(holder, asset), is_signer=False, is_writable=True),
        *(AccountMeta(k, is_signer=False, is_writable=False) for k in (holder, asset, SYSTEM_PROGRAM, TOKEN_PROGRAM)),
    ]
    return Instruction(ASSOCIATED_PROGRAM, bytes([1]), accounts)


def _to_pubkey(address: bytes | Pubkey) -> Pubkey:
    return address if isinstance(address, Pubkey) else Pubkey.from_bytes(address)
