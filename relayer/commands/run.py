"""`relayer run`: one operator's node as a process, from its files until somebody stops it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from messages.errors import Rejected, RelayerError
from relayer.render import Answer, format_age, hex_of

if TYPE_CHECKING:
    from relayer.config import Config
    from relayer.service import Service

STORE_AND_LOCK_REASONS = frozenset(
    {"in_use", "too_new", "too_old", "corrupt", "chain_broken", "network_file_system", "sqlite_version", "pragma"}
)
"""Reasons that say the files cannot be used (exit codes 4 and 75); whatever else keeps a node from starting is the configuration."""


MAX_WAIT_S = 30.0
YOUNG_OBJECTS = 5_000
"""The collector of cycles looks after so many new objects instead of 700: a header makes thousands, and hardly any cycle."""


class NotStartable(Exception):
    """The configuration does not make a node; carries the words for people."""


class StoreStopped(Exception):
    """The store failed while writing: restart, and the node reads what really happened."""


def run_node(path: Path, *, as_json: bool, stream: TextIO | None = None) -> Answer:
    """Build the node of a configuration and run it until SIGTERM or SIGINT.

    Args:
        path: relayer.toml.
        as_json: logs as JSON lines whatever the configuration says.
        stream: where logs go; stderr by default.

    Raises:
        NotStartable: files, keys or addresses do not make a node. StoreStopped: a write failed.
        Rejected: the store or journal cannot be used, or a part ended with words of its own.
    """
    from relayer.config import load_config
    from relayer.database import StoreFailure
    from relayer.log import make_logger
    from relayer.operate import forbid_core_dumps

    forbid_core_dumps()
    try:
        config = load_config(path)
        refuse_memory(config)
    except Rejected as error:
        raise NotStartable(str(error)) from error
    log = make_logger(level=config.log.level, as_json=as_json or config.log.json_lines, stream=stream or sys.stderr)
    began_s = time.monotonic()
    try:
        name, operator = asyncio.run(_run(config, log))
    except StoreFailure as error:
        raise StoreStopped(str(error)) from error
    except BaseExceptionGroup as errors:
        raise _get_expected(errors) or errors from errors
    ran_s = int(time.monotonic() - began_s)
    data = {"schema": "relayer/run/1", "node": name, "operator": hex_of(operator), "stopped": True, "ran_s": ran_s}
    return Answer(data, [f"{name} stopped cleanly after {format_age(ran_s)}; nothing is lost, `relayer run` goes on."])


def refuse_memory(config: Config) -> None:
    """Refuse a carrier that reaches nobody: a node of its own needs a broker.

    Raises:
        Rejected: reason ``memory_gossip``.
    """
    if config.gossip.kind == "memory":
        raise Rejected(
            f'{config.path.name}: gossip.kind = "memory" reaches only nodes of one process (the demo): a node that runs alone'
            ' needs a broker: kind = "mqtt" with host and port',
            reason="memory_gossip",
        )


async def _run(config: Config, log: Any) -> tuple[str, bytes]:
    """One node after the other, until somebody stops it: the next begins where the next parameters take effect."""
    from relayer.operate import stop_on_signals
    from relayer.service import verify_configured_parameters

    stop = asyncio.Event()
    with stop_on_signals(stop):
        if config.next is not None:
            # Noticed today, not at the instant when every other operator changes.
            later = config.at(config.next.parameters.effective)
            try:
                verify_configured_parameters(later, config.next.parameters.effective)
            except Rejected as error:
                log.warning("the next parameters are not usable as they are", reason=error.reason, detail=str(error))
        while True:
            present = config.at(int(time.time()))
            operator = await _run_once(present, stop, log)
            if stop.is_set():
                break
            log.info("the next parameters take effect", version=config.at(int(time.time())).parameters.version)
    log.info("stopped", node=config.name)
    return config.name, operator


async def _run_once(config: Config, stop: asyncio.Event, log: Any) -> bytes:
    """Run until ``stop`` or until the next parameters take effect; the operator's address."""
    from relayer.operate import operate

    service = _open(config, log)
    # Modules and tables live as long as the process: without this the collector looks at all of them again, in the middle of a round.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    monitor = None
    try:
        carrier: Any = service.node.gossip
        if config.metrics is not None:
            from relayer.health import Monitor

            metrics = config.metrics
            monitor = Monitor(service, carrier, host=metrics.host, port=metrics.port, limits=metrics.limits)
    except Rejected as error:
        service.close()
        raise NotStartable(str(error)) from error
    except BaseException:
        service.close()
        raise
    _announce(config, service)
    ending = asyncio.Event()
    waiter = asyncio.create_task(_end_in_time(config, stop, ending))
    try:
        await operate(service, ending, carrier=carrier, monitor=monitor)
    finally:
        waiter.cancel()
        for chain in service.node.chains.values():
            close = getattr(chain.reader, "close", None)
            if close is not None:
                await close()
    return service.node.signer.operator


async def _end_in_time(config: Config, stop: asyncio.Event, ending: asyncio.Event) -> None:
    while not stop.is_set():
        left_s = MAX_WAIT_S if config.next is None else config.next.parameters.effective - time.time()
        if left_s <= 0:
            break
        with contextlib.suppress(TimeoutError):
            # Short waits: clocks are set and machines sleep.
            async with asyncio.timeout(min(left_s, MAX_WAIT_S)):
                await stop.wait()
    ending.set()


def _open(config: Config, log: Any) -> Service:
    from relayer.service import open_configured

    try:
        return open_configured(config, log=log)
    except Rejected as error:
        if error.reason in STORE_AND_LOCK_REASONS:
            raise
        raise NotStartable(f"{error} [{error.reason}]") from error


def _announce(config: Config, service: Service) -> None:
    """Say once what runs, with everything that is worth comparing with the other operators."""
    node = service.node
    log, committee = node.log, node.get_committee()
    log.info(
        "starting",
        operator=hex_of(node.signer.operator),
        parameters=f"version {node.parameters.version} {hex_of(node.parameters_digest)[:18]}..",
        committee=f"{committee.threshold} of {len(committee.operators)}, epoch {committee.epoch}",
        is_member=node.signer.operator in committee.operators,
        broker=f"{config.gossip.host}:{config.gossip.port}",
        metrics="off" if config.metrics is None else f"http://{config.metrics.host}:{config.metrics.port}/metrics",
    )
    for chain in node.chains.values():
        log.info(
            "chain",
            chain=chain.chain_id,
            endpoints=len(chain.reader.sources),
            sends=chain.submitter is not None,
            recorded=node.store.get_cursor(chain.vault_id).sequence,
        )
    until = node.signer.journal.quarantine_until
    if until is not None:
        log.warning(
            "the key signs nothing yet: its journal is new, was lost or restored; it ends when every vault's proven time passes",
            until=until,
        )


def _get_expected(errors: BaseExceptionGroup[BaseException]) -> RelayerError | None:
    """The error to show where everything in a group is expected; None where a bug is among them."""
    found: list[BaseException] = []
    _flatten(errors, found.append)
    expected = [e for e in found if isinstance(e, RelayerError)]
    return expected[0] if expected and len(expected) == len(found) else None


def _flatten(error: BaseException, add: Callable[[BaseException], None]) -> None:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _flatten(inner, add)
    else:
        add(error)
