"""One operator's process over toy chains in files: MQTT, metrics, signals, everything as `relayer run` puts it together.

python -m tests.operability.child FOLDER NUMBER BROKER_PORT CLOCK_SHIFT_S
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from relayer.clock import SystemClock
from relayer.health import Monitor
from relayer.keys import Journal, Secret, load_key_file
from relayer.log import make_logger
from relayer.mqtt import MqttGossip, MqttSettings
from relayer.node import Timing
from relayer.operate import forbid_core_dumps, operate, stop_on_signals
from relayer.service import Service
from tests.builders import OPERATORS, make_parameters, make_vault
from tests.fakes import ToyChain, ToyPlanner, make_toy_chain

COUNT = 2
KEY_PASSWORD = b"71c0ffee/9d2e5b07"


class ShiftedClock(SystemClock):
    """The machine's clock, moved to the time of the toy chains by the same amount in every process."""

    def __init__(self, shift_s: int) -> None:
        self._shift_s = shift_s

    def now(self) -> int:
        return super().now() + self._shift_s


def open_chains(folder: Path) -> list[ToyChain]:
    """The chains of a folder as this process sees them."""
    vaults = sorted((make_vault(i) for i in range(COUNT)), key=lambda v: v.chain)
    return [ToyChain(v, folder / f"{v.chain.replace(':', '_')}.log") for v in vaults]


async def main(folder: Path, i: int, port: int, shift_s: int) -> None:
    """Run until SIGTERM."""
    forbid_core_dumps()
    log, clock, chains = make_logger(level="debug", as_json=True), ShiftedClock(shift_s), open_chains(folder)
    settings = MqttSettings(
        "127.0.0.1", port, OPERATORS[i], OPERATORS, password_file=folder / "broker" / "secret", backoff_max_s=2.0
    )
    journal = folder / f"journal{i}.db"
    if not journal.exists():
        Journal.create_first(journal, clock.now())
    stop = asyncio.Event()
    with stop_on_signals(stop):
        carrier = MqttGossip(settings, log)
        service = Service.open(
            name=f"node{i}",
            store_path=folder / f"node{i}.db",
            journal_path=journal,
            operator_key=load_key_file(folder / f"key{i}.json", Secret(KEY_PASSWORD), is_throwaway=True),
            parameters=make_parameters([c.vault for c in chains], patience_s=5),
            chains=[make_toy_chain(c, f"account{i}", clock) for c in chains],
            clock=clock,
            gossip=carrier,
            planner=ToyPlanner(),
            timing=Timing(poll_s=0.3, settle_s=0.3, submit_s=0.3, republish_s=2, takeover_s=2, bump_s=5),
            log=log,
        )
        monitor = Monitor(service, carrier)
        task = asyncio.create_task(operate(service, stop, carrier=carrier, monitor=monitor))
        while monitor.address is None and not task.done():  # noqa: ASYNC110  the product has no need of such an event
            await asyncio.sleep(0.02)
        if monitor.address is not None:
            (folder / f"port{i}").write_text(str(monitor.address[1]))
        await task


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
