"""Kind `optsettle`: byte vectors of the protocol in process, vault traces on the vault of their family.

Files are recognised by their `format` line or their sections, never by name. Every entry of every section is one case.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from messages import bodies as b
from messages.digests import (
    Certificate,
    compute_link_digest,
    compute_packet_digest,
    compute_pause_digest,
    compute_struct_digest,
    compute_vault_id,
    get_address,
    get_vault_client,
    recover_signer,
    sign_digest,
    verify_certificate,
    verify_operators,
)
from messages.digests import compute_domain_separator as get_separator
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import HOUSE, INSURANCE, compute_denom_asset, compute_due_id
from messages.outbox import compute_next_head
from messages.packet import Packet, compute_commitment
from tests.conformance.case import Case, SkippedError
from tests.conformance.optsettle_vault import KIND, make_packet

RUNNERS = {
    "evm": "tests.conformance.optsettle_evm",
    "cosmos": "tests.conformance.optsettle_cosmos",
    "solana": "tests.conformance.optsettle_solana",
}
LIMITS = {"evm": b.EVM_LIMITS, "cosmos": b.COSMOS_LIMITS, "solana": b.SOLANA_LIMITS}
# ABI names of fields that our bodies call otherwise
RENAMED = {"sequence": "inbox_sequence", "commitment": "inbox_commitment", "plan": "plan_digest"}
ITEMS: dict[str, type] = {
    "Execute.legs": b.Leg,
    "Execute.prices": b.SeriesPrice,
    "DecideTrades.items": b.TradeItem,
    "DecideWithdrawals.items": b.WithdrawalItem,
    "SeriesListed.definition": b.SeriesDefinition,
}
MALFORMED = "malformed"


def discover(folder: Path) -> Iterator[Case]:
    """Yield the cases that run in process, then those that need a vault."""
    yield from discover_in_process(folder)
    for module in map(importlib.import_module, RUNNERS.values()):
        yield from module.RUNNER.discover_traces(folder)
        yield from module.RUNNER.discover_recv(folder)
    for _, name, data in _read_files(folder):
        for trace in data.get("traces", []):
            if trace["family"] not in RUNNERS:
                reason = f"no vault of the family {trace['family']}"
                yield Case(KIND, f"{name}:{trace['id']}", _bind(_skip, reason))


def discover_in_process(folder: Path) -> Iterator[Case]:
    """Yield a case per entry of every section that needs no vault."""
    for _, name, data in _read_files(folder):
        if "traces" not in data:
            yield from _discover_bytes(name, data)


def _read_files(folder: Path) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    for path in sorted(folder.rglob("*.json")):
        data = json.loads(path.read_text())
        if isinstance(data, dict):
            yield path, str(path.relative_to(folder)), data


def _discover_bytes(name: str, data: dict[str, Any]) -> Iterator[Case]:
    yield from (
        Case(KIND, f"{name}:constants.{key}", _bind(_check_constant, key, value))
        for key, value in data.get("constants", {}).items()
    )
    for key, value in data.get("operators", {}).items():
        yield Case(KIND, f"{name}:operators.{key}", _bind(_check_operator, value))
    keys = {op["address"]: op["private_key"] for op in data.get("operators", {}).values()}
    for i, entry in enumerate(data.get("signatures", [])):
        yield Case(KIND, f"{name}:signatures[{i}] {entry.get('why', '')}", _bind(_check_signature, entry, keys))
    for section, check in SECTIONS.items():
        for i, entry in enumerate(data.get(section, [])):
            label = entry.get("why") or entry.get("name") or entry.get("type") or ""
            yield Case(KIND, f"{name}:{section}[{i}] {label}", _bind(check, entry))
    for i, entry in enumerate(data.get("recv_cases", [])):
        label = f"{name}:recv_cases[{i}] {entry['why']} (certificate)"
        yield Case(KIND, label, _bind(_check_recv, data["recv_setup"], entry))


def _bind(check: Callable[..., None], *args: object) -> Callable[[], None]:
    return lambda: check(*args)


def _skip(reason: str) -> None:
    raise SkippedError(reason)


def _hex(text: str) -> bytes:
    return bytes.fromhex(text)


def _get_refusal(check: Callable[..., object], *args: object) -> set[str]:
    """Return the reason word of the Rejected that ``check`` raised, or an empty set when it accepted."""
    try:
        check(*args)
    except Rejected as error:
        return {error.reason}
    return set()


# ---- one check per section --------------------------------------------------------------------------------------------


def _check_constant(key: str, value: Any) -> None:
    ours: dict[str, object] = {
        "house": HOUSE.hex(),
        "insurance": INSURANCE.hex(),
        "clearing_client": b.CLEARING_CLIENT,
        "port": b.PORT,
        "version": b.VERSION,
        "encoding": b.ENCODING,
        "reasons": {reason.name: reason.value for reason in b.Reason},
    }
    assert value == ours[key]


def _check_operator(entry: dict[str, str]) -> None:
    assert get_address(_hex(entry["private_key"])).hex() == entry["address"]


def _check_vault_id(entry: dict[str, str]) -> None:
    vault_id = compute_vault_id(entry["caip2"], _hex(entry["account"]))
    assert vault_id.hex() == entry["vault_id"]
    assert get_vault_client(vault_id) == entry["client"]


def _read_field(annotation: str, value: Any, name: str) -> Any:
    if name in ITEMS:
        rows = value if isinstance(value, list) else [value]
        made = tuple(_read_fields(ITEMS[name], row) for row in rows)
        return made if isinstance(value, list) else made[0]
    if annotation.startswith("tuple[bytes"):
        return tuple(_hex(item) for item in value)
    return int(value) if annotation == "int" else _hex(value)


def _read_fields(cls: Any, values: dict[str, Any]) -> Any:
    """Build a dataclass of ours from the decimal and hex strings of a vector; every field must be used."""
    if cls is b.Ack or "plan" in values:
        values = {RENAMED.get(key, key): value for key, value in values.items()}
    types = {f.name: str(f.type) for f in fields(cls)}
    assert types.keys() == values.keys(), (types.keys(), values.keys())
    return cls(**{key: _read_field(types[key], values[key], f"{cls.__name__}.{key}") for key in types})


def _check_payload(entry: dict[str, Any]) -> None:
    value = _hex(entry["value"])
    body = _read_fields(getattr(b, entry["name"]), entry["fields"])
    assert entry["kind"] == body.KIND
    assert b.encode_body(body) == value
    if entry["kind"] < 32:
        assert b.decode_outbox_body(value) == body
    else:
        assert b.decode_inbox_body(value, b.COSMOS_LIMITS) == body


def _check_packet(entry: dict[str, Any]) -> None:
    vault_id, value = _hex(entry["vault_id"]), _hex(entry["value"])
    if entry["direction"] == "out":
        block_time = entry["timeout"] - b.PACKET_LIFE_S
        packet = b.make_outbox_packet(vault_id, entry["sequence"], block_time, b.decode_outbox_body(value))
    else:
        inbox_body = b.decode_inbox_body(value, b.COSMOS_LIMITS)
        packet = b.make_inbox_packet(vault_id, entry["sequence"], entry["timeout"], inbox_body)
    assert packet.payloads[0].value == value
    assert (packet.source_client, packet.destination_client) == (entry["source_client"], entry["destination_client"])
    assert packet.timeout_timestamp == entry["timeout"]
    assert compute_commitment(packet).hex() == entry["commitment"]


def _check_heads(entry: dict[str, Any]) -> None:
    head = _hex(entry["vault_id"])
    assert head.hex() == entry["head_0"]
    assert entry["links"]
    for link in entry["links"]:
        head = compute_next_head(head, link["sequence"], _hex(link["commitment"]))
        assert head.hex() == link["head"]


def _check_digest(entry: dict[str, Any]) -> None:
    salt = None if entry["salt"] is None else _hex(entry["salt"])
    message = entry["message"]
    assert keccak256(entry["type_string"].encode()).hex() == entry["type_hash"]
    assert get_separator(salt).hex() == entry["domain_separator"]
    words = [_hex(v) if len(v) == 64 else int(v).to_bytes(32, "big") for v in message.values()]
    assert compute_struct_digest(salt, entry["type_string"], words).hex() == entry["digest"]
    if entry["type"] == "Packet":
        epoch, sequence = int(message["operatorEpoch"]), int(message["sequence"])
        digest = compute_packet_digest(salt or b"", epoch, sequence, _hex(message["commitment"]))
    elif entry["type"] == "Pause":
        digest = compute_pause_digest(salt or b"", int(message["operatorEpoch"]))
    else:
        assert entry["type"] == "Link"
        assert salt is None
        vault, account, portfolio = (_hex(message[name]) for name in ("vault", "account", "portfolio"))
        digest = compute_link_digest(vault, account, portfolio, int(message["valid_until"]))
    assert digest.hex() == entry["digest"]


def _check_signature(entry: dict[str, Any], keys: dict[str, str]) -> None:
    digest, signature = _hex(entry["digest"]), _hex(entry["signature"])
    if entry["address"] is not None:
        assert recover_signer(digest, signature).hex() == entry["address"]
        if entry["address"] in keys:  # nonces by RFC 6979: one signature per key and digest
            assert sign_digest(_hex(keys[entry["address"]]), digest) == signature
        return
    assert _get_refusal(recover_signer, digest, signature) == {"bad_signature"}


def _check_series(entry: dict[str, Any]) -> None:
    definition = _read_fields(b.SeriesDefinition, entry["definition"])
    assert b.compute_series_id(definition).hex() == entry["id"]


def _check_due(entry: dict[str, str]) -> None:
    assert compute_due_id(_hex(entry["of"])).hex() == entry["id"]


def _check_denom(entry: dict[str, str]) -> None:
    assert compute_denom_asset(entry["denom"]).hex() == entry["asset"]


def _check_malformed(entry: dict[str, Any]) -> None:
    assert entry["expect"] == MALFORMED
    value, limits = _hex(entry["value"]), b.Limits(entry.get("max_legs", 128))
    # The vectors do not say which box a value is for: neither may take it.
    for decode in (b.decode_outbox_body, lambda v: b.decode_inbox_body(v, limits)):
        assert _get_refusal(decode, value) == {MALFORMED}


def _check_recv(setup: dict[str, Any], entry: dict[str, Any]) -> None:
    """The relayer must foresee what the vault's `recv` says of packet and signatures (vault.md 3, protocol.md 3)."""
    verdict = _foresee(setup, entry)
    word, _, rest = entry["expect"].partition(" ")
    if word == "revert":
        assert verdict == rest, (verdict, rest)
        return
    assert verdict == "accepted"
    ack = b.decode_outbox_body(_hex(rest))
    packet = _read_recv_packet(setup, entry)
    assert isinstance(ack, b.Ack)
    assert (ack.inbox_sequence, ack.inbox_commitment) == (packet.sequence, compute_commitment(packet))
    assert ack.kind == b.get_kind(packet.payloads[0].value)


