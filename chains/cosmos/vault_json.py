"""The vault's messages and answers as CosmWasm JSON (contracts/cosmos/README.md). Pure.

Byte strings are lower-case hex without 0x, amounts decimal strings, times and numbers JSON numbers, a payload's value base64. What the contract
answers comes through a node and is parsed with limits.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chains.cosmos.codec import get_list, get_object, parse_hex, refuse_json
from messages.bodies import CLEARING_CLIENT, ENCODING, PORT, VERSION
from messages.digests import Certificate
from messages.errors import Rejected
from messages.ids import get_vault_client
from messages.packet import MAX_VALUE_BYTES, UINT64_MAX, Packet, Payload

MAX_ANSWER_BYTES = 65_536
MAX_OPERATORS = 20
PAUSED, PENDING = "paused", "pending_operators"


def encode_json(message: Mapping[str, Any]) -> bytes:
    """Return the bytes of a message as they go into a transaction."""
    return json.dumps(message, separators=(",", ":")).encode()


def decode_json_answer(data: bytes) -> Any:
    """Return the JSON value of a smart query's answer; Rejected ("bad_json") when it is large or no JSON."""
    if len(data) > MAX_ANSWER_BYTES:
        raise refuse_json("the contract's answer is too large", len(data))
    if data.count(b"[") + data.count(b"{") > 4096:
        raise refuse_json("the contract's answer is nested too deep or too long", len(data))
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise refuse_json(f"the contract's answer is no JSON: {error}", data[:80]) from error


# ---- what the vault is told -------------------------------------------------------------------------------------------


def make_recv(certificate: Certificate) -> dict[str, Any]:
    """Return the message that carries a certified packet."""
    signatures = [signature.hex() for signature in certificate.signatures]
    return {"recv": {"packet": make_packet(certificate.packet), "signatures": signatures}}


def make_packet(packet: Packet) -> dict[str, Any]:
    """Return a packet as the vault reads it."""
    return {
        "sequence": packet.sequence,
        "source_client": packet.source_client,
        "destination_client": packet.destination_client,
        "timeout": packet.timeout_timestamp,
        "payloads": [
            {
                "source_port": payload.source_port,
                "destination_port": payload.destination_port,
                "version": payload.version,
                "encoding": payload.encoding,
                "value": base64.b64encode(payload.value).decode(),
            }
            for payload in packet.payloads
        ],
    }


def make_pause(signature: bytes) -> dict[str, Any]:
    """Return the message of one operator's signed pause (65 bytes)."""
    return {"pause": {"signature": signature.hex()}}


def make_instantiation(
    operators: Sequence[bytes],
    threshold: int,
    treasurer: bytes,
    delay_s: int,
    caps: Sequence[tuple[bytes, int, int, int]],
) -> dict[str, Any]:
    """Return what creates a vault; operators 20 bytes ascending, caps (asset, per packet, per hour, per day)."""
    return {
        "operators": [operator.hex() for operator in operators],
        "threshold": threshold,
        "treasurer": treasurer.hex(),
        "delay": delay_s,
        "caps": [
            {"asset": asset.hex(), "per_packet": str(packet), "per_hour": str(hour), "per_day": str(day)}
            for asset, packet, hour, day in caps
        ],
    }


# ---- what the vault answers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """Who governs a vault. ``pending_at`` and ``unpause_at``: unix seconds, 0 where nothing is pending."""

    operators: tuple[bytes, ...]
    threshold: int
    epoch: int
    paused: bool
    pending_at: int
    unpause_at: int


def parse_outbox_sequence(value: object) -> int:
    """Return the number of the last outbox packet in the answer to `cursors`; Rejected ("bad_json")."""
    return parse_u64(get_object(value, "cursors").get("outbox_sequence"), "outbox sequence")


def parse_stored_packet(vault_id: bytes, sequence: int, value: bytes) -> Packet:
    """Return the outbox packet of a vault in the value under its number: timeout (u64, big-endian) and payload; Rejected ("malformed")."""
    if not 8 <= len(value) <= 8 + MAX_VALUE_BYTES:
        raise Rejected(
            "not a stored packet", got=len(value), expected=f"8 to {8 + MAX_VALUE_BYTES}", reason="malformed"
        )
    payload = Payload(PORT, PORT, VERSION, ENCODING, value[8:])
    timeout = int.from_bytes(value[:8], "big")
    return Packet(sequence, CLEARING_CLIENT, get_vault_client(vault_id), timeout, (payload,))


def parse_delay(value: object) -> int:
    """Return the delay of control changes (seconds) in the answer to `vault`; Rejected ("bad_json")."""
    return parse_u64(get_object(value, "vault").get("delay"), "delay")


def parse_vault_id(value: object) -> bytes:
    """Return the vault id (32 bytes) in the answer to `vault`; Rejected ("bad_json")."""
    return _parse_bytes(get_object(value, "vault").get("vault_id"), "vault id", 32)


def parse_control(value: object) -> Control:
    """Return the answer to `control`; Rejected ("bad_json")."""
    found = get_object(value, "control")
    paused = found.get("paused")
    if not isinstance(paused, bool):
        raise refuse_json("paused is true or false", paused)
    operators = get_list(found.get("operators"), "operators", MAX_OPERATORS)
    return Control(
        tuple(_parse_bytes(operator, "operator", 20) for operator in operators),
        parse_u64(found.get("threshold"), "threshold"),
        parse_u64(found.get("operator_epoch"), "operator epoch"),
        paused,
        _parse_instant(found.get("pending_operators")),
        _parse_instant(found.get("pending_unpause")),
    )


def parse_u64(value: object, what: str) -> int:
    """Return a number from 0 to 2**64 - 1, as JSON number or decimal string; Rejected ("bad_json")."""
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isdecimal()
        and len(value) <= 20
        and str(int(value)) == value
    ):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= UINT64_MAX:
        return value
    raise refuse_json(f"{what} is no u64", str(value)[:80])


def _parse_instant(value: object) -> int:
    """When something pending takes effect: a number, or an object that has it as ``at``; 0 for null."""
    if value is None:
        return 0
    return parse_u64(value.get("at") if isinstance(value, Mapping) else value, "instant")


def _parse_bytes(value: object, what: str, size: int) -> bytes:
    data = parse_hex(value, what)
    if len(data) != size:
        raise refuse_json(f"{what} has {size} bytes", len(data))
    return data
