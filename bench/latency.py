"""Finality seen to transaction handed over at 50 packets a second, and the next plan after a proposer was killed.

The harness is the testnet's: two `anvil` nodes, a sidecar beside each, a mosquitto broker, four operator processes with stores and journals
of their own (every commit synced), encrypted keys and real proofs. Nothing of a node is replaced. All of it shares the machine with the
load: signed user transactions of which each emits one outbox packet, spread over both vaults.

A packet n of a vault counts from the moment at which anybody first heard of the finalized header that proves the Ack of packet n - 1 (a
vault with an open packet gets no new one, and the load leaves work for every plan), until its operator's line that the transaction was
handed over. "Heard of" is the earliest of: the beacon API's event at the bench's own subscription, and the last look of each operator
before it had the header.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import os
import secrets
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from eth_account import Account

from bench.figures import Figure
from bench.run import print_figures
from chains.evm.codec import encode_approve, encode_deposit, encode_mint, encode_request_withdrawal
from messages.bodies import Ack
from messages.digests import get_address
from messages.documents import Parameters
from messages.errors import Unavailable
from messages.ids import get_evm_account, get_evm_address
from relayer.demo.scenario import load_scenario
from relayer.demo.site import Site
from relayer.demo.world import UNIT
from relayer.testnet.broker import start_broker
from relayer.testnet.door import Door, get_faucet_key
from relayer.testnet.latency import compute_percentile, read_events
from relayer.testnet.nodes import Beacon, SidecarSizes, ask, start_anvil, start_sidecar
from relayer.testnet.operators import (
    PRICES,
    Observer,
    Operator,
    make_broker_passwords,
    start_operators,
    wait_for_heads,
    write_operators,
)
from relayer.testnet.processes import Group, Process
from relayer.testnet.site_evm import LiveEvmSite
from relayer.testnet.world import LiveWorld, make_live_scenario

PACKETS_PER_S = 50
REQUESTS_PER_S = 16
"""So many of them are requests that a plan decides; the rest are deposits."""
REQUESTERS = 200
"""Accounts per vault that ask in turn: each has one request at a time."""
PATIENCE_S = 5
SLOTS_PER_EPOCH = 2
EPOCHS_PER_PERIOD = 256
WARM_UP_S = 8.0
MINED_S = 1.5
"""After so long what was sent last is in a block."""
SECONDS_PER_LOOP_SECOND = 20
"""The measured time is so many times what `make bench` gives each timed loop: a minute by default."""
KILLS = 2
KILL_WAIT_S = 40.0
FINALITY_TIMEOUT_S = 60.0
COINCIDENCE_S = 0.1
TARGET_P50_MS, TARGET_P99_MS, TARGET_TAKEOVER_S = 200, 1000, PATIENCE_S + 5
GAS = 400_000
MAX_FEE_WEI = 100 * 10**9


class BenchWorld(LiveWorld):
    """The testnet's world with a short patience."""

    def get_parameters(self) -> Parameters:
        """The testnet's parameters; patience `PATIENCE_S`."""
        return replace(super().get_parameters(), patience_s=PATIENCE_S)


# ---- the load ---------------------------------------------------------------------------------------------------------


