"""`make bench`: run every bench in a process of its own and print the figures, with machine, date and missed targets."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from bench.figures import Figure, describe_machine

BENCHES = ("light_client", "proofs", "cosmos", "fold", "far", "plan", "latency")
"""Modules of this folder with `run(seconds) -> list[Figure]`."""


def run_one(name: str, seconds: float) -> list[Figure]:
    """The figures of one bench, from a fresh interpreter; a bench that fails is a figure of its own."""
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", str(seconds)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return [Figure(f"{name} failed", float("nan"), "see above", "runs", is_met=False)]
    return [Figure(**row) for row in json.loads(done.stdout.strip().splitlines()[-1])]


def main() -> int:
    """Print the table; exit 1 only when a bench could not run (a missed target is a finding, not an error)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benches", nargs="*", default=BENCHES)
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each timed loop")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = [figure for name in args.benches for figure in run_one(name, args.seconds)]
    if args.json:
        print(json.dumps({"machine": describe_machine(), "figures": [vars(f) for f in figures]}, indent=1))
    else:
        print(describe_machine())
        for figure in figures:
            verdict = {None: "", True: "met", False: "MISSED"}[figure.is_met]
            print(f"{figure.name:<64}{figure.value:>12,.3f} {figure.unit:<14}{figure.target:<26}{verdict}")
    return 1 if any(f.name.endswith(" failed") for f in figures) else 0


def print_figures(figures: list[Figure]) -> None:
    """What a bench module does last: one line of JSON for `run_one`."""
    print(json.dumps([vars(f) for f in figures]))


if __name__ == "__main__":
    sys.exit(main())
