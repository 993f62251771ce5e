"""JSON of the Beacon API's light-client routes and of `eth_getProof`, to and from the types of this family. Pure.

Whatever arrives is hostile: sizes, depth, number forms and hex are checked, and any failure is Rejected ("bad_json", "size",
"unknown_fork"). Keys that are not ours are ignored, because nodes add their own and every value that matters is bound by a hash or
a signature afterwards. Numbers may be decimal strings (Beacon API), plain integers or 0x hex (dialects of other relayers). Headers may
be bare beacon headers (Altair) and answers may come without the ``{version, data}`` envelope. What a node writes as an all-zero
object becomes None or ().

Source: ethereum/beacon-APIs apis/beacon/light_client, EIP-1186.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from chains.evm.forks import Fork, ForkSchedule, get_gindices
from chains.evm.light_client import MAX_BRANCH
from chains.evm.ssz import EXECUTION_BRANCH_DEPTH, get_execution_type
from chains.evm.types import (
    Account,
    BeaconHeader,
    Bootstrap,
    Equivocation,
    ExecutionHeader,
    LightClientHeader,
    Proof,
    SyncAggregate,
    SyncCommittee,
    Trusted,
    Update,
)
from messages.errors import Rejected

MAX_JSON_BYTES = 1 << 25
"""A range of 128 updates is 8 MB."""
MAX_UPDATES = 128
"""MAX_REQUEST_LIGHT_CLIENT_UPDATES of the Beacon API."""
MAX_COMMITTEE = 512
MAX_PROOF_NODES = 65
MAX_NODE_BYTES = 1 << 17
MAX_STORAGE_PROOFS = 64
MAX_DEPTH = 32

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_HEX = re.compile(r"0[xX](?:[0-9a-fA-F]{2})*")
_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,64}|[0-9]{1,78}")
_ZERO_CHUNK = bytes(32)
_ZERO_BEACON = BeaconHeader(0, 0, _ZERO_CHUNK, _ZERO_CHUNK, _ZERO_CHUNK)
_ZERO_EXECUTION: ExecutionHeader = get_execution_type(Fork.DENEB).default()
_ZERO_HEADER = LightClientHeader(_ZERO_BEACON)
_EXECUTION_SIZES = {"fee_recipient": 20, "logs_bloom": 256}
_EXECUTION_INTEGERS = (
    "block_number",
    "gas_limit",
    "gas_used",
    "timestamp",
    "base_fee_per_gas",
    "blob_gas_used",
    "excess_blob_gas",
)
_SINCE = {"withdrawals_root": Fork.CAPELLA, "blob_gas_used": Fork.DENEB, "excess_blob_gas": Fork.DENEB}


def _refuse(what: str, got: object = None, expected: object = None) -> Rejected:
    return Rejected(f"JSON: {what}", got=got, expected=expected, reason="bad_json")


# ---- text and plain values --------------------------------------------------------------------------------------------


def decode_json(data: bytes, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value of JSON bytes; Rejected ("size", "bad_json") for floats, duplicate keys, deep nesting or no JSON."""
    if len(data) > max_bytes:
        raise Rejected("JSON too large", got=len(data), expected=f"<= {max_bytes}", reason="size")
    _verify_depth(data)
    try:
        text = data.decode()
        return json.loads(
            text, parse_float=_refuse_number, parse_constant=_refuse_number, object_pairs_hook=_build_object
        )
    except (ValueError, RecursionError) as error:  # Unicode errors, JSON errors, integers with too many digits
        raise _refuse("not readable", got=str(error)[:80]) from error


def _verify_depth(data: bytes) -> None:
    """Refuse nesting before the parser sees it: where the recursion limit was raised, the parser overruns the stack of the process.

    A backslash outside a string stops the parser at that place, so that what lies between quotes is what the parser takes for strings.
    """
    outside = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside.translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if brackets:
        raise _refuse("nested too deep, or brackets that do not match", expected=f"<= {MAX_DEPTH}")


def _refuse_number(text: str) -> Any:
    raise _refuse("only integers", got=text)


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _refuse("duplicate key", got=[key for key, _ in pairs][:8])
    return result


def _get_object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refuse(f"{what} is no object", got=type(value).__name__)
    return value


def _get_list(value: object, what: str, limit: int) -> list[Any]:
    if not isinstance(value, list):
        raise _refuse(f"{what} is no array", got=type(value).__name__)
    if len(value) > limit:
        raise _refuse(f"{what} is too long", got=len(value), expected=f"<= {limit}")
    return value


