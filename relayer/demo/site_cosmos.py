"""A simulated Cosmos chain of the demo's world: a CosmWasm vault and a cw20 token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol

from messages.bodies import SeriesDefinition
from relayer.demo.calls import (
    Approve,
    Call,
    Claim,
    Deposit,
    Link,
    ListSeries,
    Mint,
    Offer,
    RequestWithdrawal,
    Take,
)

Funds = Sequence[tuple[str, int]]
"""Coins that go with a call: denom and amount."""


class CosmosPlace(Protocol):
    """What a call needs to know of its site."""

    @property
    def vault_text(self) -> str:
        """Bech32 address of the vault."""

    @property
    def token_text(self) -> str:
        """Bech32 address of the cw20 token."""

    @property
    def asset(self) -> bytes:
        """The token's id at the vault, 32 bytes."""

    def get_text(self, account: bytes) -> str:
        """Bech32 address of an account (32 bytes)."""


def encode_cosmos_call(call: Call, site: CosmosPlace) -> tuple[str, dict[str, Any], Funds]:
    """Contract (bech32), message and coins of a call (contracts/cosmos/README.md)."""
    match call:
        case Mint(receiver, amount):
            return site.token_text, {"mint": {"recipient": site.get_text(receiver), "amount": str(amount)}}, ()
        case Approve(amount):
            allowance = {"spender": site.vault_text, "amount": str(amount)}
            return site.token_text, {"increase_allowance": allowance}, ()
    return site.vault_text, _encode_vault_call(call, site.asset.hex()), ()


def _encode_vault_call(
    call: Deposit | Link | ListSeries | Offer | Take | RequestWithdrawal | Claim, asset: str
) -> dict[str, Any]:
    match call:
        case Deposit(amount, beneficiary):
            return {"deposit": {"asset": asset, "amount": str(amount), "beneficiary": beneficiary.hex()}}
        case Link(portfolio, valid_until, signature):
            link = {"portfolio": portfolio.hex(), "valid_until": valid_until, "signature": signature.hex()}
            return {"link": link}
        case ListSeries(definition):
            return {"list_series": {"definition": _encode_definition(definition)}}
        case Offer(side, series, quantity, premium, valid_until):
            offer = {
                "side": side,
                "series": series.hex(),
                "asset": asset,
                "quantity": str(quantity),
                "premium_per_contract": str(premium),
                "valid_until": valid_until,
            }
            return {"offer": offer}
        case Take(number, quantity, nonce, for_house):
            take = {"offer": number, "quantity": str(quantity), "nonce": nonce, "for_house": for_house}
            return {"take": take}
        case RequestWithdrawal(amount, for_house):
            return {"request_withdrawal": {"asset": asset, "amount": str(amount), "for_house": for_house}}
        case Claim(account):
            return {"claim": {"account": account.hex(), "asset": asset}}


def _encode_definition(definition: SeriesDefinition) -> dict[str, Any]:
    """Names and classes in hex, 256-bit amounts as decimal strings, everything else as numbers."""
    return {
        name: value.hex()
        if isinstance(value, bytes)
        else (str(value) if name in {"strike_e8", "multiplier_e8"} else value)
        for name, value in asdict(definition).items()
    }
