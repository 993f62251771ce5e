"""A process of four nodes over toy chains in files; it may be told to die at a named point (RELAYER_KILL_AT).

python -m tests.crash.child FOLDER SECONDS
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.builders import START
from tests.committee import Committee

CHAINS = 1


def open_committee(folder: Path) -> Committee:
    """The committee of a folder; its clock starts after everything that is on the chains."""
    probe = Committee(folder, count=CHAINS, files=True)
    latest = max(chain.times[-1] for chain in probe.chains)
    return Committee(folder, count=CHAINS, files=True, start=max(START + 60, latest + 10))


async def main(folder: Path, seconds: int) -> None:
    """Run for some virtual seconds, then stop cleanly."""
    async with open_committee(folder) as committee:
        await committee.run_for(seconds)
        for i in list(committee.services):
            await committee.stop(i)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