def _get(obj: Mapping[str, Any], key: str) -> Any:
    if key not in obj:
        raise _refuse(f"{key} is missing", got=sorted(map(str, obj))[:20])
    return obj[key]


def parse_integer(value: object, what: str, bits: int = 64) -> int:
    """Return a non-negative integer of at most ``bits`` bits from an integer, decimal or 0x string; Rejected ("bad_json")."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value, 16 if value.startswith("0x") else 10)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
        raise _refuse(f"{what} is no u{bits}", got=value)
    return value


def parse_hex(value: object, what: str, size: int | None = None, limit: int = 1 << 16) -> bytes:
    """Return bytes of 0x hex, exactly ``size`` or at most ``limit`` of them; Rejected ("bad_json")."""
    if not isinstance(value, str) or len(value) > 2 + 2 * (size or limit) or not _HEX.fullmatch(value):
        raise _refuse(f"{what} is no hex string", got=value, expected=size)
    data = bytes.fromhex(value[2:])
    if size is not None and len(data) != size:
        raise _refuse(f"{what} has another size", got=len(data), expected=size)
    return data


# ---- light-client objects ---------------------------------------------------------------------------------------------


def parse_bootstrap_json(obj: object, schedule: ForkSchedule) -> Bootstrap:
    """Return the bootstrap of a Beacon API answer (or its bare data); Rejected ("bad_json", "unknown_fork")."""
    data = _open_envelope(obj)
    header = parse_header_json(_get(data, "header"))
    gindices = get_gindices(schedule.get_fork_at_slot(header.beacon.slot))
    branch = _parse_chunks(_get(data, "current_sync_committee_branch"), "current_sync_committee_branch")
    return Bootstrap(
        header=header,
        current_committee=_parse_committee(_get(data, "current_sync_committee"), schedule.preset.committee_size),
        current_committee_branch=_strip_padding(branch, gindices.current_committee),
    )


def parse_update_json(obj: object, schedule: ForkSchedule) -> Update:
    """Return the update of a full, finality or optimistic answer (or its bare data).

    What is missing, null or zero is absent. Raises Rejected ("bad_json", "unknown_fork").
    """
    data = _open_envelope(obj)
    size = schedule.preset.committee_size
    aggregate = _get_object(_get(data, "sync_aggregate"), "sync_aggregate")
    finalized = data.get("finalized_header")
    header = None if finalized is None else parse_header_json(finalized)
    committee = data.get("next_sync_committee")
    attested = parse_header_json(_get(data, "attested_header"))
    gindices = get_gindices(schedule.get_fork_at_slot(attested.beacon.slot))
    finality_branch = _parse_branch(data.get("finality_branch"), "finality_branch")
    committee_branch = _parse_branch(data.get("next_sync_committee_branch"), "next_sync_committee_branch")
    return Update(
        attested=attested,
        aggregate=SyncAggregate(
            bits=parse_hex(_get(aggregate, "sync_committee_bits"), "sync_committee_bits", size // 8),
            signature=parse_hex(_get(aggregate, "sync_committee_signature"), "sync_committee_signature", 96),
        ),
        signature_slot=parse_integer(_get(data, "signature_slot"), "signature_slot"),
        finalized=None if header == _ZERO_HEADER else header,
        finality_branch=_strip_padding(finality_branch, gindices.finalized_root),
        next_committee=None if committee is None else parse_committee_json(committee, size),
        next_committee_branch=_strip_padding(committee_branch, gindices.next_committee),
    )


def parse_updates_json(obj: object, schedule: ForkSchedule) -> tuple[Update, ...]:
    """Return the updates of a range answer, in its order; Rejected ("bad_json", "unknown_fork")."""
    if isinstance(obj, dict) and isinstance(obj.get("data"), list):
        obj = obj["data"]
    return tuple(parse_update_json(item, schedule) for item in _get_list(obj, "updates", MAX_UPDATES))


def parse_header_json(obj: object) -> LightClientHeader:
    """Return a light-client header from ``{beacon, execution, execution_branch}`` or a bare beacon header."""
    data = _get_object(obj, "header")
    if "beacon" not in data:
        return LightClientHeader(parse_beacon_json(data))
    execution = data.get("execution")
    parsed = None if execution is None else parse_execution_json(execution)
    return LightClientHeader(
        beacon=parse_beacon_json(data["beacon"]),
        execution=None if parsed == _ZERO_EXECUTION else parsed,
        execution_branch=_parse_branch(data.get("execution_branch"), "execution_branch"),
    )


def parse_beacon_json(obj: object) -> BeaconHeader:
    """Return a beacon header; Rejected ("bad_json")."""
    data = _get_object(obj, "beacon header")
    return BeaconHeader(
        slot=parse_integer(_get(data, "slot"), "slot"),
        proposer_index=parse_integer(_get(data, "proposer_index"), "proposer_index"),
        parent_root=parse_hex(_get(data, "parent_root"), "parent_root", 32),
        state_root=parse_hex(_get(data, "state_root"), "state_root", 32),
        body_root=parse_hex(_get(data, "body_root"), "body_root", 32),
    )


def parse_execution_json(obj: object) -> ExecutionHeader:
    """Return an execution header; fields of Capella and Deneb may be missing. Rejected ("bad_json")."""
    data = _get_object(obj, "execution header")
    values: dict[str, Any] = {}
    for field in fields(ExecutionHeader):
        name = field.name
        if name in _SINCE and name not in data:
            continue
        value = _get(data, name)
        if name in _EXECUTION_INTEGERS:
            values[name] = parse_integer(value, name, 256 if name == "base_fee_per_gas" else 64)
        elif name == "extra_data":
            values[name] = parse_hex(value, name, limit=32)
        else:
            values[name] = parse_hex(value, name, _EXECUTION_SIZES.get(name, 32))
    return ExecutionHeader(**values)


def parse_committee_json(obj: object, size: int) -> SyncCommittee | None:
    """Return a sync committee of ``size`` members, None for the all-zero one; Rejected ("bad_json")."""
    committee = _parse_committee(obj, size)
    return committee if any(committee.aggregate_pubkey) or any(map(any, committee.pubkeys)) else None


def _parse_committee(obj: object, size: int) -> SyncCommittee:
    data = _get_object(obj, "sync committee")
    pubkeys = _get_list(_get(data, "pubkeys"), "pubkeys", MAX_COMMITTEE)
    if len(pubkeys) != size:
        raise _refuse("committee of another size", got=len(pubkeys), expected=size)
    return SyncCommittee(
        pubkeys=tuple(parse_hex(pubkey, "pubkey", 48) for pubkey in pubkeys),
        aggregate_pubkey=parse_hex(_get(data, "aggregate_pubkey"), "aggregate_pubkey", 48),
    )


def _parse_branch(value: object, what: str) -> tuple[bytes, ...]:
    branch = () if value is None else _parse_chunks(value, what)
    return branch if any(map(any, branch)) else ()


def _strip_padding(branch: tuple[bytes, ...], gindex: int) -> tuple[bytes, ...]:
    """Return a branch as long as its place is deep: the zero chunks in front that a store of a later fork writes have no SSZ form.

    What verifies must also have bytes, or one padded answer would stop the record of everything behind it.
    """
    extra = max(len(branch) - (gindex.bit_length() - 1), 0)
    return branch if any(map(any, branch[:extra])) else branch[extra:]


def _parse_chunks(value: object, what: str) -> tuple[bytes, ...]:
    return tuple(parse_hex(chunk, what, 32) for chunk in _get_list(value, what, MAX_BRANCH))


def _open_envelope(obj: object) -> Mapping[str, Any]:
    data = _get_object(obj, "answer")
    version = data.get("version")
    if version is not None and str(version).upper() not in Fork.__members__:
        raise Rejected("answer in the format of an unknown fork", got=version, reason="unknown_fork")
    return _get_object(data["data"], "data") if "data" in data else data


def _encode_hex(data: bytes) -> str:
    return "0x" + data.hex()


def _encode_branch(branch: tuple[bytes, ...], depth: int) -> list[str]:
    return [_encode_hex(chunk) for chunk in branch or (_ZERO_CHUNK,) * depth]


def encode_beacon_json(header: BeaconHeader) -> dict[str, Any]:
    """Return a beacon header as the Beacon API writes it: decimal strings and 0x hex."""
    return {
        field.name: str(value) if isinstance(value := getattr(header, field.name), int) else _encode_hex(value)
        for field in fields(BeaconHeader)
    }


def encode_execution_json(header: ExecutionHeader, fork: Fork) -> dict[str, Any]:
    """Return an execution header with the fields of a fork."""
    return {
        field.name: str(value) if isinstance(value := getattr(header, field.name), int) else _encode_hex(value)
        for field in fields(ExecutionHeader)
        if _SINCE.get(field.name, Fork.BELLATRIX) <= fork
    }


def encode_header_json(header: LightClientHeader, fork: Fork) -> dict[str, Any]:
    """Return a light-client header in the data format of a fork; an absent execution header becomes the zero one."""
    result: dict[str, Any] = {"beacon": encode_beacon_json(header.beacon)}
    if fork >= Fork.CAPELLA:
        result["execution"] = encode_execution_json(header.execution or _ZERO_EXECUTION, fork)
        result["execution_branch"] = _encode_branch(header.execution_branch, EXECUTION_BRANCH_DEPTH)
    return result


def encode_committee_json(committee: SyncCommittee | None, size: int) -> dict[str, Any]:
    """Return a sync committee; None becomes the zero one of ``size`` members."""
    committee = committee or SyncCommittee((bytes(48),) * size, bytes(48))
    return {
        "pubkeys": [_encode_hex(pubkey) for pubkey in committee.pubkeys],
        "aggregate_pubkey": _encode_hex(committee.aggregate_pubkey),
    }


def encode_bootstrap_json(bootstrap: Bootstrap, schedule: ForkSchedule) -> dict[str, Any]:
    """Return ``{version, data}`` of `/eth/v1/beacon/light_client/bootstrap/{block_root}`."""
    fork = schedule.get_fork_at_slot(bootstrap.header.beacon.slot)
    return {
        "version": fork.name.lower(),
        "data": {
            "header": encode_header_json(bootstrap.header, fork),
            "current_sync_committee": encode_committee_json(
                bootstrap.current_committee, schedule.preset.committee_size
            ),
            "current_sync_committee_branch": _encode_branch(
                bootstrap.current_committee_branch, get_gindices(fork).current_committee.bit_length() - 1
            ),
        },
    }


def encode_update_json(update: Update, schedule: ForkSchedule, name: str = "update") -> dict[str, Any]:
    """Return ``{version, data}`` of an update as its route writes it.

    Args:
        update: absent parts become zero objects where the route demands them.
        schedule: names the fork of the attested slot, whose data format is used.
        name: "update" (`updates`, one element), "finality_update" or "optimistic_update".
    """
    fork = schedule.get_fork_at_slot(update.attested.beacon.slot)
    gindices = get_gindices(fork)
    data: dict[str, Any] = {"attested_header": encode_header_json(update.attested, fork)}
    if name == "update":
        data["next_sync_committee"] = encode_committee_json(update.next_committee, schedule.preset.committee_size)
        data["next_sync_committee_branch"] = _encode_branch(
            update.next_committee_branch, gindices.next_committee.bit_length() - 1
        )
    if name != "optimistic_update":
        data["finalized_header"] = encode_header_json(update.finalized or _ZERO_HEADER, fork)
        data["finality_branch"] = _encode_branch(update.finality_branch, gindices.finalized_root.bit_length() - 1)
    data["sync_aggregate"] = {
        "sync_committee_bits": _encode_hex(update.aggregate.bits),
        "sync_committee_signature": _encode_hex(update.aggregate.signature),
    }
    data["signature_slot"] = str(update.signature_slot)
    return {"version": fork.name.lower(), "data": data}


def encode_updates_json(updates: tuple[Update, ...], schedule: ForkSchedule) -> list[dict[str, Any]]:
    """Return the array of `/eth/v1/beacon/light_client/updates`."""
    return [encode_update_json(update, schedule) for update in updates]


# ---- our own documents: stored state and evidence ---------------------------------------------------------------------

TRUSTED_SCHEMA = "optsettle/evm-trusted"
EQUIVOCATION_SCHEMA = "optsettle/evm-equivocation"


def encode_trusted_json(trusted: Trusted, schedule: ForkSchedule) -> dict[str, Any]:
    """Return the trusted state as a document for the store (canonical JSON can write it)."""
    size = schedule.preset.committee_size
    result: dict[str, Any] = {"schema": TRUSTED_SCHEMA, "version": 1, "network": schedule.name}
    for name in ("finalized", "optimistic"):
        header: LightClientHeader = getattr(trusted, name)
        result[name] = encode_header_json(header, schedule.get_fork_at_slot(header.beacon.slot))
    result["current_sync_committee"] = encode_committee_json(trusted.current_committee, size)
    if trusted.next_committee is not None:
        result["next_sync_committee"] = encode_committee_json(trusted.next_committee, size)
    return result


def parse_trusted_json(obj: object, schedule: ForkSchedule) -> Trusted:
    """Return the trusted state of our own document; Rejected ("bad_json") also for another network's."""
    data = _get_object(obj, "trusted state")
    _verify_schema(data, TRUSTED_SCHEMA, schedule)
    size = schedule.preset.committee_size
    following = data.get("next_sync_committee")
    return Trusted(
        finalized=parse_header_json(_get(data, "finalized")),
        optimistic=parse_header_json(_get(data, "optimistic")),
        current_committee=_parse_committee(_get(data, "current_sync_committee"), size),
        next_committee=None if following is None else parse_committee_json(following, size),
    )


