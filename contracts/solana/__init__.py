"""Reader of the built program of the Solana family (`build/*.so`); needs no compiler."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

BUILD_FOLDER: Final = Path(__file__).resolve().parent / "build"


@cache
def get_program(name: str) -> bytes:
    """Return the built program ``name`` ("vault"), an ELF file; FileNotFoundError if there is none of that name."""
    return (BUILD_FOLDER / f"{name}.so").read_bytes()
