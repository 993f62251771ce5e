"""The story of the demo (data.md 6), chapter by chapter, at fixed instants of virtual time.

Chapters begin at fixed times so that a run with faults makes its decisions at the same prices as one without, and must end in
the same balances. Each chapter waits for proofs, never for a transaction to "succeed".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from messages.bodies import Execute, LegKind, SeriesDefinition, compute_series_id
from messages.ids import HOUSE, compute_due_id
from messages.outbox import Fact
from relayer.demo.calls import Claim, ListSeries, Offer, RequestWithdrawal, Take
from relayer.demo.scenario import Trade, User
from relayer.demo.site import DEPLOYER, TREASURER, Site
from relayer.demo.world import UNIT, World
from relayer.rules.vault_state import VaultState

MINUTE_S = 60
STEP_S = 60
E8 = 10**8
MAX_ROUNDS = 6


class Stuck(RuntimeError):
    """The story waited for something that did not happen: a bug, and the demo must not pretend otherwise."""


@dataclass(frozen=True)
class Settlement:
    """What the end of a series moved, in base units of the class, and what it would have moved chain by chain; price in 1e-8."""

    price_e8: int
    gross: int
    net: int
    moved: int
    packets: int
    legs: int


def measure_settlement(facts: Iterable[Fact], held: Iterable[Sequence[int]], series: SeriesDefinition) -> Settlement:
    """Measure the settlement of a call with a multiplier of one.

    Args:
        facts: that came after the expiry, of every vault.
        held: positions before, one list a portfolio with one entry a place, in 1e-8 contracts.
        series: what expired.

    Raises:
        Stuck: no packet among the facts settled it.
    """
    series_id = compute_series_id(series)
    moved = legs = packets = price = 0
    for fact in facts:
        body = fact.inbox_body
        if not isinstance(body, Execute) or not any(p.series == series_id for p in body.prices):
            continue
        packets += 1
        legs += len(body.legs)
        price = next(p.price_e8 for p in body.prices if p.series == series_id)
        moved += sum(leg.delta for leg in body.legs if leg.kind == LegKind.CASH and leg.delta > 0)
    if not price:
        raise Stuck("no settlement price is on record")
    payoff = max(0, price - series.strike_e8)
    portfolios = list(held)
    gross = sum(abs(q) for places in portfolios for q in places) * payoff * UNIT // (E8 * E8) // 2
    net = sum(abs(sum(places)) for places in portfolios) * payoff * UNIT // (E8 * E8) // 2
    return Settlement(price, gross, net, moved, packets, legs)


class Story:
    """Tells the story in a world whose nodes run; ``state`` reads one honest node's fold."""

    def __init__(self, world: World, get_state: Callable[[bytes], VaultState]) -> None:
        self.world = world
        self.get_state = get_state
        self.offers: dict[str, int] = {}

    # ------------------------------------------------------------------ time

    async def go_to(self, minutes: int) -> None:
        """Let time pass until so many minutes after the opening of the story."""
        target = self.world.scenario.start + minutes * MINUTE_S
        now = self.world.clock.now()
        if now > target:
            raise Stuck(f"minute {minutes} of the story is over already: {(now - target) // 60} minutes late")
        await self.world.pass_time(target - now)

    async def until(self, what: str, is_true: Callable[[], bool], limit_minutes: int = 120) -> int:
        """Let time pass until a proven state shows something; returns the minutes it took."""
        for step in range(limit_minutes * MINUTE_S // STEP_S):
            if is_true():
                return step * STEP_S // MINUTE_S
            await self.world.pass_time(STEP_S)
        raise Stuck(f"waited {limit_minutes} virtual minutes for: {what}")

    async def until_proven(self, what: str, limit_minutes: int = 60) -> int:
        """Wait until everything that happened at the vaults up to now is a fact."""
        wanted = {site.vault_id: site.get_outbox_sequence() for site in self.world.sites.values()}
        return await self.until(
            what, lambda: all(self.get_state(v).outbox_sequence >= n for v, n in wanted.items()), limit_minutes
        )

    def at(self, site: Site) -> VaultState:
        """The newest proven state of a site's vault."""
        return self.get_state(site.vault_id)

    # ------------------------------------------------------------------ chapters

    async def fund(self) -> None:
        """House, insurance and users deposit; the maker links its accounts."""
        world, plan = self.world, self.world.scenario
        for site in world.sites.values():
            await world.deposit(site, TREASURER, plan.house_cash, "HOUSE")
            await world.deposit(site, TREASURER, plan.insurance, "INSURANCE")
            for user in plan.users:
                if site.name in user.deposits:
                    await world.deposit(site, user.name, user.deposits[site.name])
                if user.links:
                    await world.link(site, user.name)

    async def trade(self) -> None:
        """List the series on every chain, make the offers, take them."""
        world = self.world
        for site in world.sites.values():
            await world.act(site, DEPLOYER, ListSeries(world.get_series()))
        for trade in world.scenario.trades:
            await self._take(trade)

    async def _take(self, trade: Trade) -> None:
        world, site = self.world, self.world.sites[trade.chain]
        quantity = trade.contracts * E8
        valid_until = world.scenario.expiry
        number = await self._offer(site, trade.seller, 1, quantity, trade.premium_units, valid_until)
        await world.act(site, trade.buyer, Take(number, quantity, 1))

    async def _offer(self, site: Site, user: str, side: int, quantity: int, premium: int, valid_until: int) -> int:
        series = self.world.get_series_id()
        await self.world.act(site, user, Offer(side, series, quantity, premium, valid_until))
        self.offers[site.name] = self.offers.get(site.name, 0) + 1
        return self.offers[site.name]

    async def wait_for_trades(self) -> int:
        """Wait until every trade is proven and decided."""
        wanted = {site.name: 0 for site in self.world.sites.values()}
        for trade in self.world.scenario.trades:
            wanted[trade.chain] += 1

        def decided() -> bool:
            return all(
                not self.at(site).trades and self.at(site).decided_upto > 0
                for site in self.world.sites.values()
                if wanted[site.name]
            )

        took = await self.until_proven("all trades are proven")
        return took + await self.until("all trades are decided", decided)

    async def withdraw_far(self) -> int:
        """Ask for more than there is on that chain; wait until it is claimable there, by lift and land; claim it."""
        plan = self.world.scenario.withdrawal
        site, amount = self.world.sites[plan.chain], plan.amount * UNIT
        account = site.get_account(plan.user)
        await self.world.act(site, plan.user, RequestWithdrawal(amount))
        took = await self.until(
            f"{plan.user} can claim on {site.name}",
            lambda: self.at(site).claimable.get((account, site.asset), 0) >= amount,
            180,
        )
        await self.world.act(site, plan.user, Claim(account))
        return took

    def shock(self) -> None:
        """The price moves."""
        self.world.spot.shock(self.world.clock.now(), self.world.scenario.shock_ppm)

    async def wait_for_liquidation(self, site: Site, user: str) -> int:
        """Wait until part of a user's position is the house's, proven."""
        key = (site.get_account(user), self.world.get_series_id())
        before = self.at(site).positions.get(key, 0)
        if before == 0:
            raise Stuck(f"{user} has no position to liquidate")
        return await self.until(f"{user} is liquidated", lambda: self.at(site).positions.get(key, 0) != before)

    async def sell_house_position(self, site: Site, buyer: str, premium: int) -> int:
        """Somebody makes an offer for what the house holds, and it is taken in the name of the house."""
        position = self.at(site).positions.get((HOUSE, self.world.get_series_id()), 0)
        if position == 0:
            return 0
        side = 1 if position < 0 else 0  # a short house buys from a seller
        number = await self._offer(site, buyer, side, abs(position), premium, self.world.scenario.expiry)
        await self.world.act(site, buyer, Take(number, abs(position), 2, for_house=True))
        await self.until_proven("the house's trade is proven")
        return await self.until("the house's trade is decided", lambda: not self.at(site).trades)

    async def wait_for_expiry(self) -> int:
        """Wait until no vault holds a position of the series, proven."""
        series = self.world.get_series_id()
        return await self.until(
            "all vaults are settled",
            lambda: not any(s == series for site in self.world.sites.values() for _, s in self.at(site).positions),
            180,
        )

    async def withdraw_all(self) -> int:
        """Everybody asks for all that is theirs, over as many rounds as it takes, and claims it; returns the rounds."""
        for round_number in range(MAX_ROUNDS):
            requests = [r for user in self.world.scenario.users for r in self._get_requests(user)]
            if not requests:
                return round_number
            for site, user, amount in requests:
                await self.world.act(site, user, RequestWithdrawal(amount))
            await self.until_proven("all requests are proven")
            await self.until("all requests are answered", self._is_answered, 120)
            for site, user, _ in requests:
                account = site.get_account(user)
                await self.world.act(site, user, Claim(account))
            await self.until_proven("all claims are proven")
        raise Stuck(f"after {MAX_ROUNDS} rounds somebody still has something to withdraw")

    def _get_requests(self, user: User) -> list[tuple[Site, str, int]]:
        """What a user may still ask for: its worth over all chains, where its cash lies first, the rest where it lives."""
        due = compute_due_id(self.world.quote_class)
        places = [(site, site.get_account(user.name)) for site in self.world.sites.values()]
        cash = {site.name: self.at(site).free.get((account, site.asset), 0) for site, account in places}
        left = sum(cash.values()) + sum(self.at(site).positions.get((account, due), 0) for site, account in places)
        requests = []
        homes = [site for site, _ in places if site.name in user.deposits]
        for site in homes:
            amount = min(cash[site.name], left) if site is not homes[-1] else left
            if amount > 0:
                requests.append((site, user.name, amount))
                left -= amount
        return requests

    def _is_answered(self) -> bool:
        return all(not self.at(site).requests for site in self.world.sites.values())
