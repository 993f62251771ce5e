"""The simulated consensus layer beside a real execution node: follows its blocks, serves the Beacon API over HTTP.

    python -m chains.evm.sidecar --execution-url http://127.0.0.1:8545 --chain-id 31337 --port 5052

For devnets only: whoever runs it is the whole sync committee. What it says of the execution layer is the node's own: a block is taken
only if the RLP of its header hashes to its block hash, its raw transactions to the header's transactionsRoot, and its parent is the
block before. The beacon chain is a function of those blocks, the chain id and the seed, so a sidecar that is restarted, or a second
one beside it, tells the same chain with the same roots.

A devnet may shorten slots, epochs and periods, never a rule: finality lags two epochs, the committee has 512 seats and changes every period.
On stdout stand JSON lines: {"event": "ready", "url", "genesis_time", "genesis_validators_root", "settings", ...} when the first block is
read, {"event": "finalized", "checkpoint", ...} when the first checkpoint is. ``settings`` is what a relayer is configured with.

Source: Ethereum Beacon API (groups Beacon, Config, Events, Node); Yellow Paper 4.4.3, EIP-1559, 4399, 4895, 4844, 4788, 7685 (header fields).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from aiohttp import web

from chains.evm.beacon_json import parse_hex, parse_integer
from chains.evm.beacon_sim import BeaconBlock, BeaconSim
from chains.evm.forks import FAR_FUTURE_EPOCH, Fork, ForkSchedule, Preset, build_devnet
from chains.evm.light_client import LightClientConfig
from chains.evm.mpt import compute_trie_root, encode_rlp, encode_rlp_integer
from chains.evm.transport import HttpExecutionProvider, call, call_each, verify_chain_id
from chains.evm.verifier import encode_settings
from messages.errors import Rejected, RelayerError, Unavailable
from messages.hashing import keccak256

COMMITTEE_SEATS = 512
MAX_BACKLOG_EVENTS = 256
"""Events that wait for a subscriber; a slower one is disconnected and may come again."""
MAX_SUBSCRIBERS = 64
MAX_TRANSACTIONS = 10_000
TRANSACTIONS_PER_CALL = 100
"""A block's transactions are asked for by so many in one batch: most of a sidecar's time would be round trips."""
POLLS_PER_SLOT = 4
SLOT_EDGE_S = 0.002
"""So long after a slot begins it is looked at."""
EMPTY_UNCLES = bytes.fromhex("1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347")
EMPTY_TRIE = bytes.fromhex("56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421")
TOPICS = ("head", "light_client_finality_update", "light_client_optimistic_update")


# ---- execution blocks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExecutionHeader:
    """Header of a block from Cancun on, with the field names that `beacon_sim` reads."""

    parent_hash: bytes
    uncles_hash: bytes
    coinbase: bytes
    state_root: bytes
    transaction_root: bytes
    receipt_root: bytes
    bloom: int
    difficulty: int
    block_number: int
    gas_limit: int
    gas_used: int
    timestamp: int
    extra_data: bytes
    mix_hash: bytes
    nonce: bytes
    base_fee_per_gas: int
    withdrawals_root: bytes
    blob_gas_used: int
    excess_blob_gas: int
    parent_beacon_block_root: bytes
    requests_hash: bytes | None
    """None before Prague."""


@dataclass(frozen=True)
class RawTransaction:
    """EIP-2718 encoding of one transaction."""

    raw: bytes


@dataclass(frozen=True)
class ExecutionBlock:
    """A block that a node told and whose hashes fit; `beacon_sim.PayloadBlock`."""

    slot: int
    hash: bytes
    header: ExecutionHeader
    transactions: tuple[RawTransaction, ...]

    @property
    def number(self) -> int:
        """Block number."""
        return self.header.block_number

    @property
    def timestamp(self) -> int:
        """Unix seconds."""
        return self.header.timestamp


def parse_block_header(obj: object) -> tuple[ExecutionHeader, bytes]:
    """Header and block hash of an eth_getBlock answer.

    Raises:
        Rejected: "bad_json"; "old_fork" (fields of Cancun are missing); "block_hash" (the fields do not hash to it).
    """
    if not isinstance(obj, Mapping):
        raise Rejected("a block is an object", got=type(obj).__name__, reason="bad_json")
    if obj.get("parentBeaconBlockRoot") is None or obj.get("withdrawalsRoot") is None:
        raise Rejected("the node runs an older fork than Cancun", got=sorted(obj)[:40], reason="old_fork")

    def data(name: str, size: int | None = 32) -> bytes:
        return parse_hex(obj.get(name), name, size)

    def number(name: str, bits: int = 64) -> int:
        return parse_integer(obj.get(name), name, bits)

    header = ExecutionHeader(
        parent_hash=data("parentHash"),
        uncles_hash=data("sha3Uncles"),
        coinbase=data("miner", 20),
        state_root=data("stateRoot"),
        transaction_root=data("transactionsRoot"),
        receipt_root=data("receiptsRoot"),
        bloom=int.from_bytes(data("logsBloom", 256), "big"),
        difficulty=number("difficulty", 256),
        block_number=number("number"),
        gas_limit=number("gasLimit"),
        gas_used=number("gasUsed"),
        timestamp=number("timestamp"),
        extra_data=data("extraData", None),
        mix_hash=data("mixHash"),
        nonce=data("nonce", 8),
        base_fee_per_gas=number("baseFeePerGas", 256),
        withdrawals_root=data("withdrawalsRoot"),
        blob_gas_used=number("blobGasUsed"),
        excess_blob_gas=number("excessBlobGas"),
        parent_beacon_block_root=data("parentBeaconBlockRoot"),
        requests_hash=None if obj.get("requestsHash") is None else data("requestsHash"),
    )
    said = data("hash")
    computed = compute_block_hash(header)
    if said != computed:
        raise Rejected(
            "the fields of a block do not hash to its block hash", got=said, expected=computed, reason="block_hash"
        )
    return header, said


def compute_block_hash(header: ExecutionHeader) -> bytes:
    """keccak256(rlp(header)): 20 fields at Cancun, 21 from Prague on."""
    fields: list[bytes] = [
        header.parent_hash,
        header.uncles_hash,
        header.coinbase,
        header.state_root,
        header.transaction_root,
        header.receipt_root,
        header.bloom.to_bytes(256, "big"),
        encode_rlp_integer(header.difficulty),
        encode_rlp_integer(header.block_number),
        encode_rlp_integer(header.gas_limit),
        encode_rlp_integer(header.gas_used),
        encode_rlp_integer(header.timestamp),
        header.extra_data,
        header.mix_hash,
        header.nonce,
        encode_rlp_integer(header.base_fee_per_gas),
        header.withdrawals_root,
        encode_rlp_integer(header.blob_gas_used),
        encode_rlp_integer(header.excess_blob_gas),
        header.parent_beacon_block_root,
    ]
    if header.requests_hash is not None:
        fields.append(header.requests_hash)
    return keccak256(encode_rlp(fields))


def compute_transactions_root(transactions: Sequence[bytes]) -> bytes:
    """Root of the trie index -> raw transaction (Yellow Paper 4.4.2)."""
    return compute_trie_root({encode_rlp(encode_rlp_integer(i)): raw for i, raw in enumerate(transactions)})


# ---- the profile of a devnet ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """Sizes of a devnet. ``lead_slots``: slots before the node's first block, so that a run may begin close to a period's end."""

    chain_id: int
    seconds_per_slot: int = 1
    slots_per_epoch: int = 8
    epochs_per_period: int = 32
    lead_slots: int = 0
    seed: bytes = b"optsettle devnet"

    def build_schedule(self, first: ExecutionHeader) -> ForkSchedule:
        """The schedule that begins ``lead_slots`` before the node's first block; its fork follows from the header's fields."""
        fork = Fork.DENEB if first.requests_hash is None else Fork.ELECTRA
        return build_devnet(
            genesis_time=first.timestamp - self.lead_slots * self.seconds_per_slot,
            genesis_validators_root=sha256(b"genesis validators %d" % self.chain_id).digest(),
            seconds_per_slot=self.seconds_per_slot,
            preset=Preset(self.slots_per_epoch, self.epochs_per_period, COMMITTEE_SEATS),
            epochs=tuple(0 if known <= fork else FAR_FUTURE_EPOCH for known in Fork),
            name=f"devnet-{self.chain_id}",
        )


# ---- following --------------------------------------------------------------------------------------------------------


class Follower:
    """Reads a node's blocks in order and keeps the beacon chain that carries them. ``first``: number of the first block."""

    def __init__(self, provider: HttpExecutionProvider, profile: Profile, first: int = 0) -> None:
        self._provider = provider
        self._profile = profile
        self._first = first
        self._blocks: list[ExecutionBlock] = []
        self._beacon: BeaconSim | None = None
        self.reorgs = 0

    @property
    def beacon(self) -> BeaconSim:
        """The beacon chain; RuntimeError before the first `advance`."""
        if self._beacon is None:
            raise RuntimeError("no block was read yet")
        return self._beacon

    @property
    def is_started(self) -> bool:
        """Whether the first block was read."""
        return self._beacon is not None

    @property
    def head(self) -> ExecutionBlock:
        """The newest execution block."""
        return self._blocks[-1]

    async def advance(self) -> int:
        """Read what is new, replacing unfinalized blocks that the node has replaced; returns the number of blocks added.

        Raises:
            Unavailable: the node does not answer. Rejected: "wrong_chain_id"; what it says does not hash, or two blocks lie in one
                slot, or a finalized block was replaced ("finalized_reorg").
        """
        if self._beacon is None:
            await verify_chain_id(self._provider, self._profile.chain_id)
            header, block_hash, raw = await self._read(self._first)
            schedule = self._profile.build_schedule(header)
            first = ExecutionBlock(self._profile.lead_slots, block_hash, header, raw)
            self._beacon = BeaconSim(schedule, first, seed=self._profile.seed)
            self._blocks.append(first)
        newest = parse_integer(await call(self._provider, "eth_blockNumber", []), "eth_blockNumber")
        added = 0
        if newest < self.head.number:
            await self._drop_replaced()
        while self.head.number < newest:
            header, block_hash, raw = await self._read(self.head.number + 1)
            if header.parent_hash != self.head.hash:
                await self._drop_replaced()
                continue
            slot = self.beacon.schedule.get_slot(header.timestamp)
            if slot <= self.head.slot:
                raise Rejected(
                    "two blocks in one slot: slots must not be longer than the time between blocks",
                    got=header.timestamp,
                    expected=f"> {self.head.timestamp}",
                    reason="slot",
                )
            block = ExecutionBlock(slot, block_hash, header, raw)
            self.beacon.add(block)
            self._blocks.append(block)
            added += 1
        return added

    async def _drop_replaced(self) -> None:
        """Forget the newest blocks that the node has no more."""
        finalized = self.beacon.get_block(self.beacon.head.finalized_root)
        count = 0
        for block in reversed(self._blocks):
            found = await call(self._provider, "eth_getBlockByNumber", [hex(block.number), False])
            if isinstance(found, Mapping) and found.get("hash") == "0x" + block.hash.hex():
                break
            if block is self._blocks[0] or (finalized is not None and block.slot <= finalized.slot):
                raise Rejected("the node has replaced a finalized block", got=block.number, reason="finalized_reorg")
            count += 1
        if count:
            self.beacon.drop(count)
            del self._blocks[-count:]
            self.reorgs += 1

    async def _read(self, number: int) -> tuple[ExecutionHeader, bytes, tuple[RawTransaction, ...]]:
        found = await call(self._provider, "eth_getBlockByNumber", [hex(number), False])
        if found is None:
            raise Unavailable("the node has no such block (yet)", got=number, reason="not_found")
        header, block_hash = parse_block_header(found)
        if header.block_number != number:
            raise Rejected("another block than asked for", got=header.block_number, expected=number, reason="number")
        if header.difficulty or header.uncles_hash != EMPTY_UNCLES or header.withdrawals_root != EMPTY_TRIE:
            raise Rejected(
                "not a block of this devnet: difficulty, uncles or withdrawals", got=number, reason="payload"
            )
        hashes = found.get("transactions")
        if not isinstance(hashes, list) or len(hashes) > MAX_TRANSACTIONS:
            raise Rejected("transactions are an array", got=type(hashes).__name__, reason="bad_json")
        raw: list[bytes] = []
        for i in range(0, len(hashes), TRANSACTIONS_PER_CALL):
            asked = [[h] for h in hashes[i : i + TRANSACTIONS_PER_CALL]]
            answers = await call_each(self._provider, "eth_getRawTransactionByHash", asked)
            raw += [parse_hex(answer, "transaction", limit=1 << 20) for answer in answers]
        root = compute_transactions_root(raw)
        if root != header.transaction_root:
            raise Rejected(
                "the transactions of a block do not hash to its transactionsRoot",
                got=root,
                expected=header.transaction_root,
                reason="transactions_root",
            )
        return header, block_hash, tuple(RawTransaction(r) for r in raw)


