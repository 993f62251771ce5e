"""A tiny chain family for tests of the node: real folding, real certificates, trivial consensus (one signing key).

The chain is a log of operations, one block each, in memory or in a file. The file form is shared by processes: killing a node
can't touch it, which is what crash tests need. Each endpoint of its reader can be told to misbehave.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chains.base import Chain, Codec, Head, Outcome, Point, Reader, SignedTx, Span, Submitter, Verifier
from messages.bodies import (
    EVM_LIMITS,
    Ack,
    DecideTrades,
    DecideWithdrawals,
    Execute,
    LegKind,
    OutboxBody,
    TradeItem,
    WithdrawalItem,
    decode_inbox_body,
    decode_outbox_body,
    encode_body,
    make_inbox_packet,
    make_outbox_packet,
)
from messages.digests import Certificate, get_address, recover_signer, sign_digest, verify_certificate
from messages.documents import (
    MarketSnapshot,
    OpenPackets,
    Parameters,
    Plan,
    PlannedPacket,
    VaultParameters,
    compute_digest,
)
from messages.errors import Conflict, Rejected, Unavailable
from messages.hashing import keccak256
from messages.outbox import Claim, ProvenHead
from messages.packet import Packet, compute_commitment, decode_packet_abi, encode_packet_abi
from relayer.rules.ledger import (
    Ledger,
    apply_facts,
    get_expected_tier,
    get_initial_state,
    get_state_at,
    get_vault_id,
)
from relayer.rules.plan import PlanResult
from tests.builders import START, make_facts, make_key

CHAIN_KEY = make_key("toy consensus")


@dataclass(frozen=True)
class ToyHeader:
    height: int
    time: int
    root: bytes
    signature: bytes

    @property
    def hash(self) -> bytes:
        return keccak256(self.height.to_bytes(8, "big") + self.time.to_bytes(8, "big") + self.root)


def sign_header(height: int, time: int, root: bytes, key: bytes = CHAIN_KEY) -> ToyHeader:
    bare = ToyHeader(height, time, root, b"")
    return replace(bare, signature=sign_digest(key, bare.hash))


class ToyChain:
    """One vault on one chain. ``path``: the log is a file that other processes share."""

    def __init__(self, vault: VaultParameters, path: Path | None = None) -> None:
        self.vault = vault
        self.vault_id = get_vault_id(vault)
        self.chain_id = vault.chain
        self._path = path
        self._offset = 0
        self.finality_lag = 0
        self.is_stalled_at: int | None = None
        self.state = get_initial_state(vault)
        self.times = [START]
        self.positions = [(0, self.vault_id)]  # (outbox sequence, head) after each block
        self.packets: list[tuple[Packet, Packet | None]] = []
        self.results: dict[str, bool] = {}
        self.received: list[tuple[int, bool]] = []  # (inbox sequence, accepted) of every transaction that got in
        self.drop_transactions = False

    # ---- the log

    def sync(self) -> None:
        if self._path is not None and self._path.exists():
            with self._path.open() as file:
                file.seek(self._offset)
                for line in file:
                    if line.endswith("\n"):
                        self._offset += len(line)
                        self._apply(json.loads(line))

    def _submit(self, op: dict) -> None:
        if self._path is None:
            self._apply(op)
            return
        with self._path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self.sync()
            file.write(json.dumps(op) + "\n")
            file.flush()
        self.sync()

    def _apply(self, op: dict) -> None:
        time = max(op["time"], self.times[-1])
        if op["op"] == "user":
            self._put(time, decode_outbox_body(bytes.fromhex(op["body"])), None)
        elif op["op"] == "recv":
            self._recv(time, op["raw"])
        self.times.append(time)
        self.positions.append((self.state.outbox_sequence, self.state.outbox_head))

    def _put(self, time: int, body: OutboxBody, inbox: Packet | None) -> None:
        packet = make_outbox_packet(self.vault_id, len(self.packets) + 1, time, body)
        self.packets.append((packet, inbox))
        from messages.outbox import Cursor

        cursor = Cursor(self.vault_id, self.state.outbox_sequence, self.state.outbox_head)
        self.state = apply_facts(self.state, make_facts(self.vault_id, [(packet, inbox)], cursor=cursor))

    def _recv(self, time: int, raw: str) -> None:
        tx_id = keccak256(raw.encode()).hex()
        if self.results.get(tx_id) is not None:
            return
        certificate = decode_certificate(raw)
        packet = certificate.packet
        self.results[tx_id] = False
        state = get_state_at(self.state, time)
        try:
            if packet.sequence != state.inbox_sequence + 1 or not time < packet.timeout_timestamp <= time + 86_400:
                raise Rejected("reverts", reason="reverts")
            verify_certificate(certificate, state.operators, state.threshold)
            body = decode_inbox_body(packet.payloads[0].value, EVM_LIMITS)
        except Rejected:
            self.received.append((packet.sequence, False))
            return
        self.results[tx_id] = True
        self.received.append((packet.sequence, True))
        status, reason, bitmap = 1, 0, 0
        free = dict(state.free)
        if isinstance(body, Execute):
            for leg in body.legs:
                if leg.kind == LegKind.CASH and free.get((leg.account, leg.id), 0) + leg.delta < 0:
                    status, reason = 2, 9
        elif isinstance(body, DecideTrades):
            for i, item in enumerate(body.items):
                trade = state.trades.get((item.taker, item.offer, item.nonce))
                if trade is None or trade.id != item.id or time >= trade.valid_until:
                    continue
                if free.get((trade.buyer, trade.asset), 0) >= trade.cost:
                    free[trade.buyer, trade.asset] = free.get((trade.buyer, trade.asset), 0) - trade.cost
                    free[trade.seller, trade.asset] = free.get((trade.seller, trade.asset), 0) + trade.cost
                    bitmap |= 1 << i
        elif isinstance(body, DecideWithdrawals):
            for i, item in enumerate(body.items):
                request = state.requests.get((item.account, item.asset))
                if request is None or request.id != item.id:
                    continue
                if free.get((item.account, item.asset), 0) >= request.amount:
                    free[item.account, item.asset] -= request.amount
                    bitmap |= 1 << i
        ack = Ack(packet.sequence, compute_commitment(packet), body.KIND, status, reason, bitmap)
        self._put(time, ack, packet)

    # ---- what happens on it

    def put(self, body: OutboxBody, time: int) -> None:
        """A user's call that emits ``body``, in a block of its own."""
        self._submit({"op": "user", "time": time, "body": encode_body(body).hex()})

    def mine(self, time: int) -> None:
        """An empty block."""
        self._submit({"op": "block", "time": time})

    def receive(self, raw: str, time: int) -> None:
        """A transaction with a certificate, in a block of its own."""
        if not self.drop_transactions:
            self._submit({"op": "recv", "time": time, "raw": raw})

    def get_finalized(self) -> int:
        self.sync()
        height = max(0, len(self.times) - 1 - self.finality_lag)
        return height if self.is_stalled_at is None else min(height, self.is_stalled_at)

    def get_header(self, height: int) -> ToyHeader:
        sequence, head = self.positions[height]
        del sequence
        return sign_header(height, self.times[height], keccak256(self.vault_id + head))


