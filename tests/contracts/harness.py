"""A chain in memory that runs contract *bytecode*: titanoboa's EVM without its compiler objects.

Nothing here knows what a vault should do; callers compare. A call is encoded with the artefact's ABI, a revert raises
`Reverted`, and every call is a transaction of its own (fresh transient storage, cold storage slots).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import boa
from boa.util.abi import Address
from eth_abi import decode, encode

from messages.hashing import keccak256

PLENTY_GAS = 100_000_000
PRECOMPILES = [bytes(19) + bytes([i]) for i in range(1, 11)]


class Reverted(Exception):
    """A call reverted; ``reason`` is the word of Error(string), or the raw data in hex."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Log:
    """One event: 20-byte emitter, 32-byte topics, data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True)
class Result:
    """What a successful call gave: decoded outputs, events in order, gas without the 21,000 and calldata, refund counter."""

    outputs: tuple[Any, ...]
    logs: tuple[Log, ...]
    execution_gas: int
    refund: int


def get_type(item: Mapping[str, Any]) -> str:
    """Return the canonical ABI type of an input, output or component."""
    kind = item["type"]
    if kind.startswith("tuple"):
        return "(" + ",".join(map(get_type, item["components"])) + ")" + kind[5:]
    return str(kind)


def get_signature(item: Mapping[str, Any]) -> str:
    """Return e.g. "deposit(bytes32,uint256,bytes32)" for an ABI entry."""
    return item["name"] + "(" + ",".join(map(get_type, item["inputs"])) + ")"


def read_reason(output: bytes) -> str:
    """Return the text of Error(string) revert data, else its hex."""
    if output[:4] == keccak256(b"Error(string)")[:4]:
        return str(decode(["string"], output[4:])[0])
    return output.hex()


class Chain:
    """One EVM with a clock that is set by hand."""

    def __init__(self, chain_id: int = 1, time: int = 1_800_000_000) -> None:
        self.env = boa.Env(fast_mode_enabled=True)
        self.set_chain_id(chain_id)
        self.set_time(time)

    def set_time(self, time: int) -> None:
        self.env.evm.patch.timestamp = time

    def set_chain_id(self, chain_id: int) -> None:
        self.env.evm.patch.chain_id = chain_id

    def use_twin(self, coinbase: int) -> None:
        """Let contracts be larger than on chain, and switch a weakness on (`twins`)."""
        self.env.evm.patch.code_size_limit = 2**17
        self.env.evm.patch.coinbase = coinbase.to_bytes(20, "big")

    def _begin(self, *warm: bytes) -> None:
        # titanoboa keeps one state for ever; a real chain begins each transaction like this (EIP-1153, 2929, 3529)
        state = self.env.evm.vm.state
        state.lock_changes()
        state.clear_transient_storage()
        self.env._reset_access_counters()
        for address in (*PRECOMPILES, *warm):
            state.mark_address_warm(address)

    def deploy(self, sender: bytes, bytecode: bytes, at: bytes | None = None) -> bytes:
        """Return the address of the new contract: of sender and its nonce, or ``at``; Reverted when creation fails."""
        self._begin()
        address, computation = self.env.deploy(
            sender=Address(sender), bytecode=bytecode, override_address=Address(at) if at else None
        )
        if computation.is_error:
            raise Reverted(read_reason(computation.output))
        return bytes(address.canonical_address)

    def execute(
        self,
        to: bytes,
        data: bytes,
        sender: bytes = bytes(19) + b"\x99",
        view: bool = False,
        gas: int = PLENTY_GAS,
        keep: bool = True,
    ) -> Any:
        """Return the computation of one call; Reverted on failure. Without ``keep`` the state stays as it was."""
        self._begin(sender, to)
        snapshot = None if keep else self.env.evm.snapshot()
        computation = self.env.execute_code(
            to_address=Address(to), sender=Address(sender), data=data, is_modifying=not view, gas=gas
        )
        if snapshot is not None:
            self.env.evm.revert(snapshot)
        if computation.is_error:
            raise Reverted(read_reason(computation.output))
        return computation

    def get_storage(self, address: bytes, slot: int) -> int:
        return int(self.env.evm.get_storage(Address(address), slot))

    def get_code(self, address: bytes) -> bytes:
        return bytes(self.env.evm.get_code(Address(address)))


class Contract:
    """A deployed contract and its ABI."""

    def __init__(self, chain: Chain, address: bytes, abi: Sequence[Mapping[str, Any]]) -> None:
        self.chain = chain
        self.address = address
        self.abi = {item["name"]: item for item in abi if item["type"] == "function"}

    def encode_call(self, name: str, *args: object) -> bytes:
        """Return the calldata of a call."""
        item = self.abi[name]
        types = [get_type(i) for i in item["inputs"]]
        return keccak256(get_signature(item).encode())[:4] + encode(types, args)

    def read(self, name: str, *args: object) -> Any:
        """Return the output of a view: one value, or a tuple of them."""
        computation = self.chain.execute(self.address, self.encode_call(name, *args), view=True)
        outputs = self._decode(name, computation.output)
        return outputs[0] if len(outputs) == 1 else outputs

    def write(self, name: str, *args: object, by: bytes) -> Result:
        """Send a call from ``by`` (20 bytes); Reverted on failure."""
        return self.send(name, self.encode_call(name, *args), by)

    def send(self, name: str, data: bytes, by: bytes, gas: int = PLENTY_GAS, keep: bool = True) -> Result:
        """Send raw calldata and decode the outputs of function ``name``; Reverted on failure."""
        computation = self.chain.execute(self.address, data, sender=by, gas=gas, keep=keep)
        logs = tuple(
            Log(address, tuple(t.to_bytes(32, "big") for t in topics), data)
            for address, topics, data in computation.get_log_entries()
        )
        gas, refund = computation.get_gas_used(), computation.get_gas_refund()
        return Result(self._decode(name, computation.output), logs, gas, refund)

    def _decode(self, name: str, output: bytes) -> tuple[Any, ...]:
        return tuple(decode([get_type(o) for o in self.abi[name]["outputs"]], output))


def encode_constructor(abi: Sequence[Mapping[str, Any]], bytecode: bytes, *args: object) -> bytes:
    """Return creation code with its arguments."""
    inputs = next((item["inputs"] for item in abi if item["type"] == "constructor"), [])
    return bytecode + encode([get_type(i) for i in inputs], args)
