"""Names of the Cosmos family: bech32 addresses and the CAIP-2 name of a chain. Pure.

Inside the product an account is 32 bytes: contract addresses have 32, key addresses 20 and are left-padded (protocol.md 4). The text form
belongs to people and to the chain's messages.

Source: BIP-173; ADR-028 of the Cosmos SDK; CAIP-2 namespace "cosmos".
"""

from __future__ import annotations

import re
from hashlib import sha256

from bech32 import bech32_decode, bech32_encode, convertbits

from messages.errors import Rejected

MAX_TEXT = 90
"""BIP-173's own limit; the longest address here (a prefix of 16 and 32 bytes) has 75 characters."""
_PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}")
_PLAIN_CHAIN = re.compile(r"[-a-zA-Z0-9]{1,32}")
_HASHED = "hashed-"


def is_valid_prefix(prefix: str) -> bool:
    """Ask whether a text can stand before the "1" of a chain's addresses."""
    return _PREFIX.fullmatch(prefix) is not None


def encode_address(data: bytes, prefix: str) -> str:
    """Return the bech32 text of a 20- or 32-byte address; Rejected ("bad_address") for another size or a prefix that is none."""
    if len(data) not in (20, 32) or not is_valid_prefix(prefix):
        raise Rejected("an address of this family has 20 or 32 bytes", got=data, reason="bad_address")
    words = convertbits(data, 8, 5)
    if words is None:
        raise AssertionError("bytes always regroup")
    return bech32_encode(prefix, words)


def decode_address(text: str, prefix: str) -> bytes:
    """Return the 20 or 32 bytes of a bech32 address of a chain; Rejected ("bad_address") unless it is the one text of them."""
    found, words = bech32_decode(text) if len(text) <= MAX_TEXT else (None, None)
    if found != prefix or words is None:
        raise Rejected(
            "not an address of this chain, or mistyped", got=text[:100], expected=f"{prefix}1...", reason="bad_address"
        )
    data = bytes(convertbits(words, 5, 8, False) or ())
    if encode_address(data, prefix) != text:
        raise Rejected("not the one text of this address", got=text, reason="bad_address")
    return data


def get_account(address: bytes) -> bytes:
    """Return the 32-byte account of a 20- or 32-byte address; Rejected ("bad_address")."""
    if len(address) not in (20, 32):
        raise Rejected("an address of this family has 20 or 32 bytes", got=address, reason="bad_address")
    return address.rjust(32, b"\0")


def compute_chain_name(comet_chain_id: str) -> str:
    """Return the CAIP-2 name of a chain: its own id where that fits, else "hashed-" and 16 hex digits of its SHA-256."""
    is_plain = _PLAIN_CHAIN.fullmatch(comet_chain_id) and not comet_chain_id.startswith(_HASHED)
    digest = sha256(comet_chain_id.encode()).hexdigest()[:16]
    return "cosmos:" + (comet_chain_id if is_plain else _HASHED + digest)


def get_comet_chain_id(chain: str, told: str | None = None) -> str:
    """Return the chain's own id behind a CAIP-2 name.

    Args:
        chain: CAIP-2, "cosmos:...".
        told: the id by the operator's word: needed where the name holds only its hash.

    Raises Rejected: "bad_config" where the name is of another family, or is not the name of that id.
    """
    found = told if told is not None else chain.removeprefix("cosmos:")
    if compute_chain_name(found) != chain:
        raise Rejected(
            "not a chain of the Cosmos family, or not its name: a hashed name needs chain_id in the settings",
            got=chain,
            expected=compute_chain_name(found) if told is not None else "cosmos:<chain id>",
            reason="bad_config",
        )
    return found
