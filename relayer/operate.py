"""A service with its carrier and its monitor as one process: one task group, one clean stop, no key in a core file."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import resource
import signal
from collections.abc import Iterator

from relayer.database import StoreFailure
from relayer.health import Monitor
from relayer.mqtt import MqttGossip
from relayer.service import Service

FOLLOW_S = 30.0
"""How often the carrier is told who the operators are: a rotation is announced a day before."""

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """No core file and no debugger of another process: both would hold the key (incidents.md 4)."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Linux only; where the call is missing, the limit above still holds.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextlib.contextmanager
def stop_on_signals(stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for a clean stop while the block runs."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def operate(
    service: Service, stop: asyncio.Event, *, carrier: MqttGossip | None = None, monitor: Monitor | None = None
) -> None:
    """Run everything until ``stop`` is set, then end in order: loops, carrier (it sends the last words), monitor, files.

    Args:
        service: open; it is closed here, whatever happens.
        stop: set by a signal handler.
        carrier: the same that the service was opened with, where it is MQTT.
        monitor: of this service.

    Raises:
        StoreFailure: leave with its exit code. Any other exception: ours; they come in a group.
    """
    if carrier is not None:
        carrier.on_connect = service.node.publish_soon

    async def run_service() -> None:
        await service.run()
        if not stop.is_set():
            raise RuntimeError("the loops ended though nobody asked them to")
        for part in (carrier, monitor):
            if part is not None:
                part.stop()

    async def wait_for_stop() -> None:
        while not stop.is_set():
            if carrier is not None:
                carrier.set_operators(service.node.get_publishers())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_S):
                    await stop.wait()
        service.stop()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(run_service())
            group.create_task(wait_for_stop())
            for part in (carrier, monitor):
                if part is not None:
                    group.create_task(part.run())
    except BaseExceptionGroup as errors:
        failure = _find(errors, StoreFailure)
        if failure is not None:
            raise failure from errors
        raise
    finally:
        service.close()


def _find(errors: BaseExceptionGroup[BaseException], kind: type[StoreFailure]) -> StoreFailure | None:
    for error in errors.exceptions:
        found = _find(error, kind) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, kind):
            return found
    return None
