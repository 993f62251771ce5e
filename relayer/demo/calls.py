"""What a user asks of a vault or of its token, in words that every family shares (protocol.md 4.1).

A site of a family turns a call into its chain's own transaction; nobody else knows how. Ids are 32 bytes, amounts base units,
quantities 1e-8 contracts, times unix seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from messages.bodies import SeriesDefinition


@dataclass(frozen=True)
class Mint:
    """The token's own: new tokens for an account."""

    receiver: bytes
    amount: int


@dataclass(frozen=True)
class Approve:
    """The token's own: the vault may take so many."""

    amount: int


@dataclass(frozen=True)
class Deposit:
    """``deposit`` of the site's asset."""

    amount: int
    beneficiary: bytes


@dataclass(frozen=True)
class Link:
    """``link``; signature r || s || v, 65 bytes."""

    portfolio: bytes
    valid_until: int
    signature: bytes


@dataclass(frozen=True)
class ListSeries:
    """``list_series``."""

    definition: SeriesDefinition


@dataclass(frozen=True)
class Offer:
    """``offer`` in the site's asset; side 0 the maker buys, 1 the maker sells."""

    side: int
    series: bytes
    quantity: int
    premium: int
    valid_until: int


@dataclass(frozen=True)
class Take:
    """``take`` of an offer by its number."""

    offer: int
    quantity: int
    nonce: int
    for_house: bool = False


@dataclass(frozen=True)
class RequestWithdrawal:
    """``request_withdrawal`` of the site's asset."""

    amount: int
    for_house: bool = False


@dataclass(frozen=True)
class Claim:
    """``claim`` of the site's asset for an account."""

    account: bytes


Call = Mint | Approve | Deposit | Link | ListSeries | Offer | Take | RequestWithdrawal | Claim