# ---- serving ----------------------------------------------------------------------------------------------------------


class Sidecar:
    """The HTTP side: Beacon API routes over a follower, and the stream of events."""

    def __init__(self, follower: Follower, now: Callable[[], float] = time.time) -> None:
        self._follower = follower
        self._now = now
        self._subscribers: list[tuple[frozenset[str], asyncio.Queue[str | None]]] = []
        self._told: dict[str, Any] = {}
        self.app = web.Application()
        self.app.router.add_get("/eth/v1/events", self._stream)
        self.app.router.add_get("/eth/v1/node/health", self._get_health)
        self.app.router.add_get("/eth/v1/node/version", self._get_version)
        self.app.router.add_get("/eth/v1/node/syncing", self._get_syncing)
        self.app.router.add_get("/{path:.*}", self._get)
        self.app.on_shutdown.append(self._end_streams)

    def _get_slot(self) -> int:
        return self._follower.beacon.schedule.get_slot(int(self._now()))

    async def _get(self, request: web.Request) -> web.Response:
        if not self._follower.is_started:
            return web.json_response({"code": 503, "message": "not started"}, status=503)
        status, value = self._follower.beacon.handle(request.path, dict(request.query), self._get_slot())
        return web.json_response(value, status=status)

    async def _get_health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._follower.is_started else 503)

    async def _get_version(self, _: web.Request) -> web.Response:
        return web.json_response({"data": {"version": "optsettle-sidecar/1"}})

    async def _get_syncing(self, _: web.Request) -> web.Response:
        if not self._follower.is_started:
            return web.json_response({"code": 503, "message": "not started"}, status=503)
        head = self._follower.head.slot
        distance = max(self._get_slot() - head, 0)
        data = {"head_slot": str(head), "sync_distance": str(distance), "is_syncing": False, "is_optimistic": False}
        return web.json_response({"data": data | {"el_offline": False}})

    # ---- events

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        topics = frozenset(t for value in request.query.getall("topics", []) for t in value.split(","))
        if not topics or not topics <= set(TOPICS):
            return web.json_response({"code": 400, "message": f"topics: {', '.join(TOPICS)}"}, status=400)
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            return web.json_response({"code": 429, "message": "too many subscribers"}, status=429)
        entry = (topics, asyncio.Queue[str | None](MAX_BACKLOG_EVENTS))
        self._subscribers.append(entry)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        try:
            await response.prepare(request)
            while (text := await entry[1].get()) is not None:
                await response.write(text.encode())
        except ConnectionResetError:
            return response  # the subscriber went away
        finally:
            if entry in self._subscribers:
                self._subscribers.remove(entry)
        return response

    async def _end_streams(self, _: web.Application) -> None:
        for _topics, queue in self._subscribers:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    def publish(self) -> None:
        """Tell subscribers of the new head, and of what the committee signed with it."""
        if not self._subscribers:
            return
        beacon = self._follower.beacon
        head = beacon.head
        self._send("head", _describe_head(beacon, head))
        self.publish_updates()

    def publish_updates(self) -> None:
        """Tell subscribers of the light-client updates that the routes serve now, once each: a new slot alone makes new ones."""
        if not self._subscribers:
            return
        for name in ("optimistic_update", "finality_update"):
            status, value = self._follower.beacon.handle(f"/eth/v1/beacon/light_client/{name}", {}, self._get_slot())
            if status == 200 and value != self._told.get(name):
                self._told[name] = value
                self._send(f"light_client_{name}", value)

    def get_slot_end_s(self) -> float:
        """Seconds until the next slot begins."""
        schedule, now = self._follower.beacon.schedule, self._now()
        begin = schedule.genesis_time + (self._get_slot() + 1) * schedule.seconds_per_slot
        return float(max(0.0, begin - now))

    def _send(self, topic: str, value: Any) -> None:
        text = f"event: {topic}\ndata: {json.dumps(value)}\n\n"
        for entry in list(self._subscribers):
            topics, queue = entry
            if topic not in topics:
                continue
            if queue.full():
                self._subscribers.remove(entry)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(text)


