"""The committed vault program in LiteSVM: tokens, clock, signed transactions of real size, events from inner instructions.

The counterpart of `cosmos_world.py`: every call goes through `SolanaWorld.send`, which checks what must hold for any of
them: at most one outbox packet, its bytes canonical and its number next, the head in the state account equal to the fold of
all packets so far, nothing moved by a failure, no transaction above 1,232 bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from solders.account import Account
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.token import ID as TOKEN_PROGRAM
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from contracts.solana import client as c
from contracts.solana import get_program
from messages import bodies as b
from messages.digests import compute_vault_id
from messages.outbox import compute_next_head
from messages.packet import Packet, compute_commitment
from tests.contracts.clearing import Clearing

HOUSE, INSURANCE = c.HOUSE, c.INSURANCE
PROGRAM = Pubkey.from_bytes(hashlib.sha256(b"optsettle test program").digest())
TABLE_PROGRAM = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
ASSOCIATED_PROGRAM = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
CAIP2 = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
LAMPORTS = 10**12
MAX_UNITS = 1_400_000
TOKEN_REFUSAL = "token program"  # it refused what the vault asked of it
MAX_PLAIN_ACCOUNTS = 18  # beyond, a delivery goes through a lookup table


Vary = Callable[[Instruction], Instruction]


class Reverted(Exception):
    """A transaction failed; ``reason`` is the word of the program's error, or what the machine says."""

    def __init__(self, reason: str, logs: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.logs = tuple(logs)


@dataclass(frozen=True)
class Outcome:
    """What a call did: its value, the packets it told of, its compute units and the bytes of its transaction."""

    value: bytes
    packet: Packet | None
    inbox: Packet | None
    units: int
    transaction_bytes: int

    @property
    def out(self) -> bytes | None:
        return self.packet.payloads[0].value if self.packet else None

    @property
    def ack(self) -> b.Ack:
        assert self.out is not None
        body = b.decode_outbox_body(self.out)
        assert isinstance(body, b.Ack)
        return body


def make_key(name: str) -> Keypair:
    """Return a key made of a name, the same in every run."""
    return Keypair.from_seed(hashlib.sha256(name.encode()).digest())


def encode_mint(decimals: int = 6) -> bytes:
    """Return the data of a mint of the classic token program that nobody can mint from."""
    return struct.pack("<I32sQBBI32s", 0, bytes(32), 2**63, decimals, 1, 0, bytes(32))


def encode_token_account(mint: bytes, owner: bytes, amount: int) -> bytes:
    """Return the data of a token account without delegate (state: initialized)."""
    return mint + owner + struct.pack("<QI32sBIQQI32s", amount, 0, bytes(32), 1, 0, 0, 0, 0, bytes(32))


class Machine:
    """LiteSVM with a payer; blocks pass only when a test says so."""

    def __init__(self, time: int, program: bytes = b"") -> None:
        self.svm = LiteSVM()
        self.svm.warp_to_slot(1_000)
        self.svm.add_program(PROGRAM, program or get_program("vault"))
        self.payer = make_key("payer")
        self.svm.airdrop(self.payer.pubkey(), LAMPORTS * 100)
        self.set_time(time)

    def set_time(self, time: int) -> None:
        clock = self.svm.get_clock()
        clock.unix_timestamp = time
        self.svm.set_clock(clock)

    def set_weakness(self, number: int) -> None:
        """Switch a weakness of `solana_twins` on; the vault itself never looks at this number."""
        clock = self.svm.get_clock()
        clock.leader_schedule_epoch = number
        self.svm.set_clock(clock)

    def read(self, key: Pubkey) -> bytes | None:
        """Return the data of an account of the vault program, None if there is none."""
        account = self.svm.get_account(key)
        return bytes(account.data) if account is not None and account.owner == PROGRAM else None

    def put(self, key: Pubkey, owner: Pubkey, data: bytes) -> None:
        rent = self.svm.minimum_balance_for_rent_exemption(len(data))
        self.svm.set_account(key, Account(rent, data, owner))

    def put_table(self, keys: Sequence[Pubkey]) -> AddressLookupTableAccount:
        """Put a lookup table of ``keys`` on the chain."""
        content = b"".join(bytes(k) for k in keys)
        address = Pubkey.from_bytes(hashlib.sha256(content).digest())
        header = struct.pack("<IQQBB32sH", 1, 2**64 - 1, 1, 0, 0, bytes(32), 0)
        self.put(address, TABLE_PROGRAM, header + content)
        return AddressLookupTableAccount(address, list(keys))

    def sign(
        self, instructions: Sequence[Instruction], signers: Sequence[Keypair] = (), table: Sequence[Pubkey] = ()
    ) -> VersionedTransaction:
        """Return a signed transaction with a limit and a price of compute, as a carrier sends it."""
        self.svm.expire_blockhash()
        tables = [self.put_table(table)] if table else []
        budget = [set_compute_unit_limit(MAX_UNITS), set_compute_unit_price(1)]
        everybody = [self.payer, *(s for s in signers if s.pubkey() != self.payer.pubkey())]
        message = MessageV0.try_compile(
            self.payer.pubkey(), [*budget, *instructions], tables, self.svm.latest_blockhash()
        )
        return VersionedTransaction(message, everybody)


class CachedVault(c.Vault):
    """A vault whose derived addresses are computed once: deriving one takes longer than a call of a test."""

    def find(self, record: c.Id) -> Pubkey:
        return _find(self.program, self.state, record)


@lru_cache(maxsize=2**16)
def _find(program: Pubkey, state: Pubkey, record: c.Id) -> Pubkey:
    return c.Vault(program, state).find(record)


class SolanaWorld(Clearing):
    """One vault with its tokens, and the clearing that certifies packets for it."""

    def __init__(
        self,
        operators: Sequence[bytes],
        threshold: int,
        treasurer: bytes,
        caps: Mapping[bytes, Sequence[int]],
        delay: int = 86_400,
        time: int = 1_800_000_000,
        operator_keys: Sequence[bytes] = (),
        machine: Machine | None = None,
    ) -> None:
        self.machine = machine or Machine(time)
        self.time = time
        self.set_operators(operator_keys, threshold)
        self.keys: dict[bytes, Keypair] = {}
        payer = self.machine.payer.pubkey()
        self.vault = CachedVault(PROGRAM, c.find_state(PROGRAM, payer, 1))
        self.begin(compute_vault_id(CAIP2, bytes(self.vault.state)))
        create = c.make_create(PROGRAM, payer, 1, CAIP2, operators, threshold, treasurer, delay, caps)
        self.created = self.send([create])
        assert self.state.vault_id == self.state.outbox_head == self.vault_id

    # ---- accounts and tokens ----

    def add_key(self, seed: bytes | str) -> bytes:
        """Make a caller known by its ed25519 seed or a name; return its account."""
        key = make_key(seed) if isinstance(seed, str) else Keypair.from_seed(seed)
        account = bytes(key.pubkey())
        self.keys[account] = key
        self.machine.svm.airdrop(key.pubkey(), LAMPORTS)
        return account

    def deploy_token(self, asset: bytes) -> None:
        """Put a mint at the key that ``asset`` is, and open the vault's token account."""
        mint = Pubkey.from_bytes(asset)
        self.machine.put(mint, TOKEN_PROGRAM, encode_mint())
        self.open_tokens(asset, bytes(self.vault.state))

    def open_tokens(self, asset: bytes, owner: bytes) -> Pubkey:
        """Open the canonical token account of ``owner`` through the associated token program."""
        mint, holder = Pubkey.from_bytes(asset), Pubkey.from_bytes(owner)
        address = get_associated_token_address(holder, mint)
        accounts = [
            AccountMeta(self.machine.payer.pubkey(), is_signer=True, is_writable=True),
            AccountMeta(address, is_signer=False, is_writable=True),
            *(
                AccountMeta(k, is_signer=False, is_writable=False)
                for k in (holder, mint, SYSTEM_PROGRAM, TOKEN_PROGRAM)
            ),
        ]
        self.send([Instruction(ASSOCIATED_PROGRAM, bytes([1]), accounts)])
        return address

    def fund(self, asset: bytes, owner: bytes, amount: int) -> None:
        """Give ``owner`` tokens on its canonical token account."""
        address = get_associated_token_address(Pubkey.from_bytes(owner), Pubkey.from_bytes(asset))
        self.machine.put(
            address, TOKEN_PROGRAM, encode_token_account(asset, owner, self.get_held(asset, owner) + amount)
        )

    def get_held(self, asset: bytes, owner: bytes | None = None) -> int:
        """Return what ``owner`` (default: the vault) holds on its canonical token account."""
        holder = Pubkey.from_bytes(owner) if owner else self.vault.state
        account = self.machine.svm.get_account(get_associated_token_address(holder, Pubkey.from_bytes(asset)))
        return int.from_bytes(account.data[64:72], "little") if account else 0

    # ---- state ----

    @property
    def state(self) -> c.State:
        """The state account as it is stored: a change that is due shows after the next call."""
        data = self.machine.read(self.vault.state)
        assert data is not None
        return c.decode_state(data)

    def load(self, record: c.Id) -> tuple[bytes | int, ...]:
        data = self.machine.read(self.vault.find(record))
        return c.decode_record(record, data, bytes(self.vault.state))

    def get_free(self, account: bytes, asset: bytes) -> int:
        return int(self.load(c.get_balance_id(account, asset))[0])

    def get_claimable(self, account: bytes, asset: bytes) -> int:
        return int(self.load(c.get_balance_id(account, asset))[1])

    def get_position(self, account: bytes, series: bytes) -> int:
        return c.decode_position(bytes(self.load(c.get_position_id(account, series))[0]))

    # ---- calls ----

    def set_time(self, time: int) -> None:
        self.time = time
        self.machine.set_time(time)

    def send(
        self, instructions: Sequence[Instruction], by: bytes | None = None, table: Sequence[Pubkey] = ()
    ) -> Outcome:
        """Send one signed transaction; Reverted if it fails."""
        transaction = self.machine.sign(instructions, [self.keys[by]] if by else [], table)
        size = len(bytes(transaction))
        assert size <= c.MAX_TRANSACTION_BYTES, f"a transaction of {size} bytes"
        before = self.machine.read(self.vault.state)
        result = self.machine.svm.send_transaction(transaction)
        if isinstance(result, FailedTransactionMetadata):
            assert self.machine.read(self.vault.state) == before, "a failed call changed the vault"
            logs = result.meta().logs()
            raise Reverted(_read_error(result.err(), logs), logs)
        return self._read_outcome(transaction, result, size)

    def _read_outcome(self, transaction: VersionedTransaction, result: object, size: int) -> Outcome:
        events = self._read_events(transaction, result)
        outs = [e for e in events if e.head]
        ins = [e.packet for e in events if not e.head]
        assert len(outs) <= 1, "more than one outbox packet"
        assert len(ins) <= 1, "more than one inbox packet"
        packet = None
        if outs:
            self.sequence += 1
            packet = outs[0].packet
            assert packet == self.make_outbox_packet(packet.payloads[0].value)
            self.head = compute_next_head(self.head, self.sequence, compute_commitment(packet))
            assert outs[0].head == self.head
            self.packets.append(packet)
        data = self.machine.read(self.vault.state)
        assert data is not None
        assert data[c.HEAD_AT : c.HEAD_AT + 32] == self.head
        assert int.from_bytes(data[c.SEQUENCE_AT : c.SEQUENCE_AT + 8], "little") == self.sequence
        value = bytes(result.return_data().data)  # type: ignore[attr-defined]
        units = int(result.compute_units_consumed())  # type: ignore[attr-defined]
        return Outcome(value, packet, ins[0] if ins else None, units, size)

    def _read_events(self, transaction: VersionedTransaction, result: object) -> list[c.Event]:
        """Return the events among the inner instructions: those of the program with the state as only account."""
        keys = transaction.message.account_keys
        events = []
        for inner in result.inner_instructions():  # type: ignore[attr-defined]
            for item in inner:
                i = item.instruction()
                # state and program are static keys or loaded ones; ours are told apart by data and by their number
                is_ours = i.program_id_index < len(keys) and keys[i.program_id_index] == PROGRAM
                if is_ours and len(i.accounts) == 1 and bytes(i.data)[:1] == bytes([c.EVENT]):
                    events.append(c.decode_event(bytes(i.data), self.client))
        return events

    def open(self, *records: c.Id) -> None:
        """Open those of the records that nobody has opened."""
        for record in records:
            if self.machine.read(self.vault.find(record)) is None:
                self.send([c.make_open(self.vault, self.machine.payer.pubkey(), record)])

    # ---- the clearing ----

    def bring(self, packet: Packet, signatures: Sequence[bytes], vary: Vary | None = None) -> Outcome:
        """Open what the packet writes, send recv in one transaction, check what must hold for an accepted packet.

        ``vary`` says the same in another way that a carrier may choose; where that is too long, the usual way is taken.
        """
        read, now = self.machine.read, self.time
        self.open(*c.make_recv(self.vault, packet, signatures, read, now).to_open)
        delivery = c.make_recv(self.vault, packet, signatures, read, now)
        if delivery.may_open and not self._fits(delivery.instruction):
            self.open(*delivery.may_open)
            delivery = c.make_recv(self.vault, packet, signatures, read, now)
        instruction = delivery.instruction
        if vary is not None and self._fits(varied := vary(instruction)):
            instruction = varied
        out = self.send([instruction], table=self._get_table(instruction))
        self.verify_answered(packet, out.inbox, out.out)
        return out

    def _fits(self, instruction: Instruction) -> bool:
        return self._measure(instruction, self._get_table(instruction)) <= c.MAX_TRANSACTION_BYTES

    def _measure(self, instruction: Instruction, table: Sequence[Pubkey]) -> int:
        return len(bytes(self.machine.sign([instruction], table=table)))

    def _get_table(self, instruction: Instruction) -> list[Pubkey]:
        """Return the records of a delivery if it needs a lookup table."""
        keys = [a.pubkey for a in instruction.accounts[2:]]
        is_plain = len(keys) <= MAX_PLAIN_ACCOUNTS - 2 and self._measure(instruction, ()) <= c.MAX_TRANSACTION_BYTES
        return [] if is_plain else keys


def _read_error(error: object, logs: Sequence[str]) -> str:
    """Return the word of the program's error, else the machine's own text."""
    if any(line.startswith(f"Program {TOKEN_PROGRAM} failed") for line in logs):
        return TOKEN_REFUSAL
    inner = getattr(error, "err", None)
    code = getattr(inner, "code", None)
    if code is not None:
        return c.ERRORS.get(int(code), f"custom {code}")
    return str(inner if inner is not None else error)
