"""`make conformance`: run every case that is discovered below $RELAYER_VECTORS.

Kinds are the folders there; each known kind has a module in `kinds/` with `discover(root) -> Iterator[Case]`, which finds
cases by the layout and content of files, never by a list of names. A folder of a family that does not exist yet is skipped
with that reason. Ends with `N passed, N failed, N skipped`; exit 1 when something failed or nothing ran.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.case import Case, SkippedError

# Folders whose family or feature belongs to a later part of the product; the reason is printed.
LATER = {
    "wormhole": "no Wormhole source is part of the product",
}


@dataclass
class Tally:
    """Counts of one kind."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def get_root() -> Path:
    """Return the vectors folder: $RELAYER_VECTORS or ../shared/vectors beside the repository."""
    given = os.environ.get("RELAYER_VECTORS")
    return Path(given) if given else Path(__file__).resolve().parents[2].parent / "shared" / "vectors"


def discover(root: Path, only: set[str] | None = None) -> Iterator[Case]:
    """Yield every case below root, kind by kind; unknown kinds yield one case that skips with the reason."""
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        kind = folder.name
        if only and kind not in only:
            continue
        module = f"tests.conformance.kinds.{kind}"
        if importlib.util.find_spec(module) is not None:
            yield from importlib.import_module(module).discover(folder)
        else:
            yield Case(kind, kind, _skip(LATER.get(kind, "no runner for this kind of vectors")))


def _skip(reason: str):
    def run() -> None:
        raise SkippedError(reason)

    return run


def main(argv: list[str] | None = None) -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="only these kinds (default: all that are found)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--show", type=int, default=10, help="failures to print per kind")
    args = parser.parse_args(argv)
    root = get_root()
    if not root.is_dir():
        print(f"no vectors at {root}: set RELAYER_VECTORS to the folder that holds them", file=sys.stderr)
        print("0 passed, 0 failed, 0 skipped")
        return 1
    tallies: dict[str, Tally] = {}
    for case in discover(root, set(args.kinds) or None):
        tally = tallies.setdefault(case.kind, Tally())
        begin = time.perf_counter()
        try:
            case.run()
        except SkippedError as why:
            tally.skipped += 1
            tally.reasons[str(why)] += 1
        except Exception as error:  # noqa: BLE001  every failure of a case is a finding of the runner
            tally.failed += 1
            tally.failures.append(f"{case.name}: {type(error).__name__}: {error}")
        else:
            tally.passed += 1
        tally.seconds += time.perf_counter() - begin
    passed = sum(t.passed for t in tallies.values())
    failed = sum(t.failed for t in tallies.values())
    skipped = sum(t.skipped for t in tallies.values())
    if args.json:
        print(json.dumps({k: vars(t) for k, t in tallies.items()}, default=dict, indent=1))
    else:
        print(f"{'kind':<26}{'passed':>8}{'failed':>8}{'skipped':>9}{'s':>8}")
        for kind, t in tallies.items():
            print(f"{kind:<26}{t.passed:>8}{t.failed:>8}{t.skipped:>9}{t.seconds:>8.1f}")
            for reason, count in t.reasons.items():
                print(f"    skipped {count}: {reason}")
            for failure in t.failures[: args.show]:
                print(f"    FAILED {failure[:400]}")
            if len(t.failures) > args.show:
                print(f"    ... and {len(t.failures) - args.show} more failures")
        if not passed + failed:
            print(f"nothing ran: no known kind of vectors was found in {root}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