def _describe_head(beacon: BeaconSim, head: BeaconBlock) -> dict[str, Any]:
    slots = beacon.schedule.preset.slots_per_epoch
    zero = "0x" + "00" * 32
    return {
        "slot": str(head.slot),
        "block": "0x" + head.root.hex(),
        "state": "0x" + head.state_root.hex(),
        "epoch_transition": head.slot % slots == 0,
        "previous_duty_dependent_root": zero,
        "current_duty_dependent_root": zero,
        "execution_optimistic": False,
    }


# ---- the process ------------------------------------------------------------------------------------------------------


def say(**fields: Any) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


async def run(execution_url: str, host: str, port: int, profile: Profile, *, first: int, patience_s: float) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Unavailable: the node did not answer within ``patience_s`` of the start. Rejected: the node's blocks do not hash, or make no chain.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    provider = HttpExecutionProvider(execution_url)
    follower = Follower(provider, profile, first)
    sidecar = Sidecar(follower)
    runner = web.AppRunner(sidecar.app, access_log=None, shutdown_timeout=2.0)
    try:
        await _start(follower, patience_s, stop)
        if stop.is_set():
            return
        await runner.setup()
        site = web.TCPSite(runner, host, port)
        await site.start()
        address = runner.addresses[0]
        schedule = follower.beacon.schedule
        say(
            event="ready",
            url=f"http://{address[0]}:{address[1]}",
            chain_id=profile.chain_id,
            genesis_time=schedule.genesis_time,
            genesis_validators_root="0x" + schedule.genesis_validators_root.hex(),
            first_root="0x" + follower.beacon.blocks[0].root.hex(),
            seconds_per_slot=schedule.seconds_per_slot,
            slots_per_epoch=schedule.preset.slots_per_epoch,
            epochs_per_period=schedule.preset.epochs_per_period,
            settings=encode_settings(LightClientConfig(schedule)),
        )
        await _follow(follower, sidecar, stop)
    finally:
        await runner.cleanup()
        await provider.disconnect()