def encode_certificate(certificate: Certificate, nonce: int, account: str) -> str:
    return json.dumps(
        {
            "packet": encode_packet_abi(certificate.packet).hex(),
            "vault": certificate.vault_id.hex(),
            "epoch": certificate.operator_epoch,
            "signatures": [s.hex() for s in certificate.signatures],
            "nonce": nonce,
            "account": account,
        }
    )


def decode_certificate(raw: str) -> Certificate:
    obj = json.loads(raw)
    return Certificate(
        decode_packet_abi(bytes.fromhex(obj["packet"])),
        bytes.fromhex(obj["vault"]),
        obj["epoch"],
        tuple(bytes.fromhex(s) for s in obj["signatures"]),
    )


class ToyReader(Reader):
    """Endpoints by name; ``faults`` maps a name to down, withhold, forge, stale or fork."""

    def __init__(self, chain: ToyChain, sources: Sequence[str] = ("one", "two")) -> None:
        self.chain = chain
        self._sources = tuple(sources)
        self.faults: dict[str, str] = {}

    @property
    def sources(self) -> Sequence[str]:
        return self._sources

    def _check(self, source: str) -> str:
        fault = self.faults.get(source, "")
        if fault == "down":
            raise Unavailable("no answer", reason="down", source=source)
        return fault

    async def bootstrap(self, source: str) -> ToyHeader:
        self._check(source)
        return self.chain.get_header(0)

    async def update(self, source: str, trusted: ToyHeader) -> ToyHeader | None:
        fault = self._check(source)
        height = self.chain.get_finalized()
        if height <= trusted.height or fault.startswith("stale"):
            return None
        header = self.chain.get_header(height)
        if fault == "bad_signature":
            return replace(header, time=header.time + 1)
        return header

    async def head(self, source: str, trusted: ToyHeader) -> tuple[Head, bytes]:
        self._check(source)
        sequence, head = self.chain.positions[trusted.height]
        return Head(sequence, head), head

    async def packets(self, source: str, span: Span) -> Sequence[Claim]:
        fault = self._check(source)
        if fault.endswith("no_packets"):
            raise Unavailable("no packets here", reason="down", source=source)
        claims = [Claim(p, inbox) for p, inbox in self.chain.packets[span.after_sequence : span.upto_sequence]]
        if fault == "withhold":
            claims = claims[:-1]
        if fault == "forge" and claims:
            packet = claims[-1].packet
            claims[-1] = replace(claims[-1], packet=replace(packet, timeout_timestamp=packet.timeout_timestamp + 1))
        return claims


