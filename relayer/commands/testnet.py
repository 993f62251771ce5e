"""`relayer testnet`: hands its options to the harness and nothing else; the harness and its tools are loaded only then."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from messages.errors import Rejected

if TYPE_CHECKING:
    from relayer.render import Answer


def run(
    action: str,
    folder: Path | None,
    config: Path | None = None,
    *,
    seed: int = 1,
    chains: str = "evm,evm",
    is_faulty: bool = False,
    expiry_minutes: int = 10,
    as_json: bool = False,
) -> int:
    """Do an action (up, run, down, report) of the harness; ``chains``: families with commas between them. Returns its exit code.

    Raises:
        Rejected: the harness needs a package that is not installed; reason ``usage``.
    """
    with _explain_missing_packages():
        from relayer.testnet.run import Options, run_testnet
    options = Options(
        action,
        folder=folder,
        seed=seed,
        faults=is_faulty,
        expiry_minutes=expiry_minutes,
        as_json=as_json,
        config=config,
        families=tuple(chains.split(",")),
    )
    sys.stdout.flush()
    return run_testnet(options)


def run_for_operators(folder: Path, operators: Sequence[Path]) -> int:
    """`up` for operators with their own keys; until somebody stops it. Raises as `run` and `relayer.testnet.group.run_group`."""
    with _explain_missing_packages():
        from relayer.testnet.group import run_group
    return run_group(folder, operators)


def start_in_background(arguments: Sequence[str], folder: Path) -> Answer:
    """`up` as a process of its own; returns once it is ready. Raises as `run` and `relayer.testnet.group.start_in_background`."""
    with _explain_missing_packages():
        from relayer.testnet.group import start_in_background as start
    return start(arguments, folder)


def act_as_user(folder: Path, action: str, chain: str, whole: int) -> Answer:
    """What a user does at a vault of a running testnet. Raises as `run` and `relayer.testnet.group.act_as_user`."""
    with _explain_missing_packages():
        from relayer.testnet.group import act_as_user as act
    return act(folder, action, chain, whole)


@contextlib.contextmanager
def _explain_missing_packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("relayer", "chains", "messages", "contracts"):
            raise
        raise Rejected(
            f"the testnet needs {error.name}: install the extra with pip install 'settlement-relayer[sim]'",
            reason="usage",
        ) from error