@dataclass
class Load:
    """Signed transactions for one vault, one list a second, made before the clock runs."""

    site: LiveEvmSite
    door: Door
    whale: bytes
    requesters: list[bytes]
    nonces: dict[bytes, int] = field(default_factory=dict)
    next_requester: int = 0

    @property
    def vault(self) -> bytes:
        """Address, 20 bytes."""
        return get_evm_address(self.site.account)

    def prepare(self) -> None:
        """Ether, tokens and deposits for everybody."""
        site, door = self.site, self.door
        for key in (self.whale, *self.requesters):
            ask(door.url, "anvil_setBalance", "0x" + get_address(key).hex(), hex(10**21))
        deployer = door.get_key("deployer")
        door.act(deployer, site.token, encode_mint(get_address(self.whale), 10**9 * UNIT))
        self._send([self._sign(self.whale, site.token, encode_approve(self.vault, 2**255))])
        self._send([self._sign_deposit(key, 10_000 * UNIT) for key in self.requesters])

    def make_second(self, deposits: int, requests: int) -> list[str]:
        """Raw transactions, in hex, of one second."""
        raw = [self._sign_deposit(self.requesters[i], UNIT) for i in range(deposits)]
        for _ in range(requests):
            key = self.requesters[self.next_requester % len(self.requesters)]
            self.next_requester += 1
            raw.append(self._sign(key, self.vault, encode_request_withdrawal(self.site.asset, 20 * UNIT)))
        return raw

    def send(self, raw: Sequence[str]) -> None:
        """Hand a batch to the node; raises if the node refuses one."""
        self._send(raw)

    def _sign_deposit(self, key: bytes, amount: int) -> str:
        beneficiary = get_evm_account(get_address(key))
        return self._sign(self.whale, self.vault, encode_deposit(self.site.asset, amount, beneficiary))

    def _sign(self, key: bytes, to: bytes, data: bytes) -> str:
        nonce = self.nonces.get(key, 0)
        self.nonces[key] = nonce + 1
        fields = {
            "type": 2,
            "chainId": self.door.chain_id,
            "nonce": nonce,
            "to": to,
            "value": 0,
            "gas": GAS,
            "maxFeePerGas": MAX_FEE_WEI,
            "maxPriorityFeePerGas": 1,
            "data": data,
        }
        return "0x" + bytes(Account.sign_transaction(fields, key).raw_transaction).hex()

    def _send(self, raw: Sequence[str]) -> None:
        calls = [
            {"jsonrpc": "2.0", "id": i, "method": "eth_sendRawTransaction", "params": [r]} for i, r in enumerate(raw)
        ]
        body = json.dumps(calls).encode()
        request = urllib.request.Request(self.door.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            failed = [a["error"] for a in json.load(response) if "error" in a]
        if failed:
            raise Unavailable(f"the node refuses {len(failed)} transactions of the load: {failed[0]}", reason="load")


async def send_load(loads: Sequence[Load], seconds: Sequence[Sequence[list[str]]]) -> None:
    """One batch per vault and second, at even times; falls behind rather than sends faster."""
    begin = time.monotonic()
    for i, batches in enumerate(seconds):
        await asyncio.sleep(max(0.0, begin + i - time.monotonic()))
        await asyncio.gather(*(asyncio.to_thread(load.send, raw) for load, raw in zip(loads, batches, strict=True)))


# ---- what was heard when ----------------------------------------------------------------------------------------------


@dataclass
class Ear:
    """Listens to one beacon API's events: when each finalized execution block was first told of."""

    chain: str
    beacon: Beacon
    heard: dict[int, float] = field(default_factory=dict)

    async def listen(self) -> None:
        """Until cancelled."""
        url = f"{self.beacon.url}/eth/v1/events?topics=light_client_finality_update"
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as session, session.get(url) as answer:
            async for line in answer.content:
                if line.startswith(b"data:"):
                    at = time.time()
                    block = json.loads(line[5:])["data"]["finalized_header"]["execution"]["block_number"]
                    self.heard.setdefault(int(block), at)


@dataclass
class Net:
    """Everything that runs."""

    folder: Path
    group: Group
    world: BenchWorld
    operators: list[Operator]
    processes: list[Process]
    loads: list[Load]
    ears: list[Ear]

    def get_events(self) -> list[dict[str, Any]]:
        """All operators' log lines in order of time."""
        return read_events(self.folder / "processes", [o.name for o in self.operators])

    def get_cpu_s(self) -> float:
        """User and system time of the four operator processes that run now."""
        ticks = os.sysconf("SC_CLK_TCK")
        total = 0
        for process in self.processes:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / ticks


@contextlib.asynccontextmanager
async def start_net(folder: Path) -> AsyncIterator[Net]:
    """Chains, vaults, broker and operators; stopped at the end, whatever the end is."""
    secret = secrets.token_bytes(32)
    plan = load_scenario(1, ("evm", "evm"))
    with Group(folder / "processes") as group:
        doors: dict[str, Door] = {}
        beacons: dict[str, Beacon] = {}
        sizes = SidecarSizes(slots_per_epoch=SLOTS_PER_EPOCH, epochs_per_period=EPOCHS_PER_PERIOD)
        for chain in plan.chains:
            chain_id = int(chain.chain.partition(":")[2])
            node = start_anvil(group, f"anvil-{chain.name}", chain_id)
            # on a busy machine blocks come in bursts: still each its own second, as a sidecar's slots want it
            ask(node.url, "anvil_setBlockTimestampInterval", 1)
            beacons[chain.name] = start_sidecar(group, f"sidecar-{chain.name}", node, sizes)
            doors[chain.name] = Door(node.url, chain_id, get_faucet_key(), secret)
        scenario = make_live_scenario(plan, int(time.time()), 60, {c.name: c.chain for c in plan.chains})
        evm_sites = {c.name: LiveEvmSite(c.name, c.chain, doors[c.name]) for c in scenario.chains}
        world = BenchWorld(1, scenario, evm_sites, secret)
        await world.build()
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(world.write_prices(folder / PRICES))]
            tables: dict[str, dict[str, Any]] = {}
            for site in evm_sites.values():
                beacon = beacons[site.name]
                checkpoint, _ = await asyncio.to_thread(
                    beacon.wait_for_finalized, site.start_height, FINALITY_TIMEOUT_S
                )
                tables[site.name] = {
                    **site.make_table(),
                    "checkpoint": "0x" + checkpoint.hex(),
                    "endpoints": [{"name": "direct", "execution": doors[site.name].url, "beacon": beacon.url}],
                    "settings": json.loads(beacon.settings),
                }
            passwords = make_broker_passwords(world)
            broker = start_broker(group, passwords)
            operators = write_operators(folder, world, [tables] * len(world.operator_keys), broker.port, passwords)
            for operator in operators:  # their looks are part of what is measured
                text = operator.config.read_text()
                operator.config.write_text(text.replace('level = "info"', 'level = "debug"'))
            ears = [Ear(site.chain, beacons[site.name]) for site in evm_sites.values()]
            background += [tasks.create_task(ear.listen()) for ear in ears]
            loads = [
                Load(
                    site,
                    doors[site.name],
                    doors[site.name].get_key("whale"),
                    [doors[site.name].get_key(f"requester {i}") for i in range(REQUESTERS)],
                )
                for site in evm_sites.values()
            ]
            for load in loads:
                await asyncio.to_thread(load.prepare)
            processes = start_operators(group, operators)
            await asyncio.to_thread(wait_for_heads, operators, processes, FINALITY_TIMEOUT_S)
            yield Net(folder, group, world, operators, processes, loads, ears)
            for task in background:
                task.cancel()