async def _start(follower: Follower, patience_s: float, stop: asyncio.Event) -> None:
    deadline = time.monotonic() + patience_s
    while not stop.is_set():
        try:
            await follower.advance()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            await _wait(stop, 0.2)
        else:
            return


async def _follow(follower: Follower, sidecar: Sidecar, stop: asyncio.Event) -> None:
    pause_s = follower.beacon.schedule.seconds_per_slot / POLLS_PER_SLOT
    is_lost = is_finalized_told = False
    while not stop.is_set():
        try:
            if await follower.advance():
                sidecar.publish()
            sidecar.publish_updates()
            if is_lost:
                say(event="node_back", number=follower.head.number)
                is_lost = False
        except Unavailable as error:
            if not is_lost:
                say(event="node_lost", detail=str(error))
                is_lost = True
        beacon = follower.beacon
        if not is_finalized_told and (block := beacon.get_finalized(beacon.head.slot)) is not None:
            say(event="finalized", checkpoint="0x" + block.root.hex(), slot=block.slot)
            is_finalized_told = True
        await _wait(stop, min(pause_s, sidecar.get_slot_end_s() + SLOT_EDGE_S))


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m chains.evm.sidecar`; exit code 1 when the node is not usable."""
    parser = argparse.ArgumentParser(prog="python -m chains.evm.sidecar", description="a devnet's consensus layer")
    parser.add_argument("--execution-url", required=True, help="JSON-RPC of the node to follow")
    parser.add_argument("--chain-id", type=int, required=True, help="its EIP-155 chain id")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one; told on stdout")
    parser.add_argument("--slot-seconds", type=int, default=Profile.seconds_per_slot)
    parser.add_argument("--slots-per-epoch", type=int, default=Profile.slots_per_epoch)
    parser.add_argument("--epochs-per-period", type=int, default=Profile.epochs_per_period)
    parser.add_argument("--lead-slots", type=int, default=0, help="slots before the node's first block")
    parser.add_argument("--first-block", type=int, default=0)
    parser.add_argument("--seed", default=Profile.seed.decode(), help="fixes the committees")
    parser.add_argument("--patience-s", type=float, default=30.0, help="how long to wait for the node at the start")
    options = parser.parse_args(arguments)
    profile = Profile(
        options.chain_id,
        options.slot_seconds,
        options.slots_per_epoch,
        options.epochs_per_period,
        options.lead_slots,
        options.seed.encode(),
    )
    try:
        asyncio.run(
            run(
                options.execution_url,
                options.host,
                options.port,
                profile,
                first=options.first_block,
                patience_s=options.patience_s,
            )
        )
    except (RelayerError, OSError) as error:
        say(event="failed", reason=getattr(error, "reason", "") or type(error).__name__, detail=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