def encode_equivocation_json(evidence: Equivocation, schedule: ForkSchedule) -> dict[str, Any]:
    """Return evidence of a double statement as a portable document (canonical JSON can write it)."""
    return {
        "schema": EQUIVOCATION_SCHEMA,
        "version": 1,
        "network": schedule.name,
        "kind": evidence.kind,
        "first": encode_update_json(evidence.first, schedule),
        "second": encode_update_json(evidence.second, schedule),
    }


def parse_equivocation_json(obj: object, schedule: ForkSchedule) -> Equivocation:
    """Return the evidence of a document; it proves nothing before `verify_equivocation`. Rejected ("bad_json")."""
    data = _get_object(obj, "evidence")
    _verify_schema(data, EQUIVOCATION_SCHEMA, schedule)
    kind = _get(data, "kind")
    if not isinstance(kind, str) or len(kind) > 16:
        raise _refuse("kind is no word", got=kind)
    return Equivocation(
        kind=kind,
        first=parse_update_json(_get(data, "first"), schedule),
        second=parse_update_json(_get(data, "second"), schedule),
    )


def _verify_schema(data: Mapping[str, Any], schema: str, schedule: ForkSchedule) -> None:
    got = (data.get("schema"), data.get("version"), data.get("network"))
    if got != (schema, 1, schedule.name):
        raise _refuse("document of another kind", got=got, expected=(schema, 1, schedule.name))


