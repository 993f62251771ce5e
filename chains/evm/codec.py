"""Logs, storage words and calldata of the vault <-> our types. Pure.

Decoders take what an endpoint said and believe nothing: every field is checked for shape and width, a log must come from the vault's
address with one of the vault's two topics (incident E2), be in a block and not be marked removed (E6), and hold exactly one canonical
packet whose number is the one in its topic. Builders give the calldata of the vault's functions; their signatures are those of
contracts/evm/vault.vy (a test compares them with the built interface).

Source: Ethereum JSON-RPC (execution-apis), Contract ABI Specification, contracts/evm/vault.vy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from eth_abi.abi import decode as decode_abi
from eth_abi.abi import encode as encode_abi
from eth_abi.exceptions import DecodingError

from messages.bodies import SeriesDefinition
from messages.digests import Certificate, compute_vault_id
from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import get_evm_account
from messages.packet import MAX_PACKET_BYTES, Packet, decode_packet_abi, encode_packet_abi

PACKET_TYPE = "(uint64,string,string,uint64,(string,string,string,string,bytes)[])"
OUTBOX_TOPIC = keccak256(f"Outbox(uint64,{PACKET_TYPE})".encode())
INBOX_TOPIC = keccak256(f"Inbox(uint64,{PACKET_TYPE})".encode())

OUTBOX_HEAD_SLOT = 0
"""Storage slot of the vault's outbox head: the one that is proven."""
CURSORS_SLOT = 1
"""Storage slot whose lowest 64 bits are the outbox sequence; read beside the head, believed only after the fold."""

DEFINITION_TYPE = "(bytes32,uint64,uint256,uint8,bytes32,uint256,bytes32,uint32)"
MAX_HEX_CHARS = 2 * MAX_PACKET_BYTES + 2
MAX_REASON_BYTES = 128
UINT64_MAX = 2**64 - 1
_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")


@dataclass(frozen=True, slots=True)
class VaultLog:
    """One event of the vault. ``place`` = (block number, log index), ``block_hash`` and ``transaction`` 32 bytes."""

    is_outbox: bool
    packet: Packet
    place: tuple[int, int]
    block_hash: bytes
    transaction: bytes


# ---- JSON-RPC values --------------------------------------------------------------------------------------------------


def decode_data(value: object, size: int | None = None, *, max_bytes: int = MAX_PACKET_BYTES) -> bytes:
    """Bytes of a JSON-RPC "data" value ("0x" and an even number of hex digits); Rejected ("malformed") otherwise."""
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 2 * max_bytes + 2:
        raise Rejected("not hex data", got=_shorten(value), reason="malformed")
    try:
        data = bytes.fromhex(value[2:])
    except ValueError:
        raise Rejected("not hex data", got=_shorten(value), reason="malformed") from None
    if len(data) * 2 + 2 != len(value) or (size is not None and len(data) != size):
        raise Rejected("hex data of another size", got=len(data), expected=size, reason="malformed")
    return data


def decode_quantity(value: object, limit: int = UINT64_MAX) -> int:
    """Integer of a JSON-RPC "quantity" value (0x, no sign; leading zeros are let pass); Rejected ("malformed") otherwise."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise Rejected("not a hex quantity", got=_shorten(value), reason="malformed")
    number = int(value, 16)
    if number > limit:
        raise Rejected("quantity out of range", got=number, expected=f"<= {limit}", reason="malformed")
    return number


def encode_data(data: bytes) -> str:
    """JSON-RPC form of bytes."""
    return "0x" + data.hex()


def _shorten(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:66]!r}"


# ---- logs -------------------------------------------------------------------------------------------------------------


def build_log_filter(vault: bytes, first: int, last: int) -> dict[str, Any]:
    """Parameter of eth_getLogs for the vault's packets in blocks ``first`` to ``last``, both included."""
    return {
        "address": encode_data(vault),
        "topics": [[encode_data(OUTBOX_TOPIC), encode_data(INBOX_TOPIC)]],
        "fromBlock": hex(first),
        "toBlock": hex(last),
    }


