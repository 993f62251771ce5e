"""The simulated Solana ledger: slots, blocks, transactions, and the content of every account at every slot.

LiteSVM runs the programs, and knows no past: only what is newest. The past is kept here as versions of accounts, so that `finalized` reads
give what was 32 slots ago, together with the Clock of that slot, and so that a fork can take back what was not final. Signatures, block hashes
and their age are judged here too, because LiteSVM keeps a single block hash.

Slots in which nothing happens are computed, never executed. Every 25th slot has no block, as slots of leaders that are away: the height of a
block is below its slot.

Source: Agave `runtime/src/bank.rs`, `accounts-db/src/blockhash_queue.rs`, `svm/src/transaction_processor.rs`; LiteSVM.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from solders.account import Account
from solders.clock import Clock
from solders.epoch_schedule import EpochSchedule
from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.token import ID as TOKEN_PROGRAM
from solders.transaction import SanitizeError, VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, SimulatedTransactionInfo, TransactionMetadata

from messages.errors import Rejected

FIRST_SLOT: Final = 440_000_000
"""LiteSVM's own programs are deployed a little before it."""
SKIPPED_EVERY, SKIPPED_AT = 25, 7
HEIGHT_BELOW_SLOT: Final = 22_000_000
SLOTS_PER_EPOCH: Final = 432_000
FINALITY_SLOTS: Final = 32
CONFIRMED_SLOTS: Final = 1
MAX_BLOCKHASH_AGE: Final = 150
SLOT_HASHES: Final = 512
MAX_KEPT_HASHES: Final = 8_192
MAX_UNITS: Final = 1_400_000
TABLE_PROGRAM: Final = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
TABLE_HEADER: Final = 56
CLOCK_ID: Final = Pubkey.from_string("SysvarC1ock11111111111111111111111111111111")
SYSVAR_OWNER: Final = Pubkey.from_string("Sysvar1111111111111111111111111111111111111")
CLOCK_LAMPORTS: Final = 1_169_280
TOKEN_ACCOUNT_BYTES: Final = 165
_CLOCK: Final = struct.Struct("<QqQQq")


# ---- slots ------------------------------------------------------------------------------------------------------------


def is_skipped(slot: int) -> bool:
    """Whether a slot has no block."""
    return slot % SKIPPED_EVERY == SKIPPED_AT


def get_block_slot(slot: int) -> int:
    """The newest slot with a block, up to ``slot``."""
    return slot - is_skipped(slot)


def get_next_block_slot(slot: int) -> int:
    """The first slot with a block after ``slot``."""
    return slot + 1 + is_skipped(slot + 1)


def compute_height(slot: int) -> int:
    """Number of the newest block up to ``slot``: the slots that have one."""
    skipped = (slot - SKIPPED_AT) // SKIPPED_EVERY + 1
    return slot - skipped - HEIGHT_BELOW_SLOT


# ---- what is kept -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenBalance:
    """What a token account of a transaction holds; ``index``: its place among the keys."""

    index: int
    mint: str
    owner: str
    amount: int
    decimals: int


@dataclass(frozen=True, eq=False)
class Landed:
    """A transaction in a block. ``keys``: static, then loaded writable, then loaded read-only ones."""

    signature: str
    raw: bytes
    transaction: VersionedTransaction
    slot: int
    keys: tuple[str, ...]
    loaded: tuple[int, int]
    """How many keys tables gave: writable, read-only."""
    error: Any
    logs: tuple[str, ...]
    inner: tuple[tuple[tuple[int, bytes, bytes, int | None], ...], ...]
    """Of each instruction the ones inside it: index of the program, indices of accounts, data, height in the stack."""
    units: int
    fee: int
    returned: tuple[str, bytes] | None
    balances: tuple[tuple[int, ...], tuple[int, ...]]
    tokens: tuple[tuple[TokenBalance, ...], tuple[TokenBalance, ...]]