# ---- latency ----------------------------------------------------------------------------------------------------------


def get_first_heard(net: Net, events: Sequence[Mapping[str, Any]], chain: str, height: int) -> float | None:
    """When anybody first heard of a finalized block: the event, or the look before an operator had it."""
    ear = next(e for e in net.ears if e.chain == chain)
    heard = [at for block, at in ear.heard.items() if block >= height]
    looks: dict[str, float] = {}
    for event in events:
        if event.get("chain") != chain:
            continue
        if event.get("event") == "look":
            looks[event["node"]] = event["at"]
        elif event.get("event") == "header" and event["height"] >= height and event["node"] in looks:
            heard.append(looks[event["node"]])
            break  # of the first operator; the others come later
    return min(heard, default=None)


def compute_latencies_ms(net: Net, begin: float, end: float) -> list[dict[str, float]]:
    """Per packet that was handed over within the time: milliseconds of each stage and of the whole."""
    events = net.get_events()
    sent: dict[tuple[str, int], Mapping[str, Any]] = {}
    for event in events:
        if event.get("event") == "sent":
            sent.setdefault((event["chain"], event["sequence"]), event)
    rows = []
    for site in net.world.sites.values():
        proofs = get_proof_heights(net.operators[0], site)
        chain_events = [e for e in events if e.get("chain") == site.chain]
        for (chain, sequence), line in sorted(sent.items()):
            height = proofs.get(sequence - 1)
            if chain != site.chain or height is None or not begin <= line["at"] <= end:
                continue
            heard = get_first_heard(net, chain_events, chain, height)
            if heard is None:
                continue
            row = {"whole": (line["at"] - heard) * 1000, "at": heard}
            marks = {
                "certified": _find(events, heard, "certified", vault=site.vault_id.hex()[:8], sequence=sequence),
            }
            k = marks["certified"].get("k") if marks["certified"] else None
            marks["proposed"] = _find(events, heard, "propose", k=k)
            marks["header"] = _find(events, heard, "header", chain=chain)
            row |= {name: (e["at"] - heard) * 1000 for name, e in marks.items() if e is not None}
            rows.append(row)
    return rows