class ToyVerifier(Verifier):
    def __init__(self, vault: VaultParameters) -> None:
        self.vault_id = get_vault_id(vault)
        self.chain_id = vault.chain
        self.tier = get_expected_tier(vault)

    def _verify_signature(self, header: ToyHeader) -> None:
        if recover_signer(header.hash, header.signature) != get_address(CHAIN_KEY):
            raise Rejected("a header nobody signed", reason="bad_header")

    def verify_bootstrap(self, bootstrap: ToyHeader, now: int) -> ToyHeader:
        self._verify_signature(bootstrap)
        if bootstrap.height != 0:
            raise Rejected("not the checkpoint", reason="checkpoint")
        return bootstrap

    def verify_update(self, trusted: ToyHeader, update: ToyHeader, now: int) -> ToyHeader:
        if update.height < trusted.height or update.time < trusted.time:
            raise Rejected("an old header", got=update.height, expected=trusted.height, reason="old_header")
        self._verify_signature(update)
        if update.height == trusted.height:
            if update.hash != trusted.hash:
                raise Conflict("two headers at one height", reason="two_headers")
            raise Rejected("nothing new", reason="old_header")
        return update

    def verify_head(self, trusted: ToyHeader, head: Head, proof: bytes) -> ProvenHead:
        if keccak256(self.vault_id + proof) != trusted.root:
            raise Rejected("not under this root", reason="bad_proof")
        return ProvenHead(
            self.vault_id,
            self.chain_id,
            trusted.height,
            trusted.hash,
            trusted.time,
            proof,
            self.tier,
            keccak256(proof),
        )

    def get_point(self, trusted: ToyHeader) -> Point:
        return Point(trusted.height, trusted.hash, trusted.time)

    def is_fresh(self, trusted: ToyHeader, now: int) -> bool:
        return now - trusted.time < 30 * 86_400


