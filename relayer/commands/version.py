"""`relayer version`."""

from __future__ import annotations

import importlib.metadata
import platform
import sqlite3

from messages.documents import Plan, Proposal
from relayer.archive import ArchiveStart
from relayer.proof_file import ProofFile
from relayer.render import Answer


def show_version() -> Answer:
    """Versions of program, Python, SQLite and documents."""
    try:
        program = importlib.metadata.version("settlement-relayer")
    except importlib.metadata.PackageNotFoundError:
        program = "not installed"
    data = {
        "schema": "relayer/version/1",
        "relayer": program,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "protocol": "optsettle-1",
        "documents": [kind.SCHEMA for kind in (Proposal, Plan, ProofFile, ArchiveStart)],
    }
    lines = [f"{key} {value}" for key, value in data.items() if key not in ("schema", "documents")]
    return Answer(data, (*lines, f"documents {', '.join(data['documents'])}"))
