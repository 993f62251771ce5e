"""Names of things: chains, accounts, assets, series, portfolios, vaults, operators (protocol.md 4, vault.md 1).

Inside the protocol every account, asset, series and portfolio is 32 bytes. The CAIP texts are for people and configuration;
they are parsed strictly and with limits, because they come from outside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

from messages.errors import Rejected
from messages.hashing import keccak256

ChainId = NewType("ChainId", str)  # CAIP-2, for example "eip155:1"
Digest = NewType("Digest", bytes)  # 32 bytes
AccountId = NewType("AccountId", bytes)  # 32 bytes
AssetId = NewType("AssetId", bytes)  # 32 bytes
SeriesId = NewType("SeriesId", bytes)  # 32 bytes
PortfolioId = NewType("PortfolioId", bytes)  # 32 bytes
VaultId = NewType("VaultId", bytes)  # 32 bytes
OperatorId = NewType("OperatorId", bytes)  # 20 bytes, an Ethereum address

ZERO32 = bytes(32)
ZERO20 = bytes(20)
UINT64_MAX = 2**64 - 1

HOUSE = AccountId(keccak256(b"optsettle/house"))
INSURANCE = AccountId(keccak256(b"optsettle/insurance"))

_CHAIN = r"[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}"
_CAIP2 = re.compile(_CHAIN)
_CAIP10 = re.compile(rf"({_CHAIN}):([-.%a-zA-Z0-9]{{1,128}})")
_CAIP19 = re.compile(rf"({_CHAIN})/([-a-z0-9]{{3,8}}):([-.%a-zA-Z0-9]{{1,128}})")
_MAX_CAIP_CHARACTERS = 200

# abi.encode(string "optsettle/due", bytes32 class): offset, class, length, text padded to a word
_DUE_TEXT = b"optsettle/due"
_DUE_HEAD = (64).to_bytes(32, "big")
_DUE_TAIL = len(_DUE_TEXT).to_bytes(32, "big") + _DUE_TEXT.ljust(32, b"\0")


@dataclass(frozen=True, slots=True)
class Caip10:
    """An account on a chain as text (CAIP-10)."""

    chain: ChainId
    address: str

    def __str__(self) -> str:
        return f"{self.chain}:{self.address}"


@dataclass(frozen=True, slots=True)
class Caip19:
    """A fungible asset on a chain as text (CAIP-19 without token id)."""

    chain: ChainId
    namespace: str
    reference: str

    def __str__(self) -> str:
        return f"{self.chain}/{self.namespace}:{self.reference}"


def parse_chain_id(text: str) -> ChainId:
    """Return ``text`` as a CAIP-2 chain id; Rejected ("bad_chain_id") if it is not one."""
    if len(text) > _MAX_CAIP_CHARACTERS or _CAIP2.fullmatch(text) is None:
        raise Rejected("not a CAIP-2 chain id", got=text, expected="for example eip155:1", reason="bad_chain_id")
    return ChainId(text)


def parse_account_id(text: str) -> Caip10:
    """Split a CAIP-10 account id; Rejected ("bad_account_id") if it is not one."""
    match = _CAIP10.fullmatch(text) if len(text) <= _MAX_CAIP_CHARACTERS else None
    if match is None:
        raise Rejected("not a CAIP-10 account id", got=text, expected="chain:address", reason="bad_account_id")
    return Caip10(ChainId(match[1]), match[2])


def parse_asset_id(text: str) -> Caip19:
    """Split a CAIP-19 asset id (no token id); Rejected ("bad_asset_id") if it is not one."""
    match = _CAIP19.fullmatch(text) if len(text) <= _MAX_CAIP_CHARACTERS else None
    if match is None:
        raise Rejected("not a CAIP-19 asset id", got=text, expected="chain/namespace:ref", reason="bad_asset_id")
    return Caip19(ChainId(match[1]), match[2], match[3])


def get_evm_account(address: bytes) -> AccountId:
    """Left-pad a 20-byte address to the 32 bytes of the protocol; Rejected ("bad_address") on another length."""
    if len(address) != 20:
        raise Rejected("an EVM address has 20 bytes", got=address, reason="bad_address")
    return AccountId(bytes(12) + address)


def get_evm_address(account: bytes) -> bytes:
    """Return the 20-byte address in a left-padded id; Rejected ("bad_address") if the upper 12 bytes are not zero."""
    if len(account) != 32 or account[:12] != ZERO32[:12]:
        raise Rejected("not an EVM account: upper 12 bytes must be zero", got=account, reason="bad_address")
    return account[12:]


def get_vault_client(vault_id: bytes) -> str:
    """Return the vault's client id: "vault-" and the first 16 hex digits of its id (protocol.md 2)."""
    return "vault-" + vault_id[:8].hex()


def compute_due_id(quote_class: bytes) -> SeriesId:
    """Return keccak256(abi.encode("optsettle/due", class)), the built-in series of a currency (protocol.md 4.3)."""
    if len(quote_class) != 32:
        raise Rejected("a quote class has 32 bytes", got=quote_class, reason="bad_name")
    return SeriesId(keccak256(_DUE_HEAD + quote_class + _DUE_TAIL))


@lru_cache(maxsize=65_536)
def compute_own_portfolio(vault_id: bytes, account: bytes) -> PortfolioId:
    """Return the portfolio of an account without a link: keccak256(vault id || account) (protocol.md 6).

    Rejected ("bad_account") unless both have 32 bytes: joined without lengths, other widths would collide.
    """
    if len(vault_id) != 32 or len(account) != 32:
        raise Rejected("a vault id and an account have 32 bytes each", got=account, reason="bad_account")
    return PortfolioId(keccak256(vault_id + account))


def compute_denom_asset(denom: str) -> AssetId:
    """Return keccak256(denom), the asset id of a Cosmos bank coin (vault.md 1). Judges nothing: the vault does."""
    return AssetId(keccak256(denom.encode()))


def encode_name(name: str) -> bytes:
    """Right-pad a printable ASCII name (underlying, class, source) to 32 bytes; Rejected ("bad_name") otherwise."""
    if not 1 <= len(name) <= 32 or not name.isascii() or not name.isprintable():
        raise Rejected("a name is 1 to 32 printable ASCII characters", got=name, reason="bad_name")
    return name.encode().ljust(32, b"\0")


def decode_name(name: bytes) -> str:
    """Return the text of a right-padded name; Rejected ("bad_name") if the bytes are not exactly one encoding."""
    text = name.rstrip(b"\0").decode("latin-1")
    if len(name) != 32 or not text or not text.isascii() or not text.isprintable():
        raise Rejected("not a right-padded printable ASCII name", got=name, reason="bad_name")
    return text
