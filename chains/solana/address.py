"""Names of the Solana family: base58 keys and the CAIP-2 name of a cluster. Pure.

Inside the product an account is 32 bytes; the text form belongs to people and to the cluster's JSON-RPC.

Source: CAIP-2 namespace "solana" (the first 32 characters of the genesis hash in base58).
"""

from __future__ import annotations

import re

import base58

from messages.errors import Rejected

KEY_BYTES = 32
SIGNATURE_BYTES = 64
NAME_CHARACTERS = 32
_BASE58 = re.compile(r"[1-9A-HJ-NP-Za-km-z]*")
_CHAIN = re.compile(r"solana:[1-9A-HJ-NP-Za-km-z]{32}")


def encode_base58(data: bytes) -> str:
    """Return the base58 text of bytes (Bitcoin's alphabet)."""
    return base58.b58encode(data).decode()


def decode_base58(text: object, max_bytes: int) -> bytes:
    """Return the bytes of a base58 text of at most ``max_bytes``; Rejected ("bad_base58", "size").

    The length is judged first: the work grows with its square.
    """
    if not isinstance(text, str) or _BASE58.fullmatch(text) is None:
        raise Rejected("not base58", got=str(text)[:100], reason="bad_base58")
    if len(text) > max_bytes * 11 // 8 + 1:
        raise Rejected("a base58 text is too long", got=len(text), expected=f"<= {max_bytes} bytes", reason="size")
    data = base58.b58decode(text)
    if len(data) > max_bytes:
        raise Rejected("a base58 text is too long", got=len(data), expected=f"<= {max_bytes} bytes", reason="size")
    return data


def encode_key(key: bytes) -> str:
    """Return the text of a public key, an account or a hash; Rejected ("bad_address") unless it has 32 bytes."""
    if len(key) != KEY_BYTES:
        raise Rejected("a key of this family has 32 bytes", got=key, reason="bad_address")
    return encode_base58(key)


def decode_key(text: object) -> bytes:
    """Return the 32 bytes of a key's text; Rejected ("bad_address")."""
    return _decode_exactly(text, KEY_BYTES, "bad_address")


def decode_signature(text: object) -> bytes:
    """Return the 64 bytes of a transaction's first signature, its id; Rejected ("bad_signature")."""
    return _decode_exactly(text, SIGNATURE_BYTES, "bad_signature")


def _decode_exactly(text: object, size: int, reason: str) -> bytes:
    try:
        data = decode_base58(text, size)
    except Rejected as error:
        raise Rejected(error.what, got=error.got, expected=f"{size} bytes in base58", reason=reason) from error
    if len(data) != size:
        raise Rejected("base58 of another length", got=len(data), expected=size, reason=reason)
    return data


def compute_chain_name(genesis: bytes) -> str:
    """Return the CAIP-2 name of the cluster with a genesis hash (32 bytes); Rejected ("bad_address")."""
    return "solana:" + encode_key(genesis)[:NAME_CHARACTERS]


def is_chain_name(chain: str) -> bool:
    """Ask whether a text is the CAIP-2 name of a cluster."""
    return _CHAIN.fullmatch(chain) is not None


def parse_vault(text: str) -> bytes:
    """Return the 32-byte state account of a vault: base58, or 0x and 64 hex digits; Rejected ("bad_address")."""
    key = bytes.fromhex(text[2:]) if re.fullmatch(r"0x[0-9a-f]{64}", text) else decode_key(text)
    if not any(key):
        raise Rejected("a vault's account is not zero", got=text, reason="bad_address")
    return key
