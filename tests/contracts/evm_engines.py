"""EVMs for long histories: a chain that can be taken back to an earlier state, on revm where it is installed, else on py-evm.

Both run the same bytecode; revm (pip `pyrevm`) is some ten times faster. `test_lock_step.py` compares them with each other.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.contracts.harness import PLENTY_GAS, Chain, Reverted, read_reason

HAS_REVM = importlib.util.find_spec("pyrevm") is not None


class BoaChain(Chain):
    """The chain of `harness.py` with a journal that is kept: warm slots and their gas are of no interest here."""

    def _begin(self, *warm: bytes) -> None:
        self.env.evm.vm.state.clear_transient_storage()

    def save(self) -> Callable[[], None]:
        """Return what takes the chain back to now, once."""
        snapshot, time = self.env.evm.snapshot(), self.env.evm.patch.timestamp

        def restore() -> None:
            self.env.evm.revert(snapshot)
            self.set_time(time)

        return restore


@dataclass(frozen=True)
class _Computation:
    """What `harness.Contract` asks of a call."""

    output: bytes
    logs: tuple[tuple[bytes, list[int], bytes], ...]
    gas_used: int

    def get_log_entries(self) -> tuple[tuple[bytes, list[int], bytes], ...]:
        return self.logs

    def get_gas_used(self) -> int:
        return self.gas_used

    def get_gas_refund(self) -> int:
        return 0


class RevmChain(Chain):
    """The same on revm, an EVM in Rust."""

    def __init__(self, chain_id: int = 1, time: int = 1_800_000_000) -> None:
        self.revm: Any = importlib.import_module("pyrevm")
        config = self.revm.CfgEnv(chain_id=chain_id, limit_contract_code_size=2**17)
        self.evm = self.revm.EVM(env=self.revm.Env(cfg=config), spec_id="CANCUN")
        self.coinbase = 0
        self.set_time(time)

    def set_time(self, time: int) -> None:
        self.time = time
        coinbase = "0x" + self.coinbase.to_bytes(20, "big").hex()
        self.evm.set_block_env(self.revm.BlockEnv(timestamp=time, coinbase=coinbase, gas_limit=2**63))

    def set_chain_id(self, chain_id: int) -> None:
        raise NotImplementedError("the chain id is fixed at the start")

    def use_twin(self, coinbase: int) -> None:
        self.coinbase = coinbase
        self.set_time(self.time)

    def deploy(self, sender: bytes, bytecode: bytes, at: bytes | None = None) -> bytes:
        assert at is None
        try:
            address = self.evm.deploy("0x" + sender.hex(), bytecode, gas=PLENTY_GAS)
        except RuntimeError as error:
            raise Reverted(str(error)) from error
        return bytes.fromhex(address[2:])

    def execute(
        self,
        to: bytes,
        data: bytes,
        sender: bytes = bytes(19) + b"\x99",
        view: bool = False,
        gas: int = PLENTY_GAS,
        keep: bool = True,
    ) -> Any:
        assert keep
        try:
            output = self.evm.message_call("0x" + sender.hex(), "0x" + to.hex(), calldata=data, gas=gas, is_static=view)
        except RuntimeError as error:  # how pyrevm tells that a call reverted or halted
            _, _, output = str(error).partition("output: 0x")
            raise Reverted(read_reason(bytes.fromhex(output.rstrip(" }"))) if output else str(error)) from error
        result = self.evm.result
        logs = tuple(
            (bytes.fromhex(log.address[2:]), [int(t, 16) for t in log.topics], bytes(log.data[1]))
            for log in result.logs
        )
        return _Computation(bytes(output), () if view else logs, result.gas_used)

    def get_storage(self, address: bytes, slot: int) -> int:
        return int(self.evm.storage("0x" + address.hex(), slot))

    def get_code(self, address: bytes) -> bytes:
        return bytes(self.evm.get_code("0x" + address.hex()) or b"")

    def save(self) -> Callable[[], None]:
        """Return what takes the chain back to now, once."""
        snapshot, time = self.evm.snapshot(), self.time

        def restore() -> None:
            self.evm.revert(snapshot)
            self.set_time(time)

        return restore


def make_chain(time: int, engine: str = "") -> BoaChain | RevmChain:
    """Return a chain with id 1 on ``engine`` ("revm", "py-evm"), by default the fastest that is here."""
    engine = engine or ("revm" if HAS_REVM else "py-evm")
    return RevmChain(1, time) if engine == "revm" else BoaChain(1, time)
