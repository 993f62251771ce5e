"""The demo's world on real nodes: the same users, trades and prices, in wall-clock time.

Only how things are done differs from `relayer.demo.world`: a transaction goes to a node and is waited for, time passes by itself, and
signed prices are written to a file that the operators' feeds read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from messages.canonical import encode_canonical
from messages.digests import get_address
from messages.documents import Parameters, to_object
from messages.hashing import sha256
from messages.ids import encode_name, get_evm_account
from relayer.clock import SystemClock
from relayer.demo.calls import Call
from relayer.demo.market import Line, Reporters, compute_asset_underlying
from relayer.demo.market import Path as PricePath
from relayer.demo.scenario import Scenario
from relayer.demo.site import Site, VaultPlan
from relayer.demo.story import Story, Stuck
from relayer.demo.world import OPERATOR_COUNT, World
from relayer.rules.vault_state import VaultState

PEG_STEP_PPM = 20
STEP_PPM = 300
"""Largest move of the spot price in a minute."""
DELAY_S = 60
PATIENCE_S = 15
TIMEOUT_S = 600
TWAP_S = 60
MINUTE_S = 60
POLL_S = 1.0
LIMIT_S = 420
"""How long one wait of the story may take before the run is stuck."""


def make_live_scenario(plan: Scenario, now: int, expiry_minutes: int, chain_ids: Mapping[str, str]) -> Scenario:
    """The demo's scenario with its times moved to now: expiry in whole minutes, a window of one minute."""
    return replace(
        plan,
        start=now,
        expiry=(now // MINUTE_S + expiry_minutes + 1) * MINUTE_S,
        twap_seconds=TWAP_S,
        step_ppm=STEP_PPM,
        chains=tuple(replace(chain, chain=chain_ids[chain.name]) for chain in plan.chains),
    )


class LiveWorld(World):
    """See the module. ``secret``: 32 bytes that all throw-away keys of the run are derived from."""

    def __init__(self, seed: int, scenario: Scenario, sites: Mapping[str, Site], secret: bytes) -> None:
        # not World.__init__: it builds simulated networks
        self.seed = seed
        self.scenario = scenario
        self.clock = cast("Any", SystemClock())
        self._secret = secret
        self.operator_keys = sorted(
            (sha256(secret + b" operator %d" % i) for i in range(OPERATOR_COUNT)), key=get_address
        )
        self.sites = dict(sites)
        self.vault_parameters = []
        self.transactions = 0
        self.gas_used = 0
        self.work = {name: [0, 0] for name in sites}
        """Users' transactions on each chain, and their gas."""
        self.quote_class = encode_name(scenario.quote_class)
        self.underlying = encode_name(scenario.underlying)
        self.price_source = encode_name(scenario.price_source)
        self.peg_source = encode_name("pegs")
        self.portfolio_key = sha256(secret + b" portfolio")
        self.portfolio = get_evm_account(get_address(self.portfolio_key))

    # ------------------------------------------------------------------ building

    async def build(self) -> None:
        """Fund the wallets, create token and vault on every chain, all chains at once; start the price reporters."""
        await asyncio.gather(*(self._create(site) for site in self.sites.values()))
        # signed parameters list the vaults in one order, whichever was ready first
        order = [site.chain for site in self.sites.values()]
        self.vault_parameters.sort(key=lambda vault: order.index(vault.chain))
        self._start_prices()

    def get_vault_plan(self) -> VaultPlan:
        """The demo's, with a short delay."""
        return replace(super().get_vault_plan(), delay_s=DELAY_S)

    def _start_prices(self) -> None:
        scenario = self.scenario
        start = scenario.start // MINUTE_S * MINUTE_S

        def path(name: str, spot_e8: int, step_ppm: int) -> PricePath:
            return PricePath(f"{name} {self.seed}", start, spot_e8, step_ppm, hold_minutes=1)

        self.spot = path("spot", scenario.spot_e8, scenario.step_ppm)
        lines = [Line(self.price_source, self.underlying, self.spot)]
        lines += [
            Line(self.peg_source, compute_asset_underlying(site.caip19), path(f"peg {site.name}", 10**8, PEG_STEP_PPM))
            for site in self.sites.values()
        ]
        self.reporters = Reporters(self.seed, lines, scenario.volatility_ppm)
        self.reporters.watch_expiry(self.underlying, scenario.expiry)

    def get_parameters(self) -> Parameters:
        """The demo's parameters with the short times of a testnet."""
        found = super().get_parameters()
        families = tuple(replace(f, timeout_s=TIMEOUT_S) for f in found.families)
        return replace(found, patience_s=PATIENCE_S, families=families)

    # ------------------------------------------------------------------ people

    def get_gas_key(self, site: Site, operator: int) -> bytes:
        """The key that pays for an operator's transactions on a chain."""
        return sha256(self._secret + b" gas %d %s" % (operator, site.name.encode()))

    async def act_all(self, site: Site, calls: Sequence[tuple[str, Call]]) -> None:
        """Several transactions of one chain, each waited for; Rejected ("reverted") with the vault's word."""
        for user, call in calls:
            sent = site.send(user, call)
            if sent is None:
                continue
            gas = await asyncio.to_thread(site.finish, sent)
            self.gas_used += gas
            self.transactions += 1
            self.work[site.name][0] += 1
            self.work[site.name][1] += gas

    async def pass_time(self, seconds: float) -> None:
        """Let the wall clock run."""
        await asyncio.sleep(seconds)

    # ------------------------------------------------------------------ prices

    async def write_prices(self, path: Path) -> None:
        """Append the signed reports and marks of each whole minute to a file; runs until it is cancelled."""
        stamp = self.scenario.start // MINUTE_S * MINUTE_S
        while True:
            while stamp <= self.clock.now():
                signed = [*self.reporters.get_reports(stamp), *self.reporters.get_marks(stamp)]
                lines = b"".join(encode_canonical(to_object(s)) + b"\n" for s in signed)
                with path.open("ab") as file:
                    file.write(lines)
                stamp += MINUTE_S
            await asyncio.sleep(POLL_S)


class LiveStory(Story):
    """The demo's story, waiting in real seconds."""

    def __init__(
        self,
        world: LiveWorld,
        get_state: Callable[[bytes], VaultState],
        check: Callable[[], None],
        limit_s: int = LIMIT_S,
    ) -> None:
        super().__init__(world, get_state)
        self._check = check
        self._limit_s = limit_s

    async def until(self, what: str, is_true: Callable[[], bool], limit_minutes: int = 0) -> int:
        """Wait until a proven state shows something; returns the seconds it took (``limit_minutes`` is the demo's)."""
        del limit_minutes
        begin = self.world.clock.now()
        while not is_true():
            self._check()
            if self.world.clock.now() - begin > self._limit_s:
                raise Stuck(f"waited {self._limit_s} s for: {what}")
            await asyncio.sleep(POLL_S)
        return self.world.clock.now() - begin

    async def fund(self) -> None:
        """As the demo's, both chains at once."""
        world, plan = self.world, self.world.scenario

        async def fund_site(site: Site) -> None:
            await world.deposit(site, "treasurer", plan.house_cash, "HOUSE")
            await world.deposit(site, "treasurer", plan.insurance, "INSURANCE")
            for user in plan.users:
                if site.name in user.deposits:
                    await world.deposit(site, user.name, user.deposits[site.name])
                if user.links:
                    await world.link(site, user.name)

        await asyncio.gather(*(fund_site(site) for site in world.sites.values()))