def _read_recv_packet(setup: dict[str, Any], entry: dict[str, Any]) -> Packet:
    vault_id = compute_vault_id(setup["caip2"], _hex(setup["vault_account"]))
    return make_packet(get_vault_client(vault_id), entry["packet"])


def _foresee(setup: dict[str, Any], entry: dict[str, Any]) -> str:
    packet = _read_recv_packet(setup, entry)
    if packet.sequence != 1:
        return "sequence"
    vault_id = compute_vault_id(setup["caip2"], _hex(setup["vault_account"]))
    if _get_refusal(b.verify_inbox_packet, vault_id, packet):
        return "envelope"
    if not entry["t"] < packet.timeout_timestamp <= entry["t"] + b.PACKET_LIFE_S:
        return "timeout"
    operators = [_hex(o) for o in setup["operators"]]
    verify_operators(operators, setup["threshold"])
    certificate = Certificate(packet, vault_id, 0, tuple(_hex(s) for s in entry["signatures"]))
    refusal = _get_refusal(verify_certificate, certificate, operators, setup["threshold"])
    if refusal:
        assert refusal <= {"bad_certificate", "bad_signature"}, refusal
        return "signatures"
    return "".join(_get_refusal(b.decode_inbox_body, packet.payloads[0].value, LIMITS[setup["family"]])) or "accepted"


SECTIONS: dict[str, Callable[[Any], None]] = {
    "vault_ids": _check_vault_id,
    "payloads": _check_payload,
    "packets": _check_packet,
    "heads": _check_heads,
    "digests": _check_digest,
    "series": _check_series,
    "dues": _check_due,
    "denoms": _check_denom,
    "malformed_values": _check_malformed,
}