def compute_coincidence(net: Net, begin: float, end: float) -> float:
    """Share of one chain's finalized headers that came within `COINCIDENCE_S` of one of the other's: then all operators have twice the work."""
    one, other = ([at for at in ear.heard.values() if begin <= at <= end] for ear in net.ears)
    return sum(any(abs(at - b) < COINCIDENCE_S for b in other) for at in one) / max(1, len(one))


def get_proof_heights(operator: Operator, site: Site) -> dict[int, int]:
    """By inbox packet number the finalized height that first proved its Ack, from an operator's records."""
    found = {}
    with Observer(operator).open_view() as view:
        heads = [(h.sequence, h.point.height) for h in view.store.iterate_heads(site.vault_id)]
        numbers = [sequence for sequence, _ in heads]
        for fact in view.store.iterate_facts(site.vault_id):
            if isinstance(fact.body, Ack):
                found[fact.body.inbox_sequence] = heads[bisect.bisect_left(numbers, fact.sequence)][1]
    return found


def _find(events: Sequence[Mapping[str, Any]], after: float, name: str, **fields: Any) -> Mapping[str, Any] | None:
    wanted = fields.items()
    return next(
        (e for e in events if e["at"] >= after and e.get("event") == name and all(e.get(k) == v for k, v in wanted)),
        None,
    )


# ---- kill -------------------------------------------------------------------------------------------------------------


async def measure_takeover_s(net: Net) -> float:
    """Kill the operator whose turn comes next; seconds from then, or from the work if that came later, to a certificate."""
    last_k = max(int(e["k"]) for e in net.get_events() if e.get("event") in ("propose", "certified"))
    dead = (last_k + 1) % len(net.operators)
    net.processes[dead].kill()
    killed_at = time.time()
    deadline = time.monotonic() + KILL_WAIT_S
    while time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        events = [e for e in net.get_events() if e.get("node") != net.operators[dead].name]
        after = [e for e in events if e["at"] > killed_at and int(e.get("k", 0)) % len(net.operators) == dead]
        work = next((e for e in after if e.get("event") == "there is work"), None)
        certified = next((e for e in after if e.get("event") == "certified"), None)
        if certified is not None:
            began = killed_at if work is None or work["at"] > certified["at"] else float(work["at"])
            net.processes[dead].start()
            return float(certified["at"]) - max(killed_at, began)
    raise Unavailable(f"no certificate within {KILL_WAIT_S} s of the kill", reason="no_certificate")


# ---- the bench --------------------------------------------------------------------------------------------------------


