"""Prices of gas as the Cosmos family writes them: "0.025utoken". Pure; exact."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from messages.errors import Rejected

MAX_TEXT = 4096
_PRICE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)([a-zA-Z][a-zA-Z0-9/:._-]{1,127})")


@dataclass(frozen=True)
class GasPrice:
    """Base units of ``denom`` for one unit of gas."""

    amount: Fraction
    denom: str

    def get_fee(self, gas: int) -> int:
        """Base units for an amount of gas, rounded up."""
        return -(-gas * self.amount.numerator // self.amount.denominator)

    def __str__(self) -> str:
        """Like what was parsed, for people."""
        amount = Decimal(self.amount.numerator) / Decimal(self.amount.denominator)
        return f"{amount:f}{self.denom}"


@dataclass(frozen=True)
class GasPolicy:
    """Limits of the operator: what a unit of gas is paid with, at least and at most (same denomination), and gas of one transaction."""

    price: GasPrice
    max_price: GasPrice
    gas_cap: int = 25_000_000

    def __post_init__(self) -> None:
        if self.price.denom != self.max_price.denom or self.price.amount > self.max_price.amount:
            raise Rejected(
                "gas_price and max_gas_price name one denomination, and the first is not the higher one",
                got=f"{self.price} and {self.max_price}",
                reason="bad_config",
            )


def parse_gas_price(text: str) -> GasPrice:
    """Return the price in an operator's configuration; Rejected ("bad_config")."""
    match = _PRICE.fullmatch(text)
    if match is None:
        raise Rejected("not a gas price", got=text[:200], expected='for example "0.025utoken"', reason="bad_config")
    return GasPrice(Fraction(match[1]), match[2])


def parse_minimum_price(text: str, denom: str) -> Fraction:
    """Return what a node asks for in a denomination, from its list of minimum prices; 0 where the list does not name it."""
    if len(text) > MAX_TEXT:
        return Fraction(0)
    found = [match for part in text.split(",") if (match := _PRICE.fullmatch(part.strip()))]
    return next((Fraction(match[1]) for match in found if match[2] == denom), Fraction(0))
