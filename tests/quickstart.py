"""Runs every command of docs/quickstart.md as it stands, in a fresh clone in a fresh folder: `make quickstart-check`.

The indented blocks of the page are one shell session. It ends at the first command that fails, and says which block that was.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quickstart.md"
LIMIT_S = 1800
STOP_S = 90


def get_blocks(page: Path, part: int | None = None) -> list[tuple[str, str]]:
    """(heading, commands) of every indented block; ``part`` 1 or 2 takes one part of the page only."""
    blocks: list[tuple[str, str]] = []
    heading, number, lines = "", 0, []

    def end() -> None:
        if lines and part in (None, number):
            blocks.append((heading, "\n".join(lines)))
        lines.clear()

    for line in page.read_text().splitlines():
        if line.startswith("    "):
            lines.append(line[4:])
            continue
        if line.strip() or not lines:
            end()
        elif lines:
            lines.append("")
        if found := re.match(r"(#+) (.*)", line):
            heading = found[2]
            number += found[1] == "#"
    end()
    return [(heading, text.rstrip()) for heading, text in blocks]


def make_script(blocks: list[tuple[str, str]]) -> str:
    """The session: each block is announced, so that a failure has a place."""
    lines = ["set -eu"]
    for i, (heading, commands) in enumerate(blocks):
        lines += [f"echo '@@ {i} {heading}'", commands]
    return "\n".join([*lines, "echo '@@ end'"]) + "\n"


def run(part: int | None, folder: Path) -> tuple[int, list[str]]:
    """Clone, run the session; exit code and what it said."""
    clone = folder / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    blocks = get_blocks(clone / "docs" / "quickstart.md", part)
    # as a stranger's shell has it: nothing of this checkout, and tools are looked for anew
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("RELAYER", "VIRTUAL_ENV", "PYTHON", "MAKE", "MFLAGS"))
    }
    kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if ".venv" not in p)
    said: list[str] = []
    began = time.monotonic()
    with subprocess.Popen(
        ["bash", "-c", make_script(blocks)],
        cwd=clone,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as session:
        watch = subprocess.Popen(["bash", "-c", f"sleep {LIMIT_S}; kill -TERM -{session.pid}"], start_new_session=True)
        try:
            for line in session.stdout or ():
                said.append(line.rstrip("\n"))
                sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {line}")
                sys.stdout.flush()
                if line == "@@ end\n":
                    break
            code = session.wait(STOP_S)
        finally:
            os.killpg(watch.pid, signal.SIGKILL)
            watch.wait()
            _stop(clone, session.pid)
    return code, said


def _stop(clone: Path, group: int) -> None:
    """Whatever a failed session left running."""
    program = clone / ".venv" / "bin" / "relayer"
    if (clone / "net" / "testnet.json").is_file() and program.is_file():
        subprocess.run([str(program), "testnet", "down", "--folder", "net"], cwd=clone, check=False, timeout=STOP_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
            time.sleep(2)


def main() -> int:
    """The check; 0 if every command of the page ended well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", type=int, choices=(1, 2), help="only the first or the second part of the page")
    parser.add_argument("--keep", action="store_true", help="leave the clone where it is")
    found = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="quickstart-"))
    began = time.monotonic()
    try:
        code, said = run(found.part, folder)
    finally:
        if not found.keep:
            shutil.rmtree(folder, ignore_errors=True)
    took_s = time.monotonic() - began
    last = next((line for line in reversed(said) if line.startswith("@@")), "@@ nothing ran")
    if code != 0 or last != "@@ end":
        sys.stdout.write(f"docs/quickstart.md fails with exit code {code} in block {last.removeprefix('@@ ')}\n")
        return 1
    sys.stdout.write(f"docs/quickstart.md works as it stands: {took_s:.0f} s with clone and installation\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
