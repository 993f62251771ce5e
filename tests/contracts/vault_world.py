"""A vault with its tokens on the chain of `harness.py`, and the clearing that certifies packets for it.

Every state change goes through `World.send`, which checks what must hold for any call: at most one outbox packet, its
bytes canonical and its number next, the head in storage equal to the fold of all packets so far, nothing moved by a revert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from eth_abi import encode

from contracts.evm import OUTBOX_HEAD_SLOT, OUTBOX_SEQUENCE_SLOT, get_artifact, get_outbox_sequence
from contracts.evm.compile import compile_source
from messages.bodies import (
    Ack,
    OutboxBody,
    decode_outbox_body,
)
from messages.digests import compute_vault_id
from messages.hashing import keccak256
from messages.outbox import compute_next_head
from messages.packet import Packet, compute_commitment, decode_packet_abi
from tests.contracts.clearing import Clearing
from tests.contracts.harness import PLENTY_GAS, Chain, Contract, Log, Reverted, encode_constructor, get_signature
from tests.contracts.twins import Twin

HOUSE = bytes.fromhex("dd43f5b40046428a4b3e2b7ca676fa87fd9bbfaf3c4ec0ec072d8326f663fe41")
INSURANCE = bytes.fromhex("d5e87c0d3b546fbf6768f0b13f2497f6e65a7cf6f2a0017570dc90ff0a27cd32")
TOKENS_FOLDER = Path(__file__).resolve().parent / "tokens"
TOPICS = {
    keccak256(get_signature(item).encode()): item["name"]
    for item in get_artifact("vault").abi
    if item["type"] == "event"
}

Caps = Mapping[bytes, Sequence[int]]


def pad(address: bytes) -> bytes:
    """Return the 32-byte id of an address."""
    return address.rjust(32, b"\0")


def compute_slot(base: int, *keys: bytes) -> int:
    """Return the storage slot of a mapping's entry as vyper lays it out: keccak256(slot || key), key by key."""
    slot = base.to_bytes(32, "big")
    for key in keys:
        slot = keccak256(slot + key)
    return int.from_bytes(slot, "big")


def encode_packet(packet: Packet) -> bytes:
    """Return abi.encode of any packet, also of one that `messages` refuses to make; a second encoder beside ours."""
    kind = "(uint64,string,string,uint64,(string,string,string,string,bytes)[])"
    payloads = [(p.source_port, p.destination_port, p.version, p.encoding, p.value) for p in packet.payloads]
    return encode(
        [kind],
        [(packet.sequence, packet.source_client, packet.destination_client, packet.timeout_timestamp, payloads)],
    )


@cache
def compile_token(name: str) -> tuple[Sequence[Mapping[str, object]], bytes]:
    """Return (abi, creation code) of a token below tests/contracts/tokens."""
    out = compile_source((TOKENS_FOLDER / f"{name}.vy").read_text(), name)
    return out["abi"], bytes.fromhex(out["bytecode"][2:])


@dataclass(frozen=True)
class Outcome:
    """What a call did: its output, the outbox packet and the inbox packet it emitted, all logs, and its gas."""

    value: object
    packet: Packet | None
    inbox: Packet | None
    logs: tuple[Log, ...]
    execution_gas: int
    refund: int

    @property
    def out(self) -> bytes | None:
        """The payload value of the outbox packet."""
        return self.packet.payloads[0].value if self.packet else None

    @property
    def body(self) -> OutboxBody:
        assert self.out is not None
        return decode_outbox_body(self.out)

    @property
    def ack(self) -> Ack:
        body = self.body
        assert isinstance(body, Ack)
        return body