@dataclass
class Ledger:
    """One branch of history: what blocks hold, and what accounts held."""

    genesis: bytes
    versions: dict[Pubkey, list[tuple[int, Account | None]]] = field(default_factory=dict)
    blocks: dict[int, list[Landed]] = field(default_factory=dict)
    by_signature: dict[str, Landed] = field(default_factory=dict)
    by_address: dict[str, list[Landed]] = field(default_factory=dict)
    forks: list[tuple[int, bytes]] = field(default_factory=list)
    """(first slot, salt) of each branch that was taken: other block hashes from there on."""
    _hashes: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> Ledger:
        """The same history, to be kept as it is."""
        return Ledger(
            self.genesis,
            {key: list(found) for key, found in self.versions.items()},
            {slot: list(found) for slot, found in self.blocks.items()},
            dict(self.by_signature),
            {key: list(found) for key, found in self.by_address.items()},
            list(self.forks),
        )

    def compute_hash(self, slot: int) -> bytes:
        """The hash of the block of a slot: depends on the branch, not on what is in it."""
        found = self._hashes.get(slot)
        if found is None:
            if len(self._hashes) >= MAX_KEPT_HASHES:
                self._hashes.clear()
            salt = b"".join(salt for first, salt in self.forks if first <= slot)
            found = self._hashes[slot] = sha256(self.genesis + slot.to_bytes(8, "big") + salt).digest()
        return found

    def find_hash_age(self, blockhash: bytes, slot: int) -> int | None:
        """How many blocks old a block hash is at a slot; None where it is none of the newest ones up to that slot."""
        at = get_block_slot(slot)
        for age in range(MAX_BLOCKHASH_AGE + 1):
            if self.compute_hash(at) == blockhash:
                return age
            at = get_block_slot(at - 1)
        return None

    def get_account(self, key: Pubkey, slot: int) -> Account | None:
        """What an account was at the end of a slot; KeyError where no version of it is kept."""
        found = self.versions[key]
        place = bisect_right(found, slot, key=lambda version: version[0])
        return found[place - 1][1] if place else None

    def record_account(self, key: Pubkey, slot: int, account: Account | None) -> None:
        """Keep what an account is at the end of a slot."""
        found = self.versions.setdefault(key, [])
        if found and found[-1][0] == slot:
            found.pop()
        found.append((slot, account))

    def add(self, landed: Landed) -> None:
        """Put a transaction behind those that are in a block already."""
        self.blocks.setdefault(landed.slot, []).append(landed)
        self.by_signature[landed.signature] = landed
        for key in dict.fromkeys(landed.keys):
            self.by_address.setdefault(key, []).append(landed)

    def cut(self, first: int, salt: bytes) -> tuple[list[Landed], list[Pubkey]]:
        """Forget what happened from a slot on: the transactions that are gone, and the accounts that are older again."""
        gone = [one for slot in sorted(self.blocks) if slot >= first for one in self.blocks[slot]]
        for one in gone:
            self.blocks.pop(one.slot, None)
            del self.by_signature[one.signature]
            for key in dict.fromkeys(one.keys):
                self.by_address[key].remove(one)
        touched = []
        for account, versions in self.versions.items():
            if versions[-1][0] >= first:
                touched.append(account)
                versions[:] = [version for version in versions if version[0] < first] or [(0, None)]
        self.forks.append((first, salt))
        self._hashes = {slot: known for slot, known in self._hashes.items() if slot < first}
        return gone, touched


@dataclass(frozen=True)
class View:
    """A branch as an endpoint sees it: the newest slot of each level of certainty."""

    ledger: Ledger
    processed: int
    confirmed: int
    finalized: int

    def get_slot(self, commitment: str) -> int:
        """The slot that answers of this commitment are about."""
        return {"processed": self.processed, "confirmed": self.confirmed, "finalized": self.finalized}[commitment]

    def get_status(self, slot: int) -> str:
        """How certain a slot is."""
        if slot <= self.finalized:
            return "finalized"
        return "confirmed" if slot <= self.confirmed else "processed"