def decode_log(log: object, vault: bytes, first: int, last: int) -> VaultLog:
    """One log of an answer to `build_log_filter`.

    Rejected: "malformed"; "foreign_log" (another address or topic: the emitter is part of the meaning, E2); "removed_log" (E6);
    "out_of_range" (a block that was not asked for); whatever `decode_packet_abi` refuses; "log_number" (topic and packet differ).
    """
    if not isinstance(log, Mapping):
        raise Rejected("a log is an object", got=_shorten(log), reason="malformed")
    if decode_data(log.get("address"), 20) != vault:
        raise Rejected("a log of another contract", got=log.get("address"), expected=vault.hex(), reason="foreign_log")
    if log.get("removed") not in (False, None):
        raise Rejected("a log of a block that is gone", got=log.get("removed"), expected=False, reason="removed_log")
    topics = log.get("topics")
    if not isinstance(topics, Sequence) or isinstance(topics, str) or len(topics) != 2:
        raise Rejected("an outbox or inbox event has two topics", got=_shorten(topics), reason="foreign_log")
    topic = decode_data(topics[0], 32)
    if topic not in (OUTBOX_TOPIC, INBOX_TOPIC):
        raise Rejected("a log of another kind", got=topic, reason="foreign_log")
    number = decode_quantity(log.get("blockNumber"))
    if not first <= number <= last:
        raise Rejected("a log of another block", got=number, expected=f"{first} to {last}", reason="out_of_range")
    packet = decode_packet_abi(decode_data(log.get("data")))
    if int.from_bytes(decode_data(topics[1], 32), "big") != packet.sequence:
        raise Rejected("the topic names another packet", got=topics[1], expected=packet.sequence, reason="log_number")
    return VaultLog(
        topic == OUTBOX_TOPIC,
        packet,
        (number, decode_quantity(log.get("logIndex"))),
        decode_data(log.get("blockHash"), 32),
        decode_data(log.get("transactionHash"), 32),
    )


# ---- vault ------------------------------------------------------------------------------------------------------------


def compute_evm_vault_id(chain_id: int, vault: bytes) -> bytes:
    """Vault id of the vault at a 20-byte address of chain eip155:``chain_id`` (protocol.md 2)."""
    return compute_vault_id(f"eip155:{chain_id}", get_evm_account(vault))


def get_outbox_sequence(cursors: int) -> int:
    """The outbox sequence in the word of CURSORS_SLOT."""
    return cursors & UINT64_MAX


@lru_cache(maxsize=64)
def _parse_signature(signature: str) -> tuple[bytes, tuple[str, ...]]:
    """Selector and argument types of "name(type,type,(type,type))"."""
    inside = signature[signature.index("(") + 1 : -1]
    types: list[str] = []
    depth, start = 0, 0
    for at, char in enumerate(inside + ","):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            types.append(inside[start:at])
            start = at + 1
    return keccak256(signature.encode())[:4], tuple(t for t in types if t)


def encode_call(signature: str, *args: object) -> bytes:
    """Calldata of a function; ``signature`` is canonical, as in "claim(bytes32,bytes32)"."""
    selector, types = _parse_signature(signature)
    return selector + bytes(encode_abi(types, args))


