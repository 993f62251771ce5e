"""Lookup tables: the keys of a large packet's records, kept on the chain, so that one byte stands for each in a transaction.

An account that pays keeps its own tables for each vault, and only ever adds keys. A table is used by whoever likes, and a wrong one cannot
do harm: the transaction that names it is signed over the table's address alone, but the vault checks every record's address.

A table's address cannot be computed from the vault: the chain puts a recent slot into it. So the transaction that makes one also names a marker,
an address made of payer and vault; after a restart the transactions that name the marker tell the tables. Anybody may name the marker too: what
is found is bounded, and where no table is found a new one is made, for some 220,000 lamports a key.

Source: Solana's address lookup table program (SIMD-0128 notes), `address-lookup-table-interface`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from solders.address_lookup_table_account import ID as TABLE_PROGRAM
from solders.address_lookup_table_account import (
    LOOKUP_TABLE_MAX_ADDRESSES,
    AddressLookupTable,
    AddressLookupTableAccount,
)
from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import (
    CreateLookupTableParams,
    ExtendLookupTableParams,
    TransferParams,
    create_lookup_table,
    extend_lookup_table,
    transfer,
)

from chains.solana.address import decode_key
from chains.solana.client import SolanaClient
from chains.solana.rpc_json import MAX_KEYS, Account, get_list, get_object, parse_number
from messages.errors import Rejected

KEYS_PER_EXTENSION = 24
"""New keys of one transaction, beside what makes a table: 24 of 32 bytes leave room for the rest of its 1,232."""
MAX_FOUND = 8
"""Tables that are remembered of one account and vault: a new one is made when the newest is full."""
MAX_MARKED = 64
"""Transactions with the marker that are looked at."""
_CREATE = bytes(4)


@dataclass(frozen=True)
class Table:
    """A table as it is now; ``ready``: the keys that a transaction may use in the slot after ``slot``."""

    address: Pubkey
    keys: tuple[Pubkey, ...]
    ready: tuple[Pubkey, ...]

    def get_room(self) -> int:
        """How many more keys it takes."""
        return LOOKUP_TABLE_MAX_ADDRESSES - len(self.keys)

    def as_account(self) -> AddressLookupTableAccount:
        """What a message is compiled with."""
        return AddressLookupTableAccount(self.address, list(self.ready))


def make_marker(payer: Pubkey, vault: bytes) -> Pubkey:
    """The address that transactions name which make a table of an account for a vault."""
    return Pubkey.from_bytes(sha256(b"optsettle lookup table" + bytes(payer) + vault).digest())


def make_table(payer: Pubkey, vault: bytes, recent_slot: int, keys: Sequence[Pubkey]) -> list[Instruction]:
    """Instructions that make a table with its first keys; ``recent_slot``: of the last 512, with a block."""
    create, address = create_lookup_table(
        CreateLookupTableParams(authority_address=payer, payer_address=payer, recent_slot=recent_slot)
    )
    mark = transfer(TransferParams(from_pubkey=payer, to_pubkey=make_marker(payer, vault), lamports=0))
    return [mark, create, make_extension(payer, address, keys)]


def make_extension(payer: Pubkey, table: Pubkey, keys: Sequence[Pubkey]) -> Instruction:
    """The instruction that adds keys to a table of the payer's."""
    return extend_lookup_table(
        ExtendLookupTableParams(
            lookup_table_address=table,
            authority_address=payer,
            payer_address=payer,
            new_addresses=list(keys[:KEYS_PER_EXTENSION]),
        )
    )


def decode_table(address: Pubkey, account: Account | None, slot: int, payer: Pubkey) -> Table | None:
    """A table of the payer's in its account as read in ``slot``; None where it is none, another's, or about to be closed.

    Keys that were added in the newest slots are not ready: they count from the slot after the one in which they were added.
    """
    if account is None or account.owner != bytes(TABLE_PROGRAM):
        return None
    try:
        found = AddressLookupTable.deserialize(account.data)
    except ValueError:
        return None
    meta = found.meta
    if (
        len(found.addresses) > LOOKUP_TABLE_MAX_ADDRESSES
        or meta.authority != payer
        or meta.deactivation_slot != 2**64 - 1
    ):
        return None
    keys = tuple(found.addresses)
    is_active = slot > meta.last_extended_slot
    return Table(address, keys, keys if is_active else keys[: meta.last_extended_slot_start_index])


def choose_table(tables: Sequence[Table], wanted: Sequence[Pubkey]) -> Table | None:
    """The table that needs the fewest more keys and has room for them; None where each is too full."""
    lacking = {table.address: sum(key not in table.keys for key in wanted) for table in tables}
    able = [table for table in tables if lacking[table.address] <= table.get_room()]
    return min(able, key=lambda table: lacking[table.address], default=None)


async def find_tables(client: SolanaClient, source: str, payer: Pubkey) -> list[Pubkey]:
    """Addresses of the newest tables that the payer made for the vault, by the source's word; raises as `SolanaClient.ask`."""
    marker = bytes(make_marker(payer, client.rules.vault))
    found: list[Pubkey] = []
    for listed in await client.list_transactions(source, marker, limit=MAX_MARKED):
        if not listed.is_failed and len(found) < MAX_FOUND:
            address = _read_created(await client.read_transaction(source, listed.signature), payer)
            found += [address] if address is not None and address not in found else []
    return found


def _read_created(value: object, payer: Pubkey) -> Pubkey | None:
    """The table that a transaction of the payer's made, None where it is about something else or has no such form."""
    try:
        body = get_object(get_object(value, "transaction").get("transaction"), "transaction body")
        message = get_object(body.get("message"), "message")
        keys = get_list(message.get("accountKeys"), "account keys", MAX_KEYS)
        for item in get_list(message.get("instructions"), "instructions", MAX_KEYS):
            instruction = get_object(item, "instruction")
            program = parse_number(instruction.get("programIdIndex"), "index")
            accounts = get_list(instruction.get("accounts"), "accounts", MAX_KEYS)
            if program < len(keys) and keys[program] == str(TABLE_PROGRAM) and keys[0] == str(payer):
                return Pubkey.from_bytes(decode_key(keys[parse_number(accounts[0], "index")]))
    except (Rejected, IndexError):
        return None  # whatever a source says here only decides which table is looked at
    return None
