"""`relayer testnet up | run | down | report`: nodes, sidecars, broker and operators on this machine, and the story in wall-clock time.

`run` starts everything, plays the story of data.md 6, optionally with faults, checks what must be true at the end, writes report.json and
report.html into its folder and stops everything. `up` starts the same and waits for Ctrl-C; `down` stops what `up` or `run` started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from messages.bodies import Ack, AckStatus
from messages.errors import RelayerError
from messages.ids import HOUSE
from messages.outbox import Fact
from relayer.demo.scenario import load_scenario
from relayer.demo.site import Site
from relayer.demo.story import Stuck, measure_settlement
from relayer.demo.world import DECIMALS, UNIT
from relayer.testnet.broker import Broker, start_broker
from relayer.testnet.devnet import Devnet, find_reason, open_given, start_devnet
from relayer.testnet.given import load_given
from relayer.testnet.latency import compute_latencies, read_events
from relayer.testnet.operators import (
    PRICES,
    Observer,
    Operator,
    make_broker_passwords,
    start_operators,
    wait_for_heads,
    write_operators,
)
from relayer.testnet.processes import Group, Process, get_start_time, stop_process
from relayer.testnet.report import write_html
from relayer.testnet.world import LIMIT_S, LiveStory, LiveWorld, make_live_scenario

STATE_FILE = "testnet.json"
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
HONEST = 0
"""The operator whose records are shown; none of the faults are its own."""
KILLED = 2
EXPIRY_MINUTES = 10
FAMILIES = ("evm", "evm")
FINALITY_TIMEOUT_S = 180.0
SETTLE_S = 5.0
OTHER_HEAD, WRONG_HEAD = "other_head", "wrong_head"
"""The words on record for an endpoint, and for an operator, that show another head than enough others."""
NODE_DOWN_S = 8.0
"""How long a killed node of a chain stays away."""


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    action: up, run, down or report. folder: of the run; None makes a temporary one. seed: another one gives other numbers. expiry_minutes:
    from the opening of the story. slots_per_epoch: of the devnets; finality takes two to three epochs of as many seconds. config: see
    `relayer.testnet.given`; None starts local nodes. families: of the scenario's chains, in their order; of a config it says them itself.
    """

    action: str
    folder: Path | None = None
    seed: int = 1
    faults: bool = False
    expiry_minutes: int = EXPIRY_MINUTES
    slots_per_epoch: int = 8
    as_json: bool = False
    config: Path | None = None
    families: tuple[str, ...] = FAMILIES


@dataclass
class Testnet:
    """Everything that runs."""

    folder: Path
    group: Group
    world: LiveWorld
    chains: dict[str, Devnet]
    broker: Broker
    operators: list[Operator]
    processes: list[Process]
    observer: Observer
    prices: asyncio.Task[None]
    wait_s: int

    def check(self) -> None:
        """Bring out what ended by itself."""
        self.group.verify_running()
        if self.prices.done():
            self.prices.result()