def decode_result(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """Values of return data; Rejected ("malformed") if it is not of these ABI types."""
    try:
        return tuple(decode_abi(types, data))
    except (DecodingError, ValueError, OverflowError) as error:
        raise Rejected(
            "not the expected return data", got=data, expected=",".join(types), reason="malformed"
        ) from error


def encode_vault_args(
    operators: Sequence[bytes],
    threshold: int,
    treasurer: bytes,
    delay_s: int,
    caps: Sequence[tuple[bytes, int, int, int]],
) -> bytes:
    """Constructor arguments of the vault; operators 20 bytes ascending, caps (asset, per packet, per hour, per day)."""
    types = ["address[]", "uint256", "bytes32", "uint256", "(bytes32,uint256,uint256,uint256)[]"]
    return bytes(encode_abi(types, [list(operators), threshold, treasurer, delay_s, list(caps)]))


def encode_recv(certificate: Certificate) -> bytes:
    """Calldata of recv(packet, signatures): the canonical packet and the signatures joined."""
    return encode_call("recv(bytes,bytes)", encode_packet_abi(certificate.packet), b"".join(certificate.signatures))


def decode_recv(calldata: bytes) -> tuple[Packet, tuple[bytes, ...]]:
    """Packet and signatures of recv's calldata; Rejected ("malformed") if it is not exactly what `encode_recv` gives."""
    if len(calldata) > 2 * MAX_PACKET_BYTES or calldata[:4] != _parse_signature("recv(bytes,bytes)")[0]:
        raise Rejected("not a call of recv", got=calldata[:4], reason="malformed")
    raw, joined = decode_result(["bytes", "bytes"], calldata[4:])
    if encode_call("recv(bytes,bytes)", raw, joined) != calldata or len(joined) % 65:
        raise Rejected("not canonical calldata", got=len(calldata), reason="malformed")
    return decode_packet_abi(raw), tuple(joined[i : i + 65] for i in range(0, len(joined), 65))


def encode_deposit(asset: bytes, amount: int, beneficiary: bytes) -> bytes:
    """Calldata of deposit: ``amount`` base units of ``asset`` for ``beneficiary`` (ids, 32 bytes)."""
    return encode_call("deposit(bytes32,uint256,bytes32)", asset, amount, beneficiary)


def encode_link(portfolio: bytes, valid_until: int, signature: bytes) -> bytes:
    """Calldata of link; signature r || s || v, 65 bytes."""
    return encode_call("link(bytes32,uint64,bytes)", portfolio, valid_until, signature)


def encode_list_series(definition: SeriesDefinition) -> bytes:
    """Calldata of list_series."""
    d = definition
    words = (
        d.underlying,
        d.expiry,
        d.strike_e8,
        d.right,
        d.quote_class,
        d.multiplier_e8,
        d.price_source,
        d.twap_seconds,
    )
    return encode_call(f"list_series({DEFINITION_TYPE})", words)


def encode_offer(side: int, series: bytes, asset: bytes, quantity: int, premium: int, valid_until: int) -> bytes:
    """Calldata of offer; side 0 the maker buys, 1 the maker sells; quantity in 1e-8, premium in base units per contract."""
    signature = "offer(uint8,bytes32,bytes32,uint256,uint256,uint64)"
    return encode_call(signature, side, series, asset, quantity, premium, valid_until)


def encode_cancel(offer: int) -> bytes:
    """Calldata of cancel."""
    return encode_call("cancel(uint256)", offer)


def encode_take(offer: int, quantity: int, nonce: int, *, for_house: bool = False) -> bytes:
    """Calldata of take; quantity in 1e-8 contracts."""
    return encode_call("take(uint256,uint256,uint64,bool)", offer, quantity, nonce, for_house)


def encode_request_withdrawal(asset: bytes, amount: int, *, for_house: bool = False) -> bytes:
    """Calldata of request_withdrawal; amount in base units."""
    return encode_call("request_withdrawal(bytes32,uint256,bool)", asset, amount, for_house)


def encode_claim(account: bytes, asset: bytes) -> bytes:
    """Calldata of claim."""
    return encode_call("claim(bytes32,bytes32)", account, asset)


def encode_pause(signature: bytes) -> bytes:
    """Calldata of pause; signature of one operator, 65 bytes."""
    return encode_call("pause(bytes)", signature)


def encode_escape(asset: bytes) -> bytes:
    """Calldata of escape."""
    return encode_call("escape(bytes32)", asset)


def encode_token_args(name: str, symbol: str, decimals: int) -> bytes:
    """Constructor arguments of the demo's ERC-20 token."""
    return bytes(encode_abi(["string", "string", "uint8"], [name, symbol, decimals]))


def encode_mint(receiver: bytes, amount: int) -> bytes:
    """Calldata of the demo token's mint."""
    return encode_call("mint(address,uint256)", receiver, amount)


def encode_approve(spender: bytes, amount: int) -> bytes:
    """Calldata of ERC-20 approve."""
    return encode_call("approve(address,uint256)", spender, amount)


# ---- reverts ----------------------------------------------------------------------------------------------------------

_ERROR_SELECTOR = keccak256(b"Error(string)")[:4]
_PANIC_SELECTOR = keccak256(b"Panic(uint256)")[:4]


def get_revert_reason(data: bytes) -> str:
    """The word of Error(string), "panic", or "" for anything else; printable ASCII of at most 128 bytes."""
    if data[:4] == _PANIC_SELECTOR:
        return "panic"
    if data[:4] != _ERROR_SELECTOR or len(data) < 68:
        return ""
    size = int.from_bytes(data[36:68], "big")
    text = data[68 : 68 + min(size, MAX_REASON_BYTES)].decode("ascii", "replace")
    return text if text.isprintable() else ""
