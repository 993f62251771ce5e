"""Reader of the built contracts of the Cosmos family (`build/*.wasm`); needs no compiler."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

BUILD_FOLDER: Final = Path(__file__).resolve().parent / "build"


@cache
def get_wasm(name: str) -> bytes:
    """Return the built contract ``name`` ("vault" or "cw20"); FileNotFoundError if there is none of that name."""
    return (BUILD_FOLDER / f"{name}.wasm").read_bytes()
