"""Answers of Solana's JSON-RPC -> values of ours, with limits. Pure.

An answer is a claim: everything here checks form, nothing here believes. Packets are read only from transactions that succeeded, from the
instructions of the vault program to itself with the vault's state as only account; the program lets nobody else make one, because the
state must sign (incident E2: another program may show the same bytes). Logs are never read: they are cut when they get long.

Source: Solana documentation, JSON-RPC HTTP methods; `solana-transaction-status` (UiTransactionStatusMeta).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from chains.solana.address import decode_base58, decode_key, decode_signature, encode_key
from contracts.solana.client import EVENT, decode_event
from messages.errors import Rejected, Unavailable
from messages.packet import Packet

UINT64_MAX = 2**64 - 1
MAX_ACCOUNT_BYTES = 10 << 20
"""The chain's own limit of an account."""
MAX_ACCOUNTS = 100
"""Of one getMultipleAccounts, by the method's own rule."""
MAX_SIGNATURES = 1_000
"""Of one getSignaturesForAddress, by the method's own rule."""
MAX_STATUSES = 256
MAX_KEYS = 256
"""Of one transaction: an index into them has one byte."""
MAX_INSTRUCTIONS = 256
"""Of one transaction, inner ones included: the chain's own limit is 64."""
MAX_DATA_BYTES = 10_240
"""Of one inner instruction: the chain's own limit."""
MAX_FEES = 512
MAX_LOGS = 10_000
MAX_TEXT = 300
CLOCK_BYTES = 40
LEVELS = ("processed", "confirmed", "finalized")
_FAILED = re.compile(r"Program ([1-9A-HJ-NP-Za-km-z]{32,44}) failed: ")
_CLOCK = struct.Struct("<QqQQq")


@dataclass(frozen=True, slots=True)
class Account:
    """An account: who owns it (32 bytes), its lamports and data."""

    owner: bytes
    lamports: int
    data: bytes
    is_program: bool


