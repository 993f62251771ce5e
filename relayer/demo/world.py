"""The world of the demo: simulated chains with the real vault, price reporters, users with keys, one virtual clock.

Everything a user does is a signed transaction to the vault's own code; everything the nodes learn they read through their
endpoints. Nothing here constructs a fact or reaches into a node's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chains.evm.codec import (
    compute_evm_vault_id,
    encode_approve,
    encode_call,
    encode_deposit,
    encode_link,
    encode_mint,
    encode_token_args,
    encode_vault_args,
    get_revert_reason,
)
from chains.evm.forks import Preset
from chains.evm.sim import SimNetwork
from contracts.evm import get_artifact
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
from messages.errors import Rejected
from messages.hashing import sha256
from messages.ids import HOUSE, INSURANCE, encode_name, get_evm_account
from relayer.clock import VirtualClock
from relayer.demo.market import Line, Path, Reporters, compute_asset_underlying
from relayer.demo.scenario import Scenario

OPERATOR_COUNT = 4
THRESHOLD = 3
DECIMALS = 6
UNIT = 10**DECIMALS
SLOT_S = 12
DELAY_S = 86_400
PEG_STEP_PPM = 40
CAP_PER_DAY = 20_000_000 * UNIT
LONG_VALID_S = 7 * 86_400
CALL_GAS = 3_000_000
DEMO_PRESET = Preset(slots_per_epoch=32, epochs_per_period=32, committee_size=512)
"""Main-net epochs and committees; shorter periods, so that the story sees the committee change."""


@dataclass
class Site:
    """One chain of the world: network, vault, token. Addresses are 20 bytes, ids 32."""

    name: str
    network: SimNetwork
    chain: str
    vault: bytes
    vault_id: bytes
    token: bytes
    asset: bytes
    caip19: str
    start_height: int


class World:
    """Chains, users and prices of one run; `build` makes it."""

    def __init__(self, seed: int, scenario: Scenario, endpoints: int) -> None:
        self.seed = seed
        self.scenario = scenario
        self.clock = VirtualClock(scenario.start)
        self.operator_keys = sorted(
            (sha256(b"optsettle demo operator %d %d" % (seed, i)) for i in range(OPERATOR_COUNT)), key=get_address
        )
        self.sites: dict[str, Site] = {}
        self.vault_parameters: list[VaultParameters] = []
        self.transactions = 0
        self.gas_used = 0
        for plan in scenario.chains:
            network = SimNetwork(plan.chain_id, self.clock.now, n_endpoints=endpoints, preset=DEMO_PRESET)
            self.sites[plan.name] = Site(
                plan.name, network, f"eip155:{plan.chain_id}", b"", b"", b"", b"", "", network.chain.head.number
            )
        self.quote_class = encode_name(scenario.quote_class)
        self.underlying = encode_name(scenario.underlying)
        self.price_source = encode_name(scenario.price_source)
        self.peg_source = encode_name("pegs")
        self.portfolio_key = sha256(b"optsettle demo portfolio %d" % seed)
        self.portfolio = get_evm_account(get_address(self.portfolio_key))

    # ------------------------------------------------------------------ building

    async def build(self) -> None:
        """Create token and vault on every chain, fund house, insurance and users' wallets; start the price reporters."""
        artifact, token_artifact = get_artifact("vault"), get_artifact("erc20")
        operators = [get_address(key) for key in self.operator_keys]
        for site in self.sites.values():
            deployer = site.network.make_key("deployer")
            treasurer = site.network.make_key("treasurer")
            for user in self.scenario.users:
                site.network.make_key(user.name)
            for i in range(OPERATOR_COUNT):
                site.network.fund(get_address(self.get_gas_key(site, i)))
            await self.pass_time(2 * SLOT_S)
            site.token = await self._deploy(
                site, deployer, token_artifact.bytecode + encode_token_args("Demo Dollar", "USDC", DECIMALS)
            )
            site.asset = get_evm_account(site.token)
            caps = [(site.asset, CAP_PER_DAY // 4, CAP_PER_DAY // 2, CAP_PER_DAY)]
            treasurer_id = get_evm_account(get_address(treasurer))
            args = encode_vault_args(operators, THRESHOLD, treasurer_id, DELAY_S, caps)
            site.vault = await self._deploy(site, deployer, artifact.bytecode + args)
            site.vault_id = compute_evm_vault_id(site.network.chain_id, site.vault)
            site.caip19 = f"{site.chain}/erc20:0x{site.token.hex()}"
            self.vault_parameters.append(
                VaultParameters(
                    chain=site.chain,
                    family="evm",
                    account=get_evm_account(site.vault),
                    operators=tuple(operators),
                    threshold=THRESHOLD,
                    treasurer=treasurer_id,
                    delay_s=DELAY_S,
                    created_at=site.network.chain.head.timestamp,
                    caps=tuple(CapParameters(a, Amount(p), Amount(h), Amount(d)) for a, p, h, d in caps),
                    inventory_limit=Amount(2_000_000 * UNIT),
                )
            )
        self._start_prices()

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
            families=(FamilyParameters("evm", 1_800, 64, 256),),
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

    def get_key(self, site: Site, user: str) -> bytes:
        """A user's key on a chain."""
        return site.network.make_key(user)

    def get_account(self, site: Site, user: str) -> bytes:
        """A user's account at the vault, or HOUSE / INSURANCE."""
        if user in {"HOUSE", "INSURANCE"}:
            return HOUSE if user == "HOUSE" else INSURANCE
        return get_evm_account(get_address(self.get_key(site, user)))

    async def _deploy(self, site: Site, key: bytes, code: bytes) -> bytes:
        sent = site.network.transact(key, None, code, gas=16_000_000)
        await self.pass_time(2 * SLOT_S)
        receipt = site.network.get_receipt(sent)
        if receipt is None or receipt.contract is None:
            raise RuntimeError(f"a contract was not created on {site.name}: {receipt}")
        return receipt.contract

    async def act(self, site: Site, user: str, data: bytes, *, to: bytes | None = None) -> bytes:
        """One transaction by a user, mined; returns what a call with the same data would have returned before it.

        Raises:
            Rejected: reverted, with the vault's word; reason ``reverted``.
        """
        (value,) = await self.act_all(site, [(user, data, to or site.vault)])
        return value

    async def act_all(self, site: Site, calls: Sequence[tuple[str, bytes, bytes]]) -> list[bytes]:
        """Several transactions of one chain into one block; returns their return data."""
        sent = [
            (user, data, to, site.network.transact(self.get_key(site, user), to, data, gas=CALL_GAS))
            for user, data, to in calls
        ]
        await self.pass_time(2 * SLOT_S)
        values = []
        for user, data, _, transaction in sent:
            receipt = site.network.get_receipt(transaction)
            if receipt is None:
                raise RuntimeError(f"a transaction of {user} on {site.name} was not mined")
            if not receipt.succeeded:
                raise Rejected(
                    f"{user} on chain {site.name}: the vault refuses ({get_revert_reason(receipt.output)})",
                    got=data[:4],
                    reason="reverted",
                )
            self.transactions += 1
            self.gas_used += receipt.gas_used
            values.append(receipt.output)
        return values

    async def pass_time(self, seconds: float) -> None:
        """Move the clock; blocks that are due are made, services that are due run."""
        await self.clock.advance(seconds)
        for site in self.sites.values():
            site.network.tick()

    # ------------------------------------------------------------------ what people do

    async def deposit(self, site: Site, user: str, whole: int, beneficiary: str = "") -> None:
        """Mint, approve, deposit whole units of the class."""
        amount = whole * UNIT
        holder = get_address(self.get_key(site, user))
        deployer = site.network.make_key("deployer")
        site.network.transact(deployer, site.token, encode_mint(holder, amount))
        site.network.transact(self.get_key(site, user), site.token, encode_approve(site.vault, amount))
        await self.pass_time(2 * SLOT_S)
        await self.act(site, user, encode_deposit(site.asset, amount, self.get_account(site, beneficiary or user)))

    async def link(self, site: Site, user: str) -> None:
        """Link a user's account on a chain to the world's portfolio."""
        valid_until = self.clock.now() + LONG_VALID_S
        digest = compute_link_digest(site.vault_id, self.get_account(site, user), self.portfolio, valid_until)
        signature = sign_digest(self.portfolio_key, digest)
        await self.act(site, user, encode_link(self.portfolio, valid_until, signature))

    def get_token_balance(self, site: Site, holder: bytes) -> int:
        """Tokens that a 20-byte address owns on chain, in base units."""
        return int.from_bytes(site.network.call(site.token, encode_call("balanceOf(address)", holder)), "big")


def vars_of(record: object) -> dict[str, object]:
    """Fields of a dataclass by name."""
    from dataclasses import fields

    return {f.name: getattr(record, f.name) for f in fields(record)}  # type: ignore[arg-type]  # a dataclass instance
