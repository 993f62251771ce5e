"""The committed program of the Solana family is a file that its chain can load."""

from __future__ import annotations

import pytest

from contracts.solana import get_program
from contracts.solana.compile import WORKSPACE


@pytest.mark.parametrize("name", WORKSPACE.crates)
def test_the_program_is_an_elf_file(name: str) -> None:
    assert get_program(name)[:4] == b"\x7fELF"
