"""The scenario file of the demo: TOML in, frozen dataclasses out; the seed varies it."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.resources import files
from typing import Any

from messages.errors import Rejected

PPM = 1_000_000
SIM_CHAINS: Mapping[str, str] = {
    "evm": "eip155:3133{}",
    "cosmos": "cosmos:optsettle-{}",
    "solana": "solana:optsettle-{}",
}
"""CAIP-2 ids of simulated chains by family; the number differs from chain to chain. One of Solana is named after the hash of its genesis, so
there the part after the colon is only what the genesis is made from."""
MIN_CHAINS = 2
VARIATION_PPM = 60_000
"""Premiums and the opening price differ by up to this much from seed to seed."""


@dataclass(frozen=True)
class ChainPlan:
    """A chain of the story: its name there, its family, and its CAIP-2 id (see `SIM_CHAINS`)."""

    name: str
    family: str
    chain: str


@dataclass(frozen=True)
class User:
    """Somebody who deposits whole units of the class on chains, by chain name."""

    name: str
    deposits: Mapping[str, int]
    links: bool


@dataclass(frozen=True)
class Trade:
    """An offer by the seller that the buyer takes; premium in 1e-6 of the class per contract."""

    name: str
    chain: str
    seller: str
    buyer: str
    contracts: int
    premium_units: int
    is_refused: bool


@dataclass(frozen=True)
class Withdrawal:
    """A request that is larger than the cash there; whole units."""

    user: str
    chain: str
    amount: int


@dataclass(frozen=True)
class Scenario:
    """See configs/demo/scenario.toml; prices in 1e-8, amounts in whole units of the class."""

    start: int
    expiry: int
    underlying: str
    price_source: str
    spot_e8: int
    volatility_ppm: int
    step_ppm: int
    shock_ppm: int
    quote_class: str
    twap_seconds: int
    strike_e8: int
    chains: tuple[ChainPlan, ...]
    house_cash: int
    insurance: int
    users: tuple[User, ...]
    trades: tuple[Trade, ...]
    withdrawal: Withdrawal


def load_scenario(seed: int, families: Sequence[str] = ()) -> Scenario:
    """The scenario of a seed: the file, with premiums and the opening price varied.

    ``families`` replaces those of the file's chains, in their order. Fewer of them tell the same story on fewer chains: what would happen on
    a chain that is left out happens on the last that is there, and nobody deposits there twice for it.

    Raises:
        Rejected: the file lacks a key or a value is of the wrong kind; names it.
    """
    raw = tomllib.loads((files("configs.demo") / "scenario.toml").read_text())
    try:
        plan = _parse(raw, families)
    except KeyError as error:
        raise Rejected(f"the scenario lacks the key {error}", reason="scenario") from error
    except (TypeError, ValueError) as error:
        raise Rejected(f"the scenario has an unsound value: {error}", reason="scenario") from error
    return _vary(plan, random.Random(f"scenario {seed}"))  # noqa: S311  a story, not a secret


def _parse(raw: dict[str, Any], families: Sequence[str]) -> Scenario:
    start = int(datetime.fromisoformat(raw["start"]).timestamp())
    chains = _parse_chains(raw["chains"], families)
    names = [chain.name for chain in chains]
    place = {table["name"]: names[min(i, len(names) - 1)] for i, table in enumerate(raw["chains"])}
    return Scenario(
        start=start,
        expiry=start // 3600 * 3600 + raw["expiry_hours"] * 3600,
        underlying=raw["underlying"],
        price_source=raw["price_source"],
        spot_e8=int(raw["spot"]) * 10**8,
        volatility_ppm=raw["volatility_ppm"],
        step_ppm=raw["step_ppm"],
        shock_ppm=raw["shock_ppm"],
        quote_class=raw["quote_class"],
        twap_seconds=raw["twap_seconds"],
        strike_e8=int(raw["strike"]) * 10**8,
        chains=chains,
        house_cash=raw["house"]["cash"],
        insurance=raw["house"]["insurance"],
        users=tuple(User(u["name"], _place(u["deposits"], place), u.get("links", False)) for u in raw["users"]),
        trades=tuple(
            Trade(
                t["name"],
                place[t["chain"]],
                t["seller"],
                t["buyer"],
                t["contracts"],
                int(t["premium"]) * 10**6,
                t.get("refused", False),
            )
            for t in raw["trades"]
        ),
        withdrawal=Withdrawal(
            raw["withdrawal"]["user"], place[raw["withdrawal"]["chain"]], raw["withdrawal"]["amount"]
        ),
    )


def _place(deposits: Mapping[str, int], place: Mapping[str, str]) -> dict[str, int]:
    """Deposits by the chains that are there; of several that fall on one, the first."""
    placed: dict[str, int] = {}
    for chain, amount in deposits.items():
        placed.setdefault(place[chain], amount)
    return placed


def _parse_chains(raw: Sequence[Mapping[str, Any]], families: Sequence[str]) -> tuple[ChainPlan, ...]:
    if families and not MIN_CHAINS <= len(families) <= len(raw):
        raise Rejected(
            "the story plays on another number of chains",
            got=",".join(families),
            expected=f"{MIN_CHAINS} to {len(raw)} families",
            reason="scenario",
        )
    plans = []
    for number, table in enumerate(raw[: len(families)] if families else raw):
        family = families[number] if families else table["family"]
        if family not in SIM_CHAINS:
            raise Rejected(
                "no simulated chain of this family", got=family, expected=sorted(SIM_CHAINS), reason="scenario"
            )
        plans.append(ChainPlan(table["name"], family, SIM_CHAINS[family].format(number + 7)))
    return tuple(plans)


def _vary(plan: Scenario, dice: random.Random) -> Scenario:
    def vary(value: int, step: int) -> int:
        return value * (PPM + dice.randint(-VARIATION_PPM // 4, VARIATION_PPM)) // PPM // step * step

    return replace(
        plan,
        spot_e8=plan.spot_e8 * (PPM + dice.randint(-5_000, 5_000)) // PPM // 10**6 * 10**6,
        trades=tuple(replace(t, premium_units=vary(t.premium_units, 10_000)) for t in plan.trades),
    )