# ---- eth_getProof -----------------------------------------------------------------------------------------------------


def parse_proof_json(obj: object, address: bytes, slot: int) -> Proof:
    """Return the proof of one slot out of an `eth_getProof` answer (or its result).

    The address and the slot are the caller's; what the answer says of address, balance, hashes or values is not read at all
    (incident A12). Raises Rejected ("bad_json"), also when the answer has no proof of that slot.
    """
    data = _open_proof(obj)
    for entry in _get_list(_get(data, "storageProof"), "storageProof", MAX_STORAGE_PROOFS):
        item = _get_object(entry, "storage proof")
        if _parse_slot(_get(item, "key")) == slot:
            nodes = _parse_nodes(_get(item, "proof"), "storage proof")
            return Proof(address, slot, _parse_nodes(_get(data, "accountProof"), "accountProof"), nodes)
    raise _refuse("no proof of this slot", expected=hex(slot))


def parse_storage_claims_json(obj: object) -> dict[int, int]:
    """Return slot to value as an `eth_getProof` answer states them, believed by nobody; Rejected ("bad_json")."""
    entries = _get_list(_get(_open_proof(obj), "storageProof"), "storageProof", MAX_STORAGE_PROOFS)
    items = [_get_object(entry, "storage proof") for entry in entries]
    return {_parse_slot(_get(item, "key")): parse_integer(_get(item, "value"), "value", 256) for item in items}


