"""One operator's node as a process: what `relayer run -c` does, without the command line.

python -m relayer.testnet.operator relayer.toml
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from relayer.config import load_config
from relayer.service import open_configured, run_service


async def _run(path: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await run_service(open_configured(load_config(path)), stop)


def main() -> int:
    """Entry point."""
    asyncio.run(_run(Path(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