# ---- the machine ------------------------------------------------------------------------------------------------------


class Bank:
    """Runs transactions on the newest state of one branch, and keeps what they did."""

    def __init__(self, genesis: bytes, start_time: int) -> None:
        self.start_time = start_time
        """Unix seconds of `FIRST_SLOT`."""
        self.ledger = Ledger(genesis)
        self.branches: list[Ledger] = []
        """What forks have left behind, oldest first, as it was when it was left."""
        svm = LiteSVM().with_blockhash_check(False).with_sigverify(False).with_transaction_history(0)
        self._svm = svm
        svm.set_epoch_schedule(EpochSchedule.without_warmup())
        self._set_slot(FIRST_SLOT)

    def compute_time(self, slot: int) -> int:
        """Unix seconds at a slot, as its Clock says: 0.4 s a slot."""
        return self.start_time + (slot - FIRST_SLOT) * 2 // 5

    def compute_clock(self, slot: int) -> bytes:
        """The data of the Clock sysvar at a slot, 40 bytes."""
        epoch = slot // SLOTS_PER_EPOCH
        begun = self.compute_time(max(epoch * SLOTS_PER_EPOCH, FIRST_SLOT))
        return _CLOCK.pack(slot, begun, epoch, epoch + 1, self.compute_time(slot))

    def install(self, program: Pubkey, elf: bytes) -> None:
        """Put a program on the chain, without upgrade authority."""
        self._svm.add_program(program, elf)

    def put(self, key: Pubkey, account: Account) -> None:
        """Have an account been there since the first slot; ValueError where it has a history."""
        if key in self.ledger.versions:
            raise ValueError(f"{key} has a history")
        self.ledger.record_account(key, 0, account)
        self._svm.set_account(key, account)

    def get_account(self, key: Pubkey, slot: int, ledger: Ledger | None = None) -> Account | None:
        """What an account was at the end of a slot of a branch; None where there was none."""
        if key == CLOCK_ID:
            return Account(CLOCK_LAMPORTS, self.compute_clock(slot), SYSVAR_OWNER)
        try:
            return (ledger or self.ledger).get_account(key, slot)
        except KeyError:
            return self._svm.get_account(key)  # a built-in program or sysvar: nothing ever wrote to it

    def compute_rent(self, size: int) -> int:
        """Lamports that an account of a size needs."""
        return self._svm.minimum_balance_for_rent_exemption(size)

    # ------------------------------------------------------------------ running

    def verify(self, transaction: VersionedTransaction, slot: int) -> str | None:
        """Why a transaction cannot be run after a slot, as nodes name it, or None: its block hash, or that it is there already."""
        known = self.ledger.by_signature.get(str(transaction.signatures[0]))
        if known is not None and known.slot <= slot:
            return "AlreadyProcessed"
        if self.ledger.find_hash_age(bytes(transaction.message.recent_blockhash), slot) is None:
            return "BlockhashNotFound"
        return None

    def execute(self, raw: bytes, slot: int) -> Landed | str:
        """Run a signed transaction as part of a slot's block; a failed one is part of it too.

        Returns a name of an error for what never gets into a block: no block hash, no money for the fee, known already.
        """
        transaction = VersionedTransaction.from_bytes(raw)
        why = self.verify(transaction, get_block_slot(slot - 1))
        if why is not None:
            return why
        self._set_slot(slot)
        keys, loaded = self.resolve_keys(transaction)
        writable = _get_writable(transaction, keys, loaded)
        for key in writable:
            if key not in self.ledger.versions:
                self.ledger.record_account(key, 0, self._svm.get_account(key))
        before = [self._svm.get_account(key) for key in keys]
        result = self._svm.send_transaction(transaction)
        after = [self._svm.get_account(key) for key in keys]
        error = _read_error(result)
        if error is not None and _get_lamports(before[0]) == _get_lamports(after[0]):
            return error if isinstance(error, str) else json.dumps(error)
        for key, account in zip(keys, after, strict=True):
            if key in writable:
                self.ledger.record_account(key, slot, account)
        meta = result.meta() if isinstance(result, FailedTransactionMetadata) else result
        landed = Landed(
            signature=str(transaction.signatures[0]),
            raw=raw,
            transaction=transaction,
            slot=slot,
            keys=tuple(map(str, keys)),
            loaded=loaded,
            error=error,
            logs=tuple(meta.logs()),
            inner=read_inner(meta),
            units=meta.compute_units_consumed(),
            fee=meta.fee(),
            returned=_read_returned(meta),
            balances=(tuple(map(_get_lamports, before)), tuple(map(_get_lamports, after))),
            tokens=(self.read_tokens(before), self.read_tokens(after)),
        )
        self.ledger.add(landed)
        return landed

    def simulate(
        self, transaction: VersionedTransaction, slot: int
    ) -> tuple[Any, TransactionMetadata, tuple[tuple[str, Account | None], ...]]:
        """What a transaction would do on the state of a slot: (error or None, what it told, accounts after it)."""
        keys, _ = self.resolve_keys(transaction, slot)
        now = {key: self._svm.get_account(key) for key in keys if key in self.ledger.versions}
        then = {key: self.ledger.get_account(key, slot) for key in now}
        changed = [key for key in now if now[key] != then[key]]
        self._set_slot(slot)
        for key in changed:
            self._set_account(key, then[key])
        result = self._svm.simulate_transaction(transaction)
        for key in changed:
            self._set_account(key, now[key])
        meta = result.meta()
        accounts: dict[str, Account | None] = {str(key): self.get_account(key, slot) for key in keys}
        if isinstance(result, SimulatedTransactionInfo):
            accounts |= {str(key): account for key, account in result.post_accounts()}
        return _read_error(result), meta, tuple(accounts.items())

    def resolve_keys(
        self, transaction: VersionedTransaction, slot: int | None = None
    ) -> tuple[list[Pubkey], tuple[int, int]]:
        """Every key of a transaction in order, and how many of them tables gave; what a table does not give is left out."""
        message = transaction.message
        lookups = message.address_table_lookups if isinstance(message, MessageV0) else ()
        writable: list[Pubkey] = []
        readonly: list[Pubkey] = []
        for lookup in lookups:
            key = lookup.account_key
            table = self._svm.get_account(key) if slot is None else self.get_account(key, slot)
            data = bytes(table.data) if table is not None and table.owner == TABLE_PROGRAM else b""
            for indexes, found in ((lookup.writable_indexes, writable), (lookup.readonly_indexes, readonly)):
                places = [TABLE_HEADER + 32 * index for index in indexes]
                found += [Pubkey.from_bytes(data[at : at + 32]) for at in places if at + 32 <= len(data)]
        return [*message.account_keys, *writable, *readonly], (len(writable), len(readonly))

    def read_tokens(self, accounts: Sequence[Account | None]) -> tuple[TokenBalance, ...]:
        """What those of the accounts hold that are token accounts."""
        found = []
        for index, account in enumerate(accounts):
            if account is None or account.owner != TOKEN_PROGRAM or len(account.data) != TOKEN_ACCOUNT_BYTES:
                continue
            data = bytes(account.data)
            mint = Pubkey.from_bytes(data[:32])
            decimals = self._svm.get_account(mint)
            found.append(
                TokenBalance(
                    index,
                    str(mint),
                    str(Pubkey.from_bytes(data[32:64])),
                    int.from_bytes(data[64:72], "little"),
                    decimals.data[44] if decimals is not None else 0,
                )
            )
        return tuple(found)

    def _set_slot(self, slot: int) -> None:
        """Have the machine stand in a slot: its Clock, and the hashes of the blocks before it."""
        _, begun, epoch, next_epoch, time = _CLOCK.unpack(self.compute_clock(slot))
        self._svm.set_clock(Clock(slot, begun, epoch, next_epoch, time))
        hashes = []
        at = get_block_slot(slot - 1)
        for _ in range(SLOT_HASHES):
            hashes.append((at, Hash(self.ledger.compute_hash(at))))
            at = get_block_slot(at - 1)
        self._svm.set_slot_hashes(hashes)

    def _set_account(self, key: Pubkey, account: Account | None) -> None:
        self._svm.set_account(key, account or Account(0, b"", SYSTEM_PROGRAM))

    # ------------------------------------------------------------------ forks

    def fork(self, first: int) -> list[Landed]:
        """Replace every block from a slot on by an empty one; the transactions that are gone. The old branch is kept."""
        self.branches.append(self.ledger.copy())
        gone, touched = self.ledger.cut(first, b"branch %d" % len(self.branches))
        for key in touched:
            self._set_account(key, self.ledger.versions[key][-1][1])
        return gone