class ToyCodec(Codec):
    def encode_trusted(self, trusted: ToyHeader) -> bytes:
        return trusted.height.to_bytes(8, "big") + trusted.time.to_bytes(8, "big") + trusted.root + trusted.signature

    def decode_trusted(self, data: bytes) -> ToyHeader:
        if len(data) != 113:
            raise Rejected("length of a header", got=len(data), reason="malformed")
        return ToyHeader(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big"), data[16:48], data[48:])

    encode_bootstrap = encode_update = encode_trusted
    decode_bootstrap = decode_update = decode_trusted

    def encode_proof(self, proof: bytes) -> bytes:
        return proof

    def decode_proof(self, data: bytes) -> bytes:
        return data


class ToySubmitter(Submitter):
    """Includes what is sent at once, at the time of ``clock``."""

    account = ""

    def __init__(self, chain: ToyChain, account: str, clock) -> None:
        self.chain = chain
        self.account = account
        self.clock = clock
        self.sent: list[str] = []

    async def prepare(self, certificate: Certificate, previous: Sequence[SignedTx]) -> SignedTx:
        self.chain.sync()
        same = [t for t in previous if t.packet_sequence == certificate.packet.sequence]
        nonce = same[-1].nonce if same else len(self.chain.results)
        fee = same[-1].max_fee * 11 // 10 if same else 100
        raw = encode_certificate(certificate, nonce, f"{self.account} {fee}")
        return SignedTx(
            self.chain.chain_id,
            certificate.vault_id,
            certificate.packet.sequence,
            self.account,
            nonce,
            fee,
            1,
            keccak256(raw.encode()).hex(),
            raw.encode(),
        )

    async def send(self, signed: SignedTx) -> str:
        self.sent.append(signed.tx_id)
        self.chain.receive(signed.raw.decode(), self.clock.now())
        return signed.tx_id

    async def outcome(self, signed: SignedTx) -> Outcome:
        self.chain.sync()
        result = self.chain.results.get(signed.tx_id)
        return Outcome.UNKNOWN if result is None else Outcome.INCLUDED if result else Outcome.FAILED


def make_toy_chain(chain: ToyChain, account: str, clock) -> Chain:
    """The `Chain` one node uses: own reader and submitter over the shared chain."""
    return Chain(
        chain_id=chain.chain_id,
        family="evm",
        vault_id=chain.vault_id,
        start_height=0,
        limits=EVM_LIMITS,
        reader=ToyReader(chain),
        verifier=ToyVerifier(chain.vault),
        codec=ToyCodec(),
        submitter=ToySubmitter(chain, account, clock),
    )


class ToyPlanner:
    """Settles every trade and every request with one packet per vault; no prices, no margin."""

    def compute_market(self, now, ledger: Ledger, parameters, reports, marks) -> MarketSnapshot:
        return MarketSnapshot(now, (), (), ())

    def verify_market(self, market: MarketSnapshot, parameters, previous_now: int, own_now: int) -> None:
        if market.reports:
            raise Rejected("the toy planner knows no prices", reason="toy")

    def compute_plan(
        self, ledger: Ledger, market: MarketSnapshot, parameters: Parameters, k: int, open_packets: OpenPackets
    ) -> PlanResult:
        busy = {p.vault_id for p in open_packets.packets if ledger.entries[p.vault_id].time < p.timeout}
        packets = []
        for entry in ledger.cut.entries:
            state = ledger.states[entry.vault_id]
            if entry.vault_id in busy:
                continue
            trades = sorted(state.trades.values(), key=lambda t: t.sequence)
            requests = sorted(state.requests.values(), key=lambda r: r.sequence)
            if trades:
                items = tuple(TradeItem(t.id, t.taker, t.offer, t.nonce) for t in trades)
                body = DecideTrades(bytes(32), state.outbox_sequence, items)
            elif requests:
                body = DecideWithdrawals(bytes(32), tuple(WithdrawalItem(r.id, r.account, r.asset) for r in requests))
            else:
                continue
            packet = make_inbox_packet(entry.vault_id, state.inbox_sequence + 1, entry.time + 600, body)
            packets.append(
                PlannedPacket(
                    entry.vault_id,
                    state.operator_epoch,
                    packet.sequence,
                    packet.timeout_timestamp,
                    packet.payloads[0].value,
                    "toy",
                )
            )
        plan = Plan(
            k,
            compute_digest(ledger.cut),
            compute_digest(market),
            compute_digest(parameters),
            compute_digest(open_packets),
            tuple(packets),
        )
        return PlanResult(plan, (), {})