class Screen:
    """Lines for people on stderr, with seconds since the start; the result goes to stdout."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.lines: list[dict[str, Any]] = []

    def say(self, text: str, kind: str = "note") -> None:
        """One line; kept for the timeline of the report."""
        at = time.monotonic() - self._begin
        self.lines.append({"at_s": round(at, 1), "kind": kind, "text": text})
        sys.stderr.write(f"{at:7.1f} s  {text}\n")
        sys.stderr.flush()


def run_testnet(options: Options) -> int:
    """Do what the options ask for; returns the exit code: 0, or 1 when the run did not end as it must (it says how)."""
    if options.action == "down":
        return _stop(options)
    if options.action == "report":
        return _show_report(options)
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="relayer-testnet-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.stderr.write(f"{folder} is not empty: name another folder\n")
        return 1
    screen = Screen()
    try:
        return asyncio.run(_run(options, folder, screen))
    except (Stuck, RelayerError) as error:
        screen.say(f"The run stopped: {error}", "failure")
        screen.say(f"Logs and files are in {folder}")
        return 1


async def _run(options: Options, folder: Path, screen: Screen) -> int:
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: task.cancel() if task is not None else None)
    try:
        async with start_testnet(options, folder, screen) as net:
            if options.action == "up":
                _tell_addresses(net, screen)
                while True:
                    net.check()
                    await asyncio.sleep(1.0)
            result = await _Play(net, options, screen).tell()
    except asyncio.CancelledError:
        screen.say("stopped on request; every process has ended")
        return 0 if options.action == "up" else 1
    vaults = {site.vault_id.hex()[:8]: site.chain for site in net.world.sites.values()}
    events = read_events(folder / "processes", [operator.name for operator in net.operators])
    result["latency"] = compute_latencies(events, vaults)
    result["timeline"] = screen.lines
    result["stopped_cleanly"] = all(
        p.exit_codes and p.exit_codes[-1] == 0 for name, p in net.group.processes.items() if name.startswith("op")
    )
    (folder / REPORT_JSON).write_text(json.dumps(result, indent=1))
    write_html(result, folder / REPORT_HTML)
    screen.say(f"Report: {folder / REPORT_HTML}")
    if options.as_json:
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 0 if result["ok"] and result["stopped_cleanly"] else 1


def _tell_addresses(net: Testnet, screen: Screen) -> None:
    for chain in net.chains.values():
        addresses = ", ".join(f"{key} {value}" for key, value in chain.endpoints[-1].items())
        screen.say(f"chain {chain.name}: {chain.describe()}; {addresses}")
    for operator in net.operators:
        screen.say(f"{operator.name}: relayer status -c {operator.config}")
    screen.say("Ready. Ctrl-C, or `relayer testnet down`, stops everything.")


# ---- starting ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def start_testnet(options: Options, folder: Path, screen: Screen) -> AsyncIterator[Testnet]:
    """Start chains, vaults, broker and operators; stop all of it at the end, whatever the end is.

    Raises:
        Unavailable: a program is missing, or something does not start; says what and why.
    """
    state = {"pid": os.getpid(), "started": get_start_time(os.getpid())}
    (folder / STATE_FILE).write_text(json.dumps(state))
    secret = secrets.token_bytes(32)
    given = None
    families = options.families
    if options.config is not None:
        given = load_given(options.config, tuple(c.name for c in load_scenario(options.seed).chains))
        families = tuple(chain.family for chain in given.chains.values())
    plan = load_scenario(options.seed, families)
    with Group(folder / "processes") as group:
        chains: dict[str, Devnet] = {}
        for chain_plan in plan.chains:
            if given is not None:
                chains[chain_plan.name] = open_given(given.path, chain_plan, given.chains[chain_plan.name], secret)
                continue
            # from this thread: the kernel ends a child with the thread that started it
            devnet = start_devnet(
                group, chain_plan, secret, slots_per_epoch=options.slots_per_epoch, faults=options.faults
            )
            chains[chain_plan.name] = devnet
            screen.say(f"chain {chain_plan.name}: {devnet.describe()}", "start")
        now = int(time.time())
        minutes = options.expiry_minutes if given is None else given.expiry_minutes
        scenario = make_live_scenario(plan, now, minutes, {name: c.chain for name, c in chains.items()})
        world = LiveWorld(options.seed, scenario, {name: c.site for name, c in chains.items()}, secret)
        await world.build()
        screen.say("vaults and tokens are deployed; waiting until the deployment is final", "start")
        prices = asyncio.create_task(world.write_prices(folder / PRICES))
        try:
            tables = {
                name: await asyncio.to_thread(chain.make_table, FINALITY_TIMEOUT_S) for name, chain in chains.items()
            }
            passwords = make_broker_passwords(world)
            broker = start_broker(group, passwords)
            told = [
                {name: {**table, "endpoints": chains[name].get_endpoints(i)} for name, table in tables.items()}
                for i in range(len(passwords))
            ]
            operators = write_operators(folder, world, told, broker.port, passwords)
            wait_s = LIMIT_S if given is None else given.wait_s
            processes = start_operators(group, operators)
            await asyncio.to_thread(wait_for_heads, operators, processes, wait_s)
            screen.say("broker and four operators run; each has proven every vault", "start")
            yield Testnet(
                folder,
                group,
                world,
                chains,
                broker,
                operators,
                processes,
                Observer(operators[HONEST]),
                prices,
                wait_s,
            )
        finally:
            prices.cancel()
            (folder / STATE_FILE).unlink(missing_ok=True)


# ---- stopping, showing ------------------------------------------------------------------------------------------------


def _stop(options: Options) -> int:
    file = (options.folder or Path()) / STATE_FILE
    if not file.is_file():
        sys.stderr.write(f"nothing runs from {file.parent.absolute()}: name the folder of the run\n")
        return 1
    state = json.loads(file.read_text())
    was_running = stop_process(int(state["pid"]), str(state["started"]), timeout_s=60.0)
    file.unlink(missing_ok=True)
    sys.stderr.write("stopped\n" if was_running else "it had ended already\n")
    return 0


def _show_report(options: Options) -> int:
    folder = options.folder or Path()
    file = folder / REPORT_JSON
    if not file.is_file():
        sys.stderr.write(f"there is no {file}: `relayer testnet run` writes one\n")
        return 1
    result = json.loads(file.read_text())
    write_html(result, folder / REPORT_HTML)
    sys.stdout.write(
        (json.dumps(result, indent=1) if options.as_json else str((folder / REPORT_HTML).absolute())) + "\n"
    )
    return 0


# ---- the story --------------------------------------------------------------------------------------------------------


class _Play:
    """Tells the story once; what it measures becomes the report."""

    def __init__(self, net: Testnet, options: Options, screen: Screen) -> None:
        self.net = net
        self.options = options
        self.screen = screen
        self.story = LiveStory(net.world, net.observer.get_state, net.check, net.wait_s)
        self.margin: dict[str, Any] = {}
        self.settled: dict[str, int] = {}
        self.waits: dict[str, int] = {}
        self.lies: list[tuple[Devnet, str, str]] = []
        """Chain, endpoint that lies to everybody, operator that has nothing but lying endpoints."""

    def _chapter(self, title: str) -> None:
        self.screen.say(title, "chapter")

    def _fault(self, text: str) -> None:
        self.screen.say(f"fault: {text}", "fault")

    async def tell(self) -> dict[str, Any]:
        """All chapters; returns the report without latencies."""
        story, say = self.story, self.screen.say
        self._chapter("The treasurer funds house and insurance; users deposit; the maker links its accounts")
        await story.fund()
        self._chapter("Trades")
        await story.trade()
        if self.options.faults:
            self.net.processes[KILLED].kill()
            self._fault(f"op{KILLED} is killed (SIGKILL)")
        self.waits["trades"] = await story.wait_for_trades()
        self._check_trades()
        if self.options.faults:
            await self._restart_operator()
        self._measure_margin()
        self._chapter("A withdrawal on a chain where the cash is not: lift there, land here")
        stopped = self._stop_endpoints() if self.options.faults else []
        self.waits["withdrawal"] = await story.withdraw_far()
        self._start_endpoints(stopped)
        say(f"lifted, landed and paid out in {self.waits['withdrawal']} s")
        self._chapter("The price moves; a portfolio is liquidated in part")
        await self._liquidate()
        if self.options.faults:
            await asyncio.to_thread(self.net.broker.restart)
            self._fault("the broker was restarted")
            await self._disturb_nodes()
            self._start_lies()
        await self._expire()
        self._chapter("Everybody withdraws")
        rounds = await story.withdraw_all()
        say(f"all paid out after {rounds} rounds of requests and claims")
        await story.until_proven("the last claim is proven")
        await asyncio.sleep(SETTLE_S)
        result = self._measure_end()
        say(
            "conservation holds" if result["conservation"]["difference"] == "0" else "CONSERVATION IS BROKEN", "chapter"
        )
        return result

    # ------------------------------------------------------------------ faults

    async def _restart_operator(self) -> None:
        process = self.net.processes[KILLED]
        process.start()
        self._fault(f"op{KILLED} starts again from its files")
        observer = Observer(self.net.operators[KILLED])
        wanted = {s.vault_id: self.story.at(s).outbox_sequence for s in self.net.world.sites.values()}
        await self.story.until(
            f"op{KILLED} has caught up",
            lambda: all(observer.get_state(v).outbox_sequence >= n for v, n in wanted.items()),
        )
        self.screen.say(f"op{KILLED} has caught up", "fault")

    def _stop_endpoints(self) -> list[Devnet]:
        """The chains whose first endpoint went away."""
        stopped = [chain for chain in self.net.chains.values() if chain.proxies]
        for chain in stopped:
            name = chain.stop_endpoint()
            self._fault(f"the endpoint {name} of chain {chain.name} goes away for every operator")
        return stopped

    def _start_endpoints(self, stopped: list[Devnet]) -> None:
        for chain in stopped:
            chain.start_endpoint()
            self._fault(f"the endpoint of chain {chain.name} is back")

    async def _disturb_nodes(self) -> None:
        """Kill a node of each chain that can stand it, and start it again a little later."""
        for chain in self.net.chains.values():
            if what := chain.kill_node():
                self._fault(f"SIGKILL to {what}")
                await asyncio.sleep(NODE_DOWN_S)
                # from this thread: the kernel ends a child with the thread that started it
                chain.start_node()
                self._fault(f"the node of chain {chain.name} is back")

    def _start_lies(self) -> None:
        """Let endpoints lie until the end, where a chain has any that can."""
        for chain in self.net.chains.values():
            endpoint, operator = chain.start_lies()
            if endpoint:
                self.lies.append((chain, endpoint, operator))
                self._fault(
                    f"the endpoint {endpoint} of chain {chain.name} forges heads from now on, for {operator} every endpoint does"
                )

    # ------------------------------------------------------------------ chapters

    def _check_trades(self) -> None:
        world = self.net.world
        for trade in world.scenario.trades:
            site = world.sites[trade.chain]
            state = self.story.at(site)
            buyer, seller = (
                state.positions.get((site.get_account(who), world.get_series_id()), 0)
                for who in (trade.buyer, trade.seller)
            )
            is_done = seller < 0 < buyer
            if is_done == trade.is_refused:
                raise Stuck(f"the trade {trade.name!r} did not end as the story says")
            self.screen.say(f"{trade.name}: {'done' if is_done else 'refused for lack of margin'}")

    def _measure_margin(self) -> None:
        world = self.net.world
        for user in world.scenario.users:
            site = next(s for s in world.sites.values() if s.name in user.deposits)
            view = self.net.observer.get_margin(site, site.get_account(user.name))
            if view is None or len(view.apart) < 2:
                continue
            apart = sum(r.equity - r.initial for r in view.apart if r.equity is not None and r.initial is not None)
            together = (view.together.equity or 0) - (view.together.initial or 0)
            self.margin[user.name] = {"apart": str(apart), "together": str(together)}
            self.screen.say(
                f"{user.name}: margin asked chain by chain {apart / 10**DECIMALS:,.2f}, together {together / 10**DECIMALS:,.2f}"
            )

    async def _liquidate(self) -> None:
        world, story = self.net.world, self.story
        site = world.sites["one"]
        story.shock()
        key = (site.get_account("alice"), world.get_series_id())
        short = story.at(site).positions[key]
        self.waits["liquidation"] = await story.wait_for_liquidation(site, "alice")
        left = story.at(site).positions.get(key, 0)
        self.screen.say(f"alice was short {-short / 1e8:g} calls; {(left - short) / 1e8:g} of them went to the house")
        spot, _ = world.spot.get(world.clock.now() // 60 * 60)
        premium = max(1, (spot - world.scenario.strike_e8) // 10**8) * UNIT
        await story.sell_house_position(site, "carol", premium)
        held = story.at(site).positions.get((HOUSE, world.get_series_id()), 0)
        self.screen.say(f"the house took carol's offer and holds {held / 1e8:g} contracts now")

    async def _expire(self) -> None:
        world, story = self.net.world, self.story
        self._chapter("Waiting for expiry: one price by signed reports, netting over all chains, packets, Acks")
        before = {s.vault_id: story.at(s).outbox_sequence for s in world.sites.values()}
        held = self.net.observer.get_holdings(world.get_series_id())
        if world.clock.now() >= world.scenario.expiry:
            raise Stuck("the series expired before the story got there: ask for more minutes until expiry")
        await world.pass_time(world.scenario.expiry - world.clock.now())
        self.screen.say("the series has expired", "chapter")
        self.waits["settlement"] = await story.wait_for_expiry()
        await story.until_proven("the settlement is proven")
        facts = [f for vault_id, after in before.items() for f in self.net.observer.get_facts(vault_id, after)]
        found = measure_settlement(facts, held.values(), world.get_series())
        self.settled = asdict(found)
        self.screen.say(
            f"settled at {found.price_e8 / 1e8:,.2f} by {found.packets} packets:"
            f" gross {found.gross / 10**DECIMALS:,.2f}, net {found.net / 10**DECIMALS:,.2f}"
        )

    # ------------------------------------------------------------------ the end

    def _measure_end(self) -> dict[str, Any]:
        net, world, story = self.net, self.net.world, self.story
        vaults: dict[str, Any] = {}
        difference = 0
        facts: dict[str, list[Fact]] = {}
        for site in world.sites.values():
            state = story.at(site)
            owed = sum(state.free.values()) + sum(state.claimable.values())
            held = site.get_tokens(site.account)
            sums: dict[bytes, int] = {}
            for (_, series), amount in state.positions.items():
                sums[series] = sums.get(series, 0) + amount
            difference += abs(held - owed) + sum(abs(s) for s in sums.values())
            vaults[site.name] = {"chain": site.chain, "held": str(held), "owed": str(owed), "series_sums": len(sums)}
            facts[site.name] = net.observer.get_facts(site.vault_id, 0)
        acks = [f.body for found in facts.values() for f in found if isinstance(f.body, Ack)]
        refused = sum(1 for ack in acks if ack.status == AckStatus.REFUSED)
        incidents = {o.name: Observer(o).get_incidents() for o in net.operators}
        proof = net.observer.prove_and_verify(next(iter(world.sites.values())), net.folder / "fact.json")
        replay = net.observer.replay()
        final = [self._get_digest(Observer(o)) for o in net.operators]
        lies = [self._measure_lie(*lie, incidents) for lie in self.lies]
        is_calm = all(not i["halts"] and not i["equivocations"] for i in incidents.values())
        return {
            "schema": "relayer/testnet/1",
            "ok": (
                difference == 0
                and replay["same"]
                and proof["verified"]
                and is_calm
                and len(set(final)) == 1
                and all(lie["forged"] and lie["endpoint_named"] and lie["operator_named"] for lie in lies)
            ),
            "seed": self.options.seed,
            "faults": self.options.faults,
            "nodes": self._describe_nodes(),
            "conservation": {"difference": str(difference), "vaults": vaults},
            "settlement": {k: str(v) for k, v in self.settled.items()},
            "margin": self.margin,
            "waits_s": self.waits,
            "users": self._get_users(),
            "facts": {name: len(found) for name, found in facts.items()},
            "packets": len(acks),
            "packets_refused": refused,
            "user_transactions": world.transactions,
            "chains": {
                site.name: {
                    "chain": site.chain,
                    "family": site.family,
                    "nodes": self.net.chains[site.name].describe(),
                    "facts": len(facts[site.name]),
                    "transactions": world.work[site.name][0],
                    "gas": world.work[site.name][1],
                }
                for site in world.sites.values()
            },
            "operators_agree": len(set(final)) == 1,
            "proof": proof,
            "replay": replay,
            "incidents": incidents,
            "lies": lies,
        }

    def _measure_lie(self, chain: Devnet, endpoint: str, name: str, incidents: dict[str, Any]) -> dict[str, Any]:
        """Who of the others has the lying endpoint, and the operator that believed its like, on record for it."""
        liar = next(o for o in self.net.operators if o.name == name)
        others = [o.name for o in self.net.operators if o is not liar]

        def get_accusers(source: str, reason: str) -> list[str]:
            return [
                other
                for other in others
                if any(b["source"] == source and b["reason"] == reason for b in incidents[other]["blames"])
            ]

        by_endpoint = get_accusers(endpoint, OTHER_HEAD)
        by_operator = get_accusers("0x" + liar.address.hex(), WRONG_HEAD)
        self.screen.say(
            f"{chain.count_lies()} forged states: the endpoint {endpoint} is named by {', '.join(by_endpoint) or 'nobody'},"
            f" {name} by {', '.join(by_operator) or 'nobody'}",
            "fault",
        )
        return {
            "chain": chain.chain,
            "forged": chain.count_lies(),
            "endpoint": endpoint,
            "endpoint_accusers": by_endpoint,
            "endpoint_named": by_endpoint == others,
            "operator": name,
            "address": "0x" + liar.address.hex(),
            "operator_accusers": by_operator,
            "operator_named": by_operator == others,
        }

    def _describe_nodes(self) -> str:
        return ", ".join(chain.describe() for chain in self.net.chains.values())

    def _get_users(self) -> list[dict[str, str]]:
        world = self.net.world
        rows = []
        for user in world.scenario.users:
            paid = sum(user.deposits.values()) * UNIT
            out = sum(site.get_tokens(site.get_account(user.name)) for site in world.sites.values())
            rows.append({"user": user.name, "paid_in": str(paid), "got_out": str(out), "result": str(out - paid)})
        return rows

    def _get_digest(self, observer: Observer) -> str:
        """What an operator knows of every vault, as one text: sequences and heads."""
        sites: list[Site] = list(self.net.world.sites.values())
        states = [observer.get_state(site.vault_id) for site in sites]
        return " ".join(f"{s.outbox_sequence}:{s.outbox_head.hex()}" for s in states)


def get_unavailable_reason(families: tuple[str, ...] = FAMILIES) -> str:
    """Why a testnet cannot run here, or "": for tests that skip."""
    from relayer.testnet.broker import find_mosquitto

    if find_mosquitto() is None:
        return "mosquitto is not installed (Debian: apt-get install mosquitto)"
    return find_reason(families)