def _get_writable(transaction: VersionedTransaction, keys: Sequence[Pubkey], loaded: tuple[int, int]) -> set[Pubkey]:
    """The accounts that a transaction may write."""
    header = transaction.message.header
    n_static = len(keys) - sum(loaded)
    signed, unsigned = header.num_required_signatures, n_static - header.num_readonly_unsigned_accounts
    return {
        *keys[: signed - header.num_readonly_signed_accounts],
        *keys[signed:unsigned],
        *keys[n_static : n_static + loaded[0]],
    }


def _get_lamports(account: Account | None) -> int:
    return account.lamports if account is not None else 0


def _read_error(result: object) -> Any:
    """The error of a result in the JSON of nodes, None where there is none."""
    return json.loads(result.to_json())["err"] if isinstance(result, FailedTransactionMetadata) else None


def read_inner(meta: TransactionMetadata) -> tuple[tuple[tuple[int, bytes, bytes, int | None], ...], ...]:
    """See `Landed.inner`."""
    return tuple(
        tuple(
            (one.program_id_index, bytes(one.accounts), bytes(one.data), item.stack_height())
            for item in items
            for one in (item.instruction(),)
        )
        for items in meta.inner_instructions()
    )


def _read_returned(meta: TransactionMetadata) -> tuple[str, bytes] | None:
    found = meta.return_data()
    return (str(found.program_id), bytes(found.data)) if found.data else None


# ---- what waits -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class PoolTx:
    """A transaction that waits; ``slot``: in which it came."""

    raw: bytes
    signature: str
    slot: int


def read_transaction(raw: bytes, *, is_verified: bool = True) -> VersionedTransaction:
    """Read a transaction; Rejected ("size", "malformed", "bad_signature") for what no node takes.

    ``is_verified``: whether its signatures are to be right.
    """
    if len(raw) > 1_232:
        raise Rejected("a transaction is too large", got=len(raw), expected="<= 1232", reason="size")
    try:
        transaction = VersionedTransaction.from_bytes(raw)
        transaction.sanitize()
    except (ValueError, SanitizeError) as error:
        raise Rejected(f"not a transaction: {error}", got=raw[:40], reason="malformed") from error
    if bytes(transaction) != raw:
        raise Rejected("bytes behind a transaction", got=len(raw), reason="malformed")
    if is_verified and not all(transaction.verify_with_results()):
        raise Rejected("a signature of a transaction is wrong", reason="bad_signature")
    return transaction


def read_table(data: bytes) -> Iterable[Pubkey]:
    """The addresses in the data of a lookup table."""
    return (Pubkey.from_bytes(data[at : at + 32]) for at in range(TABLE_HEADER, len(data) - 31, 32))
