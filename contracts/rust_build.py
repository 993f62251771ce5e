"""What the builds of contracts written in Rust share: the hash over a crate's sources, and running the compiler."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Final

SHARED_SOURCES: Final = ("Cargo.toml", "Cargo.lock")


class ToolchainMissingError(Exception):
    """A compiler is not on this machine; the text says what to install."""


def compute_source_hash(folder: Path, name: str) -> str:
    """Return the SHA-256 (hex) over every source of the crate ``name`` in a workspace, the workspace file and the lock file.

    Each file counts as its path (slashes), a zero byte, the SHA-256 of its content; sorted by path.
    """
    paths = [folder / shared for shared in SHARED_SOURCES]
    paths += [path for path in (folder / name).rglob("*") if path.suffix in (".rs", ".toml")]
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.relative_to(folder).as_posix()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def run_command(folder: Path, command: list[str], environment: dict[str, str] | None = None) -> str:
    """Return what a command prints when it is run in a folder; CalledProcessError when it fails."""
    done = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  fixed commands
    return done.stdout
