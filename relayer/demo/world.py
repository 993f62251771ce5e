"""The world of the demo: simulated chains with the real vault, price reporters, users with keys, one virtual clock.

Everything a user does is a signed transaction to the vault's own code; everything the nodes learn they read through their
endpoints. Nothing here constructs a fact or reaches into a node's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from messages.bodies import SeriesDefinition, compute_series_id
from messages.digests import compute_link_digest, get_address, sign_digest
from messages.documents import (
    Amount,
    AssetParameters,
    CapParameters,
    ClassParameters,
    FamilyParameters,
    LiquidationParameters,
    ModelParameter,
    Parameters,
    UnderlyingParameters,
    VaultParameters,
)
from messages.hashing import sha256
from messages.ids import encode_name, get_evm_account
from relayer.clock import VirtualClock
from relayer.demo.calls import Approve, Call, Deposit, Link, Mint
from relayer.demo.market import Line, Path, Reporters, compute_asset_underlying
from relayer.demo.scenario import ChainPlan, Scenario
from relayer.demo.site import DEPLOYER, TREASURER, Site, VaultPlan

OPERATOR_COUNT = 4
THRESHOLD = 3
DECIMALS = 6
UNIT = 10**DECIMALS
DELAY_S = 86_400
PEG_STEP_PPM = 40
CAP_PER_DAY = 20_000_000 * UNIT
LONG_VALID_S = 7 * 86_400
FAMILIES: Mapping[str, FamilyParameters] = {
    "evm": FamilyParameters("evm", timeout_s=1_800, max_legs=64, max_items=256),
    "cosmos": FamilyParameters("cosmos", timeout_s=300, max_legs=128, max_items=256),
    "solana": FamilyParameters("solana", timeout_s=300, max_legs=12, max_items=7),
}
"""Timeout and packing of each family (protocol.md 7.7 and 11)."""


def _make_evm_site(plan: ChainPlan, clock: Callable[[], float], endpoints: int) -> Site:
    from relayer.demo.site_evm import EvmSite

    return EvmSite(plan.name, int(plan.chain.partition(":")[2]), clock, endpoints)


def _make_cosmos_site(plan: ChainPlan, clock: Callable[[], float], endpoints: int) -> Site:
    from relayer.demo.site_cosmos import CosmosSite

    return CosmosSite(plan.name, plan.chain.partition(":")[2], clock, endpoints)


def _make_solana_site(plan: ChainPlan, clock: Callable[[], float], endpoints: int) -> Site:
    from relayer.demo.site_solana import SolanaSite

    return SolanaSite(plan.name, plan.chain.partition(":")[2], clock, endpoints)


SITES: Mapping[str, Callable[[ChainPlan, Callable[[], float], int], Site]] = {
    "evm": _make_evm_site,
    "cosmos": _make_cosmos_site,
    "solana": _make_solana_site,
}


class World:
    """Chains, users and prices of one run; `build` makes it."""

    def __init__(self, seed: int, scenario: Scenario, endpoints: int) -> None:
        self.seed = seed
        self.scenario = scenario
        self.clock = VirtualClock(scenario.start)
        self.operator_keys = sorted(
            (sha256(b"optsettle demo operator %d %d" % (seed, i)) for i in range(OPERATOR_COUNT)), key=get_address
        )
        self.sites: dict[str, Site] = {
            plan.name: SITES[plan.family](plan, self.clock.now, endpoints) for plan in scenario.chains
        }
        self.vault_parameters: list[VaultParameters] = []
        self.transactions = 0
        self.gas_used = 0
        self.quote_class = encode_name(scenario.quote_class)
        self.underlying = encode_name(scenario.underlying)
        self.price_source = encode_name(scenario.price_source)
        self.peg_source = encode_name("pegs")
        self.portfolio_key = sha256(b"optsettle demo portfolio %d" % seed)
        self.portfolio = get_evm_account(get_address(self.portfolio_key))

    # ------------------------------------------------------------------ building

    async def build(self) -> None:
        """Create token and vault on every chain, fund house, insurance and users' wallets; start the price reporters."""
        for site in self.sites.values():
            await self._create(site)
        self._start_prices()

    async def _create(self, site: Site) -> None:
        plan = self.get_vault_plan()
        gas_keys = [self.get_gas_key(site, i) for i in range(OPERATOR_COUNT)]
        await site.create(plan, [user.name for user in self.scenario.users], gas_keys, self.pass_time)
        per_packet, per_hour, per_day = plan.caps
        self.vault_parameters.append(
            VaultParameters(
                chain=site.chain,
                family=site.family,
                account=site.account,
                operators=plan.operators,
                threshold=plan.threshold,
                treasurer=site.get_account(TREASURER),
                delay_s=plan.delay_s,
                created_at=site.created_at,
                caps=(CapParameters(site.asset, Amount(per_packet), Amount(per_hour), Amount(per_day)),),
                inventory_limit=Amount(2_000_000 * UNIT),
            )
        )

    def get_vault_plan(self) -> VaultPlan:
        """What every vault of the world is created with."""
        operators = tuple(get_address(key) for key in self.operator_keys)
        return VaultPlan(operators, THRESHOLD, DELAY_S, (CAP_PER_DAY // 4, CAP_PER_DAY // 2, CAP_PER_DAY), DECIMALS)

    def _start_prices(self) -> None:
        start = self.scenario.start // 60 * 60
        lines = [
            Line(
                self.price_source,
                self.underlying,
                Path(f"spot {self.seed}", start, self.scenario.spot_e8, self.scenario.step_ppm),
            )
        ]
        lines += [
            Line(
                self.peg_source,
                compute_asset_underlying(site.caip19),
                Path(f"peg {site.name} {self.seed}", start, 10**8, PEG_STEP_PPM),
            )
            for site in self.sites.values()
        ]
        self.spot = lines[0].path
        self.reporters = Reporters(self.seed, lines, self.scenario.volatility_ppm)
        self.reporters.watch_expiry(self.underlying, self.scenario.expiry)

    def get_parameters(self) -> Parameters:
        """The document that the operators' quorum would have signed."""
        from relayer.rules.margin.srm import MAIN_NET

        model = tuple(ModelParameter(name, str(value)) for name, value in sorted(vars_of(MAIN_NET).items()))
        return Parameters(
            version=1,
            effective=self.scenario.start,
            patience_s=60,
            heartbeat_s=7 * 86_400,
            price_signers=self.reporters.addresses,
            price_threshold=2,
            vaults=tuple(self.vault_parameters),
            assets=tuple(
                AssetParameters(
                    caip19=site.caip19,
                    vault_id=site.vault_id,
                    asset=site.asset,
                    quote_class=self.quote_class,
                    decimals=DECIMALS,
                    price_source=self.peg_source,
                    peg_low_e8=Amount(98 * 10**6),
                    peg_high_e8=Amount(102 * 10**6),
                    haircut_ppm=0,
                    stale_haircut_ppm_per_hour=10_000,
                    lift_limit=Amount(1_000_000 * UNIT),
                )
                for site in self.sites.values()
            ),
            classes=(
                ClassParameters(
                    quote_class=self.quote_class,
                    decimals=DECIMALS,
                    minimum_notional=Amount(10 * UNIT),
                    house_due_haircut_ppm=0,
                ),
            ),
            underlyings=(UnderlyingParameters(self.underlying, self.price_source, "srm", model),),
            families=tuple(FAMILIES[family] for family in sorted({site.family for site in self.sites.values()})),
            liquidation=LiquidationParameters(discount_ppm=50_000, step_ppm=700_000),
        )

    def get_series(self) -> SeriesDefinition:
        """The call that is traded on every chain; equal definitions have equal ids."""
        return SeriesDefinition(
            underlying=self.underlying,
            expiry=self.scenario.expiry,
            strike_e8=self.scenario.strike_e8,
            right=1,
            quote_class=self.quote_class,
            multiplier_e8=10**8,
            price_source=self.price_source,
            twap_seconds=self.scenario.twap_seconds,
        )

    def get_series_id(self) -> bytes:
        """Id of `get_series`."""
        return compute_series_id(self.get_series())

    # ------------------------------------------------------------------ people

    def get_gas_key(self, site: Site, operator: int) -> bytes:
        """The key that pays for an operator's transactions on a chain; not its operator key."""
        return sha256(b"optsettle demo gas %d %d %s" % (self.seed, operator, site.name.encode()))

    async def act(self, site: Site, user: str, call: Call) -> None:
        """One transaction by a user, mined.

        Raises:
            Rejected: reverted, with the vault's word; reason ``reverted``.
        """
        await self.act_all(site, [(user, call)])

    async def act_all(self, site: Site, calls: Sequence[tuple[str, Call]]) -> None:
        """Several transactions of one chain into one block; errors as `act`."""
        sent = [site.send(user, call) for user, call in calls]
        await self.pass_time(site.settle_s)
        for one in sent:
            if one is not None:
                self.gas_used += site.finish(one)
                self.transactions += 1

    async def pass_time(self, seconds: float) -> None:
        """Move the clock; blocks that are due are made, services that are due run."""
        await self.clock.advance(seconds)
        for site in self.sites.values():
            site.tick()

    # ------------------------------------------------------------------ what people do

    async def deposit(self, site: Site, user: str, whole: int, beneficiary: str = "") -> None:
        """Mint, approve, deposit whole units of the class."""
        amount = whole * UNIT
        await self.act_all(site, [(DEPLOYER, Mint(site.get_account(user), amount)), (user, Approve(amount))])
        await self.act(site, user, Deposit(amount, site.get_account(beneficiary or user)))

    async def link(self, site: Site, user: str) -> None:
        """Link a user's account on a chain to the world's portfolio."""
        valid_until = self.clock.now() + LONG_VALID_S
        digest = compute_link_digest(site.vault_id, site.get_account(user), self.portfolio, valid_until)
        signature = sign_digest(self.portfolio_key, digest)
        await self.act(site, user, Link(self.portfolio, valid_until, signature))


def vars_of(record: object) -> dict[str, object]:
    """Fields of a dataclass by name."""
    from dataclasses import fields

    return {f.name: getattr(record, f.name) for f in fields(record)}  # type: ignore[arg-type]  # a dataclass instance
