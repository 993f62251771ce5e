"""`python -m relayer.testnet`: the same as `relayer testnet`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from relayer.testnet.run import EXPIRY_MINUTES, Options, run_testnet

parser = argparse.ArgumentParser(prog="python -m relayer.testnet", description="a testnet on this machine")
parser.add_argument("action", choices=("up", "run", "down", "report"))
parser.add_argument("--folder", type=Path, help="of the run; a temporary one by default")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--faults", action="store_true", help="kill an operator, stop an endpoint, restart the broker")
parser.add_argument("--expiry-minutes", type=int, default=EXPIRY_MINUTES)
parser.add_argument("--slots-per-epoch", type=int, default=8)
parser.add_argument(
    "--config", type=Path, help="given endpoints and keys instead of local nodes (relayer/testnet/given.py)"
)
parser.add_argument("--chains", default="evm,evm", help="families of two or three chains: evm, cosmos or solana")
parser.add_argument("--json", action="store_true", help="the report on stdout")
found = parser.parse_args()
sys.exit(
    run_testnet(
        Options(
            found.action,
            found.folder,
            found.seed,
            found.faults,
            found.expiry_minutes,
            found.slots_per_epoch,
            found.json,
            found.config,
            tuple(found.chains.split(",")),
        )
    )
)
