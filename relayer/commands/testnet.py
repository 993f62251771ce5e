"""`relayer testnet`: hands its options to the harness and nothing else; the harness and its tools are loaded only then."""

from __future__ import annotations

import sys
from pathlib import Path

from messages.errors import Rejected


def run(
    action: str,
    folder: Path | None,
    config: Path | None,
    *,
    seed: int,
    is_faulty: bool,
    expiry_minutes: int,
    as_json: bool,
) -> int:
    """Do an action (up, run, down, report) of the harness; returns its exit code.

    Raises:
        Rejected: the harness needs a package that is not installed; reason ``usage``.
    """
    try:
        from relayer.testnet.run import Options, run_testnet
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("relayer", "chains", "messages", "contracts"):
            raise
        raise Rejected(
            f"the testnet needs {error.name}: install the extra with pip install 'settlement-relayer[sim]'",
            reason="usage",
        ) from error
    options = Options(
        action,
        folder=folder,
        seed=seed,
        faults=is_faulty,
        expiry_minutes=expiry_minutes,
        as_json=as_json,
        config=config,
    )
    sys.stdout.flush()
    return run_testnet(options)