async def measure(folder: Path, seconds: float, kills: int) -> list[Figure]:
    """All figures of one run."""
    load = os.getloadavg()[0]
    async with start_net(folder) as net:
        share = (PACKETS_PER_S - REQUESTS_PER_S) // 2, REQUESTS_PER_S // 2
        total_s = int(WARM_UP_S + seconds)
        batches = [[load.make_second(*share) for load in net.loads] for _ in range(total_s)]
        kill_load = [[load.make_second(2, 4) for load in net.loads] for _ in range(int(kills * KILL_WAIT_S))]
        sequences = {s.vault_id: s.get_outbox_sequence() for s in net.world.sites.values()}
        loading = asyncio.create_task(send_load(net.loads, batches))
        await asyncio.sleep(WARM_UP_S)
        begin, cpu_s = time.time(), net.get_cpu_s()
        await loading
        end, cpu_s = time.time(), net.get_cpu_s() - cpu_s
        await asyncio.sleep(MINED_S)
        packets = sum(s.get_outbox_sequence() - sequences[s.vault_id] for s in net.world.sites.values())
        net.group.verify_running()
        rows = compute_latencies_ms(net, begin, end)
        if len(rows) < seconds / 10:
            raise Unavailable("too few packets were handed over to tell a latency", got=len(rows), reason="too_few")
        whole = [row["whole"] for row in rows]
        p50, p99 = compute_percentile(whole, 50), compute_percentile(whole, 99)
        rate = packets / total_s
        target = f"at {PACKETS_PER_S} packets/s"
        figures = [
            Figure("latency: load average of the machine before", load, "on all cores"),
            Figure(
                "latency: outbox packets a second, both vaults",
                rate,
                "packets/s",
                f">= {PACKETS_PER_S}",
                is_met=rate >= PACKETS_PER_S,
            ),
            Figure("latency: finality heard of to header on record, p50", _get_p50(rows, "header"), "ms"),
            Figure("latency: finality heard of to proposal, p50", _get_p50(rows, "proposed"), "ms"),
            Figure("latency: finality heard of to certificate, p50", _get_p50(rows, "certified"), "ms"),
            Figure(
                "latency: finality heard of to handed over, p50",
                p50,
                "ms",
                f"< 200 {target}",
                is_met=p50 < TARGET_P50_MS,
            ),
            Figure(
                "latency: finality heard of to handed over, p99",
                p99,
                "ms",
                f"< 1000 {target}",
                is_met=p99 < TARGET_P99_MS,
            ),
            Figure("latency: packets handed over in the time", len(rows), "packets"),
            Figure(
                f"latency: finality within {COINCIDENCE_S * 1000:.0f} ms of the other chain's",
                compute_coincidence(net, begin, end),
                "of headers",
            ),
            Figure("latency: processor time of one operator", cpu_s / len(net.operators) / (end - begin), "cores"),
        ]
        loading = asyncio.create_task(send_load(net.loads, kill_load))
        takeovers = []
        for i in range(kills):
            takeovers.append(await measure_takeover_s(net))
            if i + 1 < kills:
                await asyncio.sleep(PATIENCE_S)
        loading.cancel()
        if takeovers:
            worst = max(takeovers)
            figures.append(
                Figure(
                    f"latency: next proposer killed to certificate, worst of {kills}",
                    worst,
                    "s",
                    f"< patience ({PATIENCE_S}) + 5",
                    is_met=worst < TARGET_TAKEOVER_S,
                )
            )
    return figures


def _get_p50(rows: Sequence[Mapping[str, float]], name: str) -> float:
    values = [row[name] for row in rows if name in row]
    return compute_percentile(values, 50) if values else float("nan")


def run(seconds: float, kills: int = KILLS) -> list[Figure]:
    """Figures of one run of the harness, in a folder that is thrown away.

    Raises:
        Unavailable: anvil or mosquitto is missing or does not start.
    """
    keep = os.environ.get("BENCH_FOLDER")
    if keep is not None:
        return asyncio.run(measure(Path(keep), seconds * SECONDS_PER_LOOP_SECOND, kills))
    with tempfile.TemporaryDirectory(prefix="relayer-bench-") as folder:
        return asyncio.run(measure(Path(folder), seconds * SECONDS_PER_LOOP_SECOND, kills))


if __name__ == "__main__":
    print_figures(run(float(sys.argv[1])))