class World(Clearing):
    """One vault.

    ``operator_keys`` sign for it in `sign` and `recv`; ``twin`` takes the place of the artefact
    (vulnerable twins); ``at`` is the vault's address, else the deployer's nonce gives it; ``chain`` is another EVM
    than the usual one, with its time set already.
    """

    def __init__(
        self,
        operators: Sequence[bytes],
        threshold: int,
        treasurer: bytes,
        caps: Caps,
        delay: int = 86_400,
        time: int = 1_800_000_000,
        deployer: bytes = b"\xdd" * 20,
        operator_keys: Sequence[bytes] = (),
        twin: Twin | None = None,
        chain_id: int = 1,
        at: bytes | None = None,
        chain: Chain | None = None,
    ) -> None:
        self.chain = chain if chain is not None else Chain(chain_id=chain_id, time=time)
        if twin is not None:
            self.chain.use_twin(twin.coinbase)
        self.time = time
        self.deployer = deployer
        self.set_operators(operator_keys, threshold)
        artifact = get_artifact("vault")
        address = self.chain.deploy(
            deployer,
            encode_constructor(
                artifact.abi,
                twin.code if twin else artifact.bytecode,
                operators,
                threshold,
                treasurer,
                delay,
                [(asset, *numbers) for asset, numbers in caps.items()],
            ),
            at,
        )
        self.vault = Contract(self.chain, address, artifact.abi)
        self.begin(compute_vault_id(f"eip155:{chain_id}", pad(address)))
        self.tokens: dict[bytes, Contract] = {}

    # ---- tokens ----

    def deploy_token(self, name: str = "", *args: object) -> bytes:
        """Deploy a token of tests/contracts/tokens, or the plain one, from the deployer; return its asset id."""
        if name:
            abi, code = compile_token(name)
        else:
            artifact = get_artifact("erc20")
            abi, code = artifact.abi, artifact.bytecode
            args = args or ("Token", "TKN", 6)
        address = self.chain.deploy(self.deployer, encode_constructor(abi, code, *args))
        self.tokens[pad(address)] = Contract(self.chain, address, abi)
        return pad(address)

    def fund(self, asset: bytes, owner: bytes, amount: int) -> None:
        """Give ``owner`` tokens and let the vault pull them."""
        token = self.tokens[asset]
        token.write("mint", owner, amount, by=self.deployer)
        token.write("approve", self.vault.address, 2**256 - 1, by=owner)

    def get_held(self, asset: bytes) -> int:
        return int(self.tokens[asset].read("balanceOf", self.vault.address))

    # ---- calls ----

    def set_time(self, time: int) -> None:
        self.time = time
        self.chain.set_time(time)

    def write(self, name: str, *args: object, by: bytes) -> Outcome:
        """Send a call and check what must hold for every call."""
        return self.send(name, self.vault.encode_call(name, *args), by)

    def send(self, name: str, data: bytes, by: bytes, gas: int = PLENTY_GAS) -> Outcome:
        before = (self.get_head(), self.get_cursors())
        try:
            result = self.vault.send(name, data, by, gas)
        except Reverted:
            assert (self.get_head(), self.get_cursors()) == before, "a revert moved the outbox"
            raise
        events = [(TOPICS[log.topics[0]], log) for log in result.logs if log.address == self.vault.address]
        packet = self._read_packet([log for kind, log in events if kind == "Outbox"])
        inbox = self._read_packet([log for kind, log in events if kind == "Inbox"])
        if packet is not None:
            self.sequence += 1
            assert packet.sequence == self.sequence
            assert packet == self.make_outbox_packet(packet.payloads[0].value)
            self.head = compute_next_head(self.head, self.sequence, compute_commitment(packet))
            self.packets.append(packet)
        assert self.get_head() == self.head
        assert get_outbox_sequence(self.get_cursors()) == self.sequence
        outputs = result.outputs
        return Outcome(outputs[0] if outputs else None, packet, inbox, result.logs, result.execution_gas, result.refund)

    def _read_packet(self, logs: Sequence[Log]) -> Packet | None:
        assert len(logs) <= 1, "more than one packet of one direction"
        if not logs:
            return None
        packet = decode_packet_abi(logs[0].data)  # strict: the event is the canonical encoding
        assert logs[0].topics[1:] == (packet.sequence.to_bytes(32, "big"),)
        return packet

    def get_head(self) -> bytes:
        return self.chain.get_storage(self.vault.address, OUTBOX_HEAD_SLOT).to_bytes(32, "big")

    def get_entry(self, mapping: str, *keys: bytes) -> int:
        """Return the raw first word of a mapping's entry, e.g. get_entry("balances", account, asset)."""
        slot = compute_slot(get_artifact("vault").storage_slots[mapping], *keys)
        return self.chain.get_storage(self.vault.address, slot)

    def get_cursors(self) -> int:
        return self.chain.get_storage(self.vault.address, OUTBOX_SEQUENCE_SLOT)

    # ---- the clearing ----

    def encode_recv(self, packet: Packet, signatures: Sequence[bytes]) -> bytes:
        return self.vault.encode_call("recv", encode_packet(packet), b"".join(signatures))

    def bring(self, packet: Packet, signatures: Sequence[bytes], by: bytes = b"\xaa" * 20) -> Outcome:
        """Send recv and check what must hold for an accepted packet."""
        out = self.send("recv", self.encode_recv(packet, signatures), by)
        self.verify_answered(packet, out.inbox, out.out)
        return out