@dataclass(frozen=True, slots=True)
class Accounts:
    """Accounts as they were in one slot, None where there is none."""

    slot: int
    accounts: tuple[Account | None, ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """The Clock sysvar: slot, and unix seconds as the validators' votes have it."""

    slot: int
    time: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A transaction in the list of an account's: its first signature in base58, its slot, and whether it failed."""

    signature: str
    slot: int
    is_failed: bool


@dataclass(frozen=True, slots=True)
class PacketEvent:
    """A packet as the vault's event shows it; ``transaction`` is the signature that names it."""

    is_outbox: bool
    packet: Packet
    transaction: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a transaction fails: the node's words; which instruction, and a program's own code where there is one.

    ``program``: whose code that is, in base58, where the node tells: a program that was called by the instruction's own may have failed.
    """

    text: str
    instruction: int | None = None
    code: int | None = None
    program: str = ""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a transaction would do: compute units, or why it fails."""

    units: int
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class Status:
    """What became of a transaction: its slot, why it failed, and how final that is (of `LEVELS`)."""

    slot: int
    failure: Failure | None
    level: str


@dataclass(frozen=True, slots=True)
class Blockhash:
    """A recent block's hash (32 bytes) and the last block height at which a transaction with it may land."""

    blockhash: bytes
    last_height: int


# ---- forms --------------------------------------------------------------------------------------------------------------


def get_object(value: object, what: str) -> Mapping[str, Any]:
    """Return a JSON object; Rejected ("bad_json")."""
    if not isinstance(value, dict):
        raise refuse_json(f"{what} is not an object", value)
    return value


def get_list(value: object, what: str, limit: int) -> list[Any]:
    """Return a JSON array of at most ``limit`` items; Rejected ("bad_json", "size")."""
    if not isinstance(value, list):
        raise refuse_json(f"{what} is not an array", value)
    if len(value) > limit:
        raise Rejected(f"too many items: {what}", got=len(value), expected=f"<= {limit}", reason="size")
    return value


def parse_number(value: object, what: str = "number") -> int:
    """Return an unsigned 64-bit integer; Rejected ("bad_json") for anything else, also for true and 1.0."""
    if type(value) is not int or not 0 <= value <= UINT64_MAX:
        raise refuse_json(f"{what} is not an unsigned 64-bit integer", value)
    return value


def refuse_json(what: str, got: object = None) -> Rejected:
    """The error for an answer of another form."""
    return Rejected(what, got=str(got)[:MAX_TEXT], reason="bad_json")


def _parse_base64(value: object, what: str) -> bytes:
    pair = get_list(value, what, 2)
    if len(pair) != 2 or pair[1] != "base64" or not isinstance(pair[0], str) or len(pair[0]) > MAX_ACCOUNT_BYTES * 2:
        raise refuse_json(f"{what} is not in base64", str(pair)[:80])
    try:
        data = base64.b64decode(pair[0], validate=True)
    except (binascii.Error, ValueError) as error:
        raise refuse_json(f"{what} is not in base64", pair[0][:80]) from error
    if base64.b64encode(data).decode() != pair[0]:
        raise refuse_json(f"{what} is not the one text of its bytes", pair[0][-8:])
    return data


def _open_context(value: object, what: str) -> tuple[int, Any]:
    """(slot that was read, value) of an answer that tells its slot."""
    found = get_object(value, what)
    slot = parse_number(get_object(found.get("context"), "context").get("slot"), "context slot")
    if "value" not in found:
        raise refuse_json(f"{what} without value")
    return slot, found["value"]


# ---- state --------------------------------------------------------------------------------------------------------------


def parse_genesis(value: object) -> bytes:
    """Return the answer to getGenesisHash, 32 bytes; Rejected ("bad_address")."""
    return decode_key(value)


def parse_accounts(value: object, count: int) -> Accounts:
    """Return the answer to getMultipleAccounts for ``count`` keys; Rejected ("bad_json", "size", "bad_address")."""
    slot, rows = _open_context(value, "accounts")
    rows = get_list(rows, "accounts", MAX_ACCOUNTS)
    if len(rows) != count:
        raise refuse_json("another number of accounts than was asked for", len(rows))
    return Accounts(slot, tuple(_parse_account(row) for row in rows))


def parse_account(value: object) -> Accounts:
    """Return the answer to getAccountInfo; Rejected ("bad_json", "size", "bad_address")."""
    slot, row = _open_context(value, "account")
    return Accounts(slot, (_parse_account(row),))


def _parse_account(row: object) -> Account | None:
    if row is None:
        return None
    found = get_object(row, "account")
    executable = found.get("executable")
    if not isinstance(executable, bool):
        raise refuse_json("an account is executable or not", executable)
    data = _parse_base64(found.get("data"), "account data")
    return Account(decode_key(found.get("owner")), parse_number(found.get("lamports"), "lamports"), data, executable)


def parse_clock(account: Account | None, owner: bytes) -> Clock:
    """Return the Clock sysvar in its account, which belongs to ``owner``; Rejected ("bad_clock")."""
    if account is None or account.owner != owner or len(account.data) != CLOCK_BYTES:
        raise Rejected("not the Clock sysvar", got=account and account.data[:CLOCK_BYTES], reason="bad_clock")
    slot, _, _, _, time = _CLOCK.unpack(account.data)
    if time <= 0:
        raise Rejected("a clock before 1970", got=time, reason="bad_clock")
    return Clock(slot, time)


def parse_balance(value: object) -> int:
    """Return the answer to getBalance in lamports; Rejected ("bad_json")."""
    return parse_number(_open_context(value, "balance")[1], "balance")


# ---- transactions of an account -----------------------------------------------------------------------------------------


def parse_signatures(value: object, limit: int) -> tuple[Listed, ...]:
    """Return the answer to getSignaturesForAddress, newest first; Rejected ("bad_json", "size", "bad_signature", "order")."""
    rows = []
    for row in get_list(value, "signatures", limit):
        found = get_object(row, "signature")
        text = found.get("signature")
        decode_signature(text)
        rows.append(Listed(str(text), parse_number(found.get("slot"), "slot"), found.get("err") is not None))
    for newer, older in pairwise(rows):
        if newer.slot < older.slot:
            raise Rejected("a list that is not newest first", got=(newer.slot, older.slot), reason="order")
    return tuple(rows)


def parse_events(value: object, listed: Listed, program: bytes, state: bytes, client: str) -> tuple[PacketEvent, ...]:
    """Return the packets of a vault in the answer to getTransaction for a listed transaction; none where it failed.

    Args:
        value: result of the call.
        listed: what was asked for.
        program: 32 bytes; events are its instructions to itself.
        state: 32 bytes; the only account of an event.
        client: IBC client id of the vault.

    Raises:
        Rejected: "bad_json", "size", "wrong_transaction" and the reasons of `contracts.solana.client.decode_event`.
        Unavailable: "not_found" where the node has it no more; "no_inner_instructions" where it keeps none: another source may.
    """
    if value is None:
        raise Unavailable("the endpoint does not have the transaction", got=listed.signature, reason="not_found")
    found = get_object(value, "transaction")
    body = get_object(found.get("transaction"), "transaction body")
    signatures = get_list(body.get("signatures"), "signatures", MAX_KEYS)
    slot = parse_number(found.get("slot"), "slot")
    if signatures[:1] != [listed.signature] or slot != listed.slot:
        raise Rejected(
            "another transaction than was asked for",
            got=(str(signatures[:1])[:120], slot),
            expected=(listed.signature, listed.slot),
            reason="wrong_transaction",
        )
    if found.get("meta") is None:
        raise Unavailable(
            "the endpoint does not keep what transactions did", got=listed.signature, reason="no_inner_instructions"
        )
    meta = get_object(found["meta"], "meta")
    if "err" not in meta:
        raise refuse_json("a transaction that says neither success nor failure")
    if meta["err"] is not None:
        return ()
    keys = _get_keys(body, meta)
    wanted = encode_key(program), encode_key(state)
    transaction = decode_signature(listed.signature)
    events = []
    for instruction in _get_inner_instructions(meta, listed.signature):
        data = _read_event_data(instruction, keys, *wanted)
        if data is not None:
            event = decode_event(data, client)
            events.append(PacketEvent(bool(event.head), event.packet, transaction))
    return tuple(events)


def _get_keys(body: Mapping[str, Any], meta: Mapping[str, Any]) -> list[Any]:
    """Keys that indices count through: those of the message, then those that lookup tables gave, writable ones first."""
    message = get_object(body.get("message"), "message")
    keys = list(get_list(message.get("accountKeys"), "account keys", MAX_KEYS))
    loaded = meta.get("loadedAddresses")
    if loaded is not None:
        tables = get_object(loaded, "loaded addresses")
        for part in ("writable", "readonly"):
            keys += get_list(tables.get(part), f"{part} addresses", MAX_KEYS)
    if len(keys) > MAX_KEYS or not all(isinstance(key, str) for key in keys):
        raise refuse_json("account keys of a transaction", len(keys))
    return keys


def _get_inner_instructions(meta: Mapping[str, Any], signature: str) -> list[Any]:
    groups = meta.get("innerInstructions")
    if groups is None:
        raise Unavailable(
            "the endpoint does not record inner instructions: ask another",
            got=signature,
            reason="no_inner_instructions",
        )
    found: list[Any] = []
    for group in get_list(groups, "inner instructions", MAX_INSTRUCTIONS):
        found += get_list(get_object(group, "inner instructions").get("instructions"), "instructions", MAX_INSTRUCTIONS)
        if len(found) > MAX_INSTRUCTIONS:
            raise Rejected("too many instructions", got=len(found), expected=f"<= {MAX_INSTRUCTIONS}", reason="size")
    return found


def _read_event_data(instruction: object, keys: Sequence[str], program: str, state: str) -> bytes | None:
    """The data of an instruction that is an event of this vault, None where it is something else."""
    found = get_object(instruction, "instruction")
    accounts = get_list(found.get("accounts"), "accounts of an instruction", MAX_KEYS)
    indices = [parse_number(index, "index") for index in (found.get("programIdIndex"), *accounts)]
    if any(index >= len(keys) for index in indices):
        raise refuse_json("an index beyond the keys", max(indices))
    if [keys[index] for index in indices] != [program, state]:
        return None
    data = decode_base58(found.get("data"), MAX_DATA_BYTES)
    return data if data[:1] == bytes([EVENT]) else None


# ---- sending ------------------------------------------------------------------------------------------------------------


def parse_blockhash(value: object) -> Blockhash:
    """Return the answer to getLatestBlockhash; Rejected ("bad_json", "bad_address")."""
    found = get_object(_open_context(value, "blockhash")[1], "blockhash")
    return Blockhash(
        decode_key(found.get("blockhash")), parse_number(found.get("lastValidBlockHeight"), "last valid height")
    )


def parse_validity(value: object) -> bool:
    """Return the answer to isBlockhashValid; Rejected ("bad_json")."""
    valid = _open_context(value, "validity")[1]
    if not isinstance(valid, bool):
        raise refuse_json("a blockhash is valid or not", valid)
    return valid


def parse_simulation(value: object) -> Simulation:
    """Return the answer to simulateTransaction; Rejected ("bad_json")."""
    found = get_object(_open_context(value, "simulation")[1], "simulation")
    if "err" not in found:
        raise refuse_json("a simulation that says neither success nor failure")
    units = found.get("unitsConsumed")
    if units is None and found["err"] is not None:
        units = 0
    failure = parse_failure(found["err"])
    if failure is not None:
        failure = replace(failure, program=_find_failed(found.get("logs")))
    return Simulation(parse_number(units, "compute units"), failure)


def _find_failed(logs: object) -> str:
    """The first program that the logs of a trial tell as failed, "" where they tell none: the innermost one fails first."""
    for line in logs[:MAX_LOGS] if isinstance(logs, list) else ():
        match = _FAILED.match(line) if isinstance(line, str) else None
        if match is not None:
            return match[1]
    return ""


def parse_failure(err: object) -> Failure | None:
    """Return what a node gives as a transaction's error, None for success; never raises: the words of a node are its own."""
    if err is None:
        return None
    text = err if isinstance(err, str) else json.dumps(err, sort_keys=True)
    text = text[:MAX_TEXT]
    pair = err.get("InstructionError") if isinstance(err, dict) else None
    if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) is not int:
        return Failure(text)
    code = pair[1].get("Custom") if isinstance(pair[1], dict) else None
    return Failure(text, pair[0], code if type(code) is int else None)


def parse_statuses(value: object, count: int) -> tuple[Status | None, ...]:
    """Return the answer to getSignatureStatuses for ``count`` signatures; Rejected ("bad_json")."""
    rows = get_list(_open_context(value, "statuses")[1], "statuses", MAX_STATUSES)
    if len(rows) != count:
        raise refuse_json("another number of statuses than was asked for", len(rows))
    return tuple(_parse_status(row) for row in rows)


def _parse_status(row: object) -> Status | None:
    if row is None:
        return None
    found = get_object(row, "status")
    level = found.get("confirmationStatus")
    if level not in LEVELS or "err" not in found:
        raise refuse_json("not the status of a transaction", str(found)[:80])
    return Status(parse_number(found.get("slot"), "slot"), parse_failure(found["err"]), str(level))


def parse_fees(value: object) -> tuple[int, ...]:
    """Return the answer to getRecentPrioritizationFees: micro-lamports a compute unit, a slot each; Rejected ("bad_json")."""
    rows = get_list(value, "fees", MAX_FEES)
    return tuple(parse_number(get_object(row, "fee").get("prioritizationFee"), "fee") for row in rows)
