"""`relayer demo`: build the world, start four operators from their files, tell the story, show what happened, check it.

The run ends in error if anything is not as it must be: conservation, a chapter that waits in vain, a replay that differs.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

from messages.bodies import Ack, AckStatus
from messages.canonical import compute_document_digest
from messages.digests import get_address
from messages.errors import RelayerError
from messages.ids import HOUSE, INSURANCE, compute_due_id
from messages.outbox import Fact, combine_tiers
from relayer.commands.view import describe_tier
from relayer.demo.faults import BUS_FAULTS, DEAD_OPERATOR, KILLED_OPERATOR, reorg_once, spoil_endpoints
from relayer.demo.operators import LOG_FILE, Operators
from relayer.demo.scenario import PPM, load_scenario
from relayer.demo.screen import Screen, show_units
from relayer.demo.site import Site
from relayer.demo.story import MINUTE_S, Story, Stuck, measure_settlement
from relayer.demo.world import DECIMALS, UNIT, World
from relayer.gossip import Faults, MemoryBus
from relayer.rules.vault_state import VaultState
from relayer.rules.views import MarginRow, MarginView, compute_margin_view

ENDPOINTS = 2
"""How many each chain has; one of a family that needs more to agree has those."""
HONEST = 0
"""The operator whose records are shown; none of the faults are its own."""
FAMILY_NAMES = {"evm": "Ethereum", "cosmos": "Cosmos", "solana": "Solana"}


def run_demo(
    seed: int, faults: bool, folder: Path | None, as_json: bool, verbose: bool, families: Sequence[str] = ()
) -> int:
    """Run the story once.

    Args:
        seed: another seed gives other numbers.
        faults: let everything of `relayer.demo.faults` go wrong on the way.
        folder: where the operators' files go; None: a temporary folder that is kept and named at the end.
        as_json: one JSON object on stdout, the story on stderr.
        verbose: the nodes' own log lines on stderr.
        families: of the chains; none: those of the scenario.

    Returns:
        0, or 1 when the story did not end as it must (it says how).
    """
    screen = Screen(as_json=as_json)
    target = Path(tempfile.mkdtemp(prefix="relayer-demo-")) if folder is None else folder
    begin = time.perf_counter()
    try:
        result = asyncio.run(_Run(seed, faults, target, screen, verbose, families).tell())
    except (Stuck, RelayerError) as error:
        screen.say(f"The demo stopped: {error}")
        screen.say(f"The operators' files are in {target}")
        return 1
    result["seconds"] = round(time.perf_counter() - begin, 1)
    screen.say(f"All of it in {result['seconds']} s. Files of the four operators: {target}")
    screen.say(f"Look around:  relayer status -c {target}/op0/relayer.toml   (positions, packets, explain, replay ...)")
    if as_json:
        print(json.dumps(result, indent=1))  # noqa: T201  the result of the command
    return 0 if result["conservation"] == 0 and result["replay"] == "same" else 1


class _Run:
    def __init__(
        self, seed: int, faults: bool, folder: Path, screen: Screen, verbose: bool, families: Sequence[str]
    ) -> None:
        self.world = World(seed, load_scenario(seed, families), ENDPOINTS)
        self.faults = faults
        self.folder = folder
        self.screen = screen
        self.bus = MemoryBus(Faults(), seed)
        self.operators = Operators(self.world, self.bus, folder, verbose=verbose)
        self.story = Story(self.world, self._get_state)
        self.margin_rows: dict[str, Any] = {}

    def _get_state(self, vault_id: bytes) -> VaultState:
        self.operators.check()
        return self.operators.services[HONEST].node.states.get_newest(vault_id)

    def _chapter(self, number: int, title: str) -> None:
        self.screen.chapter(number, title, (self.world.clock.now() - self.world.scenario.start) // MINUTE_S)

    def _get_opening(self) -> str:
        kinds = [FAMILY_NAMES.get(site.family, site.family) for site in self.world.sites.values()]
        return f"{', '.join(kinds[:-1])} and {kinds[-1]}: a vault on each chain, four operators"

    # ------------------------------------------------------------------ the story

    async def tell(self) -> dict[str, Any]:
        """All chapters; returns the summary."""
        world, story, say = self.world, self.story, self.screen.say
        plan = world.scenario
        await world.build()
        await world.pass_time(30 * MINUTE_S)
        self.world.clock.sources.append(self.bus.flush)
        try:
            self._chapter(1, self._get_opening())
            await self.operators.start_all()
            for site in world.sites.values():
                say(
                    f"chain {site.name}: {site.chain}, vault {site.vault_text}, {len(site.make_table()['endpoints'])} endpoints"
                )
            say(
                "Each operator has its own store, journal, key and light clients; three signatures of four make a packet."
            )
            if self.faults:
                self.bus.faults = BUS_FAULTS
                for done in spoil_endpoints(world):
                    say(f"fault: {done}")
                say("fault: the broker drops, duplicates, holds back and replays messages")
            await story.fund()
            say(
                f"The treasurer paid in {plan.house_cash:,} for the house and {plan.insurance:,} for insurance on each chain."
            )
            self._chapter(2, "Users deposit; the market maker links its accounts to one portfolio")
            for user in plan.users:
                where = ", ".join(f"{amount:,} on {chain}" for chain, amount in user.deposits.items())
                say(f"{user.name}: {where} USDC{' (one portfolio)' if user.links else ''}")
            self._chapter(3, "Trades: proven at finality, then decided by the committee")
            await story.trade()
            if self.faults:
                say(f"fault: {reorg_once(world)}")
                await world.pass_time(2 * MINUTE_S)
            took = await story.wait_for_trades()
            self._tell_trades(took)
            if self.faults:
                for name in await self.operators.lie(DEAD_OPERATOR):
                    say(
                        f"fault: operator op{DEAD_OPERATOR} signs another state of the vault on {name} than it signed before"
                    )
                await world.pass_time(MINUTE_S)
                await self.operators.kill(DEAD_OPERATOR)
                say(f"fault: operator op{DEAD_OPERATOR} dies and stays dead")
            await story.go_to(95)
            self._chapter(4, "Margin: what each chain would ask alone, and what one account over all asks")
            self._tell_margin()
            await self._withdraw_far()
            await story.go_to(152)
            self._chapter(6, "The price moves; a portfolio is liquidated in part")
            await self._liquidate()
            await self._expire()
            await self._withdraw_all()
            return await self._finish()
        finally:
            await self.operators.stop_all()

    def _tell_trades(self, took: int) -> None:
        for trade in self.world.scenario.trades:
            site = self.world.sites[trade.chain]
            state = self.story.at(site)
            buyer = site.get_account(trade.buyer)
            held = state.positions.get((buyer, self.world.get_series_id()), 0)
            seller = state.positions.get((site.get_account(trade.seller), self.world.get_series_id()), 0)
            is_done = seller < 0 < held
            self.screen.say(
                f"{trade.name}: {trade.contracts} contracts at {trade.premium_units / 10**6:.2f} on {trade.chain}:"
                f" {'done' if is_done else 'refused: ' + self._explain_refusal(site, trade.seller)}"
            )
            if is_done == trade.is_refused:
                raise Stuck(f"the trade {trade.name!r} did not end as the story says")
        self.screen.say(f"Proven, decided and acknowledged {took} virtual minutes after the last of them.")

    def _explain_refusal(self, site: Site, user: str) -> str:
        for note in self.operators.notes.values():
            if note.code == "margin_short" and note.vault_id == site.vault_id:
                portfolio = self._get_portfolio(site, user)
                return note.text.replace("0x" + portfolio.hex(), user) if portfolio else note.text
        return "no reason was recorded"

    # ------------------------------------------------------------------ chapters with more to say

    def _tell_margin(self) -> None:
        rows: list[tuple[str, ...]] = []
        sums: list[str] = []
        for user in self.world.scenario.users:
            view = self._get_margin(user.name)
            if view is None:
                continue
            apart = {row.vault_id: row for row in view.apart}
            tiers = {v: self._get_state(v).tier for v in self._get_vaults() if v in apart}
            rows += [
                (user.name, f"chain {s.name} alone", describe_tier(tiers[s.vault_id]), *_show(apart[s.vault_id]))
                for s in self.world.sites.values()
                if s.vault_id in apart
            ]
            if len(apart) > 1:
                row = view.together
                rows.append((user.name, "TOGETHER", describe_tier(reduce(combine_tiers, tiers.values())), *_show(row)))
                asked = sum(r.equity - r.initial for r in view.apart if r.equity is not None and r.initial is not None)
                together = (row.equity or 0) - (row.initial or 0)
                self.margin_rows[user.name] = {"apart": str(asked), "together": str(together)}
                sums.append(
                    f"{user.name} would have to put up {show_units(asked, DECIMALS)} chain by chain;"
                    f" as one account it is {show_units(together, DECIMALS)}."
                )
        self.screen.table(
            "USDC; a negative surplus means more collateral is needed",
            ("portfolio", "where", "known by (trust tier)", "equity", "surplus (maintenance)", "surplus (initial)"),
            rows,
            left=3,
        )
        for line in sums:
            self.screen.say(line)

    def _get_margin(self, user: str) -> MarginView | None:
        node = self.operators.services[HONEST].node
        cut = node.get_cut()
        if cut is None:
            return None
        ledger = node.get_ledger(cut)
        market = self.operators.get_market(HONEST)
        site = next(s for s in self.world.sites.values() if s.name in self._get_user(user).deposits)
        portfolio = ledger.portfolio_of.get((site.vault_id, site.get_account(user)))
        if portfolio is None:
            return None
        return compute_margin_view(ledger, market, node.parameters, portfolio)

    def _get_portfolio(self, site: Site, user: str) -> bytes | None:
        node = self.operators.services[HONEST].node
        cut = node.get_cut()
        place = (site.vault_id, site.get_account(user))
        return None if cut is None else node.get_ledger(cut).portfolio_of.get(place)

    def _get_user(self, name: str) -> Any:
        return next(u for u in self.world.scenario.users if u.name == name)

    async def _withdraw_far(self) -> None:
        plan = self.world.scenario.withdrawal
        site = self.world.sites[plan.chain]
        self._chapter(5, "A withdrawal on a chain where the cash is not: lift there, land here")
        have = self.story.at(site).free.get((site.get_account(plan.user), site.asset), 0)
        self.screen.say(f"{plan.user} has {show_units(have, DECIMALS)} on {plan.chain} and asks for {plan.amount:,}.")
        if self.faults:
            await self.operators.kill(KILLED_OPERATOR)
            self.screen.say(f"fault: op{KILLED_OPERATOR} is killed; three are needed, so everything waits")
            await self.world.pass_time(4 * MINUTE_S)
            await self.operators.start(KILLED_OPERATOR)
            self.screen.say(f"       op{KILLED_OPERATOR} starts again from its files and catches up")
        took = await self.story.withdraw_far()
        self.screen.say(
            f"Lifted where its cash was, landed where it asked, paid out: {took} virtual minutes, no bridge, nothing locked."
        )

    async def _liquidate(self) -> None:
        world, story = self.world, self.story
        site = world.sites["one"]
        before, _ = world.spot.get(world.clock.now() // 60 * 60)
        story.shock()
        await world.pass_time(2 * MINUTE_S)
        after, _ = world.spot.get(world.clock.now() // 60 * 60)
        self.screen.say(f"ETH goes from {before / 1e8:,.2f} to {after / 1e8:,.2f}.")
        key = (site.get_account("alice"), world.get_series_id())
        short = story.at(site).positions[key]
        took = await story.wait_for_liquidation(site, "alice")
        left = story.at(site).positions.get(key, 0)
        self.screen.say(
            f"alice was short {-short / 1e8:g} calls and below maintenance; {(left - short) / 1e8:g} of them went to the house"
            f" at the mark less the discount ({took} virtual minutes)."
        )
        # The price may fall once until the house's trade is decided: it must be a good one for the house even then.
        lowest = after * (PPM - world.scenario.step_ppm) // PPM
        premium = (lowest - world.scenario.strike_e8) // 10**8 * UNIT
        await story.sell_house_position(site, "carol", premium)
        held = story.at(site).positions.get((HOUSE, world.get_series_id()), 0)
        self.screen.say(
            "The house bought its short back by taking carol's offer; it holds nothing now."
            if held == 0
            else f"The house still holds {held / 1e8:g} contracts."
        )

    async def _expire(self) -> None:
        world, story = self.world, self.story
        self._chapter(7, "Expiry: one price by signed reports, netting over all chains, packets, Acks")
        before = {v: self._get_sequence(v) for v in self._get_vaults()}
        held = self._get_holdings()
        await story.wait_for_expiry()
        await story.until_proven("the settlement is proven")
        facts = [fact for vault_id, after in before.items() for fact in self._get_facts(vault_id, after)]
        found = measure_settlement(facts, held.values(), world.get_series())
        self.settled = asdict(found)
        self.screen.say(
            f"Settlement price of ETH {found.price_e8 / 1e8:,.8f}, from cumulative reports over {world.scenario.twap_seconds // 60} minutes."
        )
        self.screen.say(
            f"Obligations chain by chain {show_units(found.gross, DECIMALS)}; netted over all {show_units(found.net, DECIMALS)}"
            f" ({100 - 100 * found.net // max(1, found.gross)} % less to carry between chains)."
        )
        self.screen.say(
            f"Settled by {found.packets} packets with {found.legs} legs; {show_units(found.moved, DECIMALS)} changed hands inside the vaults."
        )

    def _get_holdings(self) -> dict[bytes, list[int]]:
        """Positions in the series by portfolio, one entry a place, the house's among them."""
        node = self.operators.services[HONEST].node
        cut = node.get_cut()
        if cut is None:
            raise Stuck("no cut is proven")
        ledger = node.get_ledger(cut)
        held: dict[bytes, list[int]] = {}
        for vault_id, state in ledger.states.items():
            for (account, series), quantity in state.positions.items():
                if series == self.world.get_series_id():
                    held.setdefault(ledger.portfolio_of.get((vault_id, account), account), []).append(quantity)
        return held

    async def _withdraw_all(self) -> None:
        self._chapter(8, "Everybody withdraws")
        rounds = await self.story.withdraw_all()
        rows = []
        for user in self.world.scenario.users:
            paid = sum(user.deposits.values()) * UNIT
            out = sum(site.get_tokens(site.get_account(user.name)) for site in self.world.sites.values())
            rows.append(
                (user.name, show_units(paid, DECIMALS), show_units(out, DECIMALS), show_units(out - paid, DECIMALS))
            )
        self.screen.table(
            f"After {rounds} round(s) of requests and claims, USDC", ("user", "paid in", "got out", "result"), rows
        )

    # ------------------------------------------------------------------ the end

    async def _finish(self) -> dict[str, Any]:
        await self.story.until_proven("the last claim is proven")
        self._chapter(9, "What must be true at the end")
        conservation = 0
        rows = []
        for site in self.world.sites.values():
            state = self.story.at(site)
            owed = sum(state.free.values()) + sum(state.claimable.values())
            held = site.get_tokens(site.account)
            conservation += abs(held - owed)
            sums: dict[bytes, int] = {}
            for (_, series), amount in state.positions.items():
                sums[series] = sums.get(series, 0) + amount
            conservation += sum(abs(s) for s in sums.values())
            rows.append(
                (f"chain {site.name}", show_units(held, DECIMALS), show_units(owed, DECIMALS), str(held - owed))
            )
        self.screen.table("Tokens held against what is owed, USDC", ("vault", "held", "owed", "difference"), rows)
        final = self._get_final_state()
        digest = compute_document_digest(final).hex()
        proofs = self.operators.prove_and_verify(HONEST)
        replay = self.operators.replay(HONEST)
        self.screen.say(f"Conservation: {conservation}. Digest of the final balances: {digest[:16]}...")
        for proof in proofs:
            self.screen.say(
                f"Fact {proof['fact']}, trust tier {proof['tier']}, exported and verified from its file alone: {proof['file']}"
            )
        self.screen.say(
            f"Replay from the archive: {replay['plans']} plans, {replay['facts']} facts: {replay['result']} digests."
        )
        blames = self._tell_blames()
        acks = [f for v in self._get_vaults() for f in self._get_facts(v, 0) if isinstance(f.body, Ack)]
        return {
            "schema": "relayer/demo/1",
            "seed": self.world.seed,
            "faults": self.faults,
            "conservation": conservation,
            "final_digest": "0x" + digest,
            "final": final,
            "settlement": {k: str(v) for k, v in self.settled.items()},
            "margin": self.margin_rows,
            "packets": len(acks),
            "packets_refused": sum(1 for f in acks if isinstance(f.body, Ack) and f.body.status == AckStatus.REFUSED),
            "facts": sum(self._get_sequence(v) for v in self._get_vaults()),
            "transactions": self.world.transactions,
            "blames": blames,
            "proofs": proofs,
            "replay": replay["result"],
            "folder": str(self.folder),
        }

    def _tell_blames(self) -> list[dict[str, Any]]:
        names = {f"0x{get_address(key).hex()}": f"op{i}" for i, key in enumerate(self.world.operator_keys)}
        rows: list[dict[str, Any]] = [
            {
                "chain": b.chain,
                "source": b.source,
                "name": names.get(b.source, b.source),
                "reason": b.reason,
                "count": count,
            }
            for b, count, _ in self.operators.services[HONEST].node.store.get_blames()
        ]
        if rows:
            self.screen.table(
                "What operator op0 refused, and whose it was",
                ("chain", "source", "reason", "times"),
                [(r["chain"], r["name"], r["reason"], str(r["count"])) for r in rows],
                left=3,
            )
            self.screen.say(f"What its node would call a human for is in {self.folder}/op{HONEST}/{LOG_FILE}.")
        return rows

    def _get_final_state(self) -> dict[str, Any]:
        """Balances at the end in words that do not depend on heights, heads or times."""
        due = compute_due_id(self.world.quote_class)
        final: dict[str, Any] = {"price_e8": str(self.settled["price_e8"]), "wallets": {}, "vaults": {}}
        for site in self.world.sites.values():
            names: dict[bytes, str] = {HOUSE: "HOUSE", INSURANCE: "INSURANCE"}
            for user in self.world.scenario.users:
                names[site.get_account(user.name)] = user.name
                wallet = site.get_tokens(site.get_account(user.name))
                final["wallets"][f"{site.name}/{user.name}"] = str(wallet)
            state = self.story.at(site)
            final["vaults"][site.name] = {
                "free": {names.get(a, a.hex()): str(x) for (a, _), x in sorted(state.free.items())},
                "due": {names.get(a, a.hex()): str(x) for (a, s), x in sorted(state.positions.items()) if s == due},
            }
        return final

    def _get_vaults(self) -> list[bytes]:
        return [site.vault_id for site in self.world.sites.values()]

    def _get_sequence(self, vault_id: bytes) -> int:
        return self._get_state(vault_id).outbox_sequence

    def _get_facts(self, vault_id: bytes, after: int) -> list[Fact]:
        return list(self.operators.services[HONEST].node.store.iterate_facts(vault_id, after))


def _show(row: MarginRow) -> tuple[str, ...]:
    return tuple(show_units(x, DECIMALS) for x in (row.equity, row.maintenance, row.initial))