def _open_proof(obj: object) -> Mapping[str, Any]:
    data = _get_object(obj, "proof")
    return data["result"] if "accountProof" not in data and isinstance(data.get("result"), dict) else data


def _parse_slot(value: object) -> int:
    if isinstance(value, str) and not value.startswith("0x"):
        value = "0x" + value  # some nodes leave the prefix out of keys
    return parse_integer(value, "storage key", 256)


def _parse_nodes(value: object, what: str) -> tuple[bytes, ...]:
    nodes = _get_list(value, what, MAX_PROOF_NODES)
    return tuple(parse_hex(node, what, limit=MAX_NODE_BYTES) for node in nodes)


def encode_proof_json(proof: Proof, account: Account, value: int) -> dict[str, Any]:
    """Return a proof as `eth_getProof` answers it: account fields and value beside the nodes (quantities as 0x hex)."""
    return {
        "address": _encode_hex(proof.address),
        "accountProof": [_encode_hex(node) for node in proof.account_nodes],
        "balance": hex(account.balance_wei),
        "codeHash": _encode_hex(account.code_hash),
        "nonce": hex(account.nonce),
        "storageHash": _encode_hex(account.storage_root),
        "storageProof": [
            {"key": hex(proof.slot), "value": hex(value), "proof": [_encode_hex(node) for node in proof.storage_nodes]}
        ],
    }
