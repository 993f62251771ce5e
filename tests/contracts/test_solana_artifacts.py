"""The committed program of the Solana family is what its sources compile to, and its build says so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from contracts.solana import BUILD_FOLDER, get_program
from contracts.solana import compile as compiler_module
from contracts.solana.compile import (
    FOLDER,
    LINKER_VERSION,
    MAX_PROGRAM_BYTES,
    PROGRAMS,
    RUSTC_VERSION,
    RUSTFLAGS,
    ToolchainMissingError,
    compile_programs,
    find_toolchain,
    get_source_hash,
    make_manifest,
)

MANIFEST = json.loads((BUILD_FOLDER / "manifest.json").read_text())


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_manifest_names_the_sources_and_the_program_that_are_here(name: str) -> None:
    entry = MANIFEST["programs"][name]
    assert entry["source_sha256"] == get_source_hash(name), "stale: run python -m contracts.solana.compile"
    assert entry["program_sha256"] == hashlib.sha256(get_program(name)).hexdigest()
    assert entry["program_bytes"] == len(get_program(name)) <= MAX_PROGRAM_BYTES
    assert MANIFEST["compiler"].startswith(f"rustc {RUSTC_VERSION} ")
    assert MANIFEST["compiler"].endswith(f"sbpf-linker {LINKER_VERSION}")
    assert MANIFEST["rustflags"] == RUSTFLAGS


def test_the_build_folder_holds_nothing_else() -> None:
    assert {p.name for p in BUILD_FOLDER.iterdir()} == {"manifest.json", *(f"{name}.so" for name in PROGRAMS)}


@pytest.mark.parametrize("changed", ["vault/src/recv.rs", "Cargo.lock", "Cargo.toml", "vault/Cargo.toml"])
def test_a_changed_source_would_be_noticed(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in [*FOLDER.rglob("*.rs"), *FOLDER.rglob("*.toml"), FOLDER / "Cargo.lock"]:
        copy = tmp_path / path.relative_to(FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(compiler_module, "FOLDER", tmp_path)
    assert get_source_hash("vault") == MANIFEST["programs"]["vault"]["source_sha256"]
    with (tmp_path / changed).open("ab") as file:
        file.write(b"\n")
    assert get_source_hash("vault") != MANIFEST["programs"]["vault"]["source_sha256"]


@pytest.mark.slow
def test_compiling_the_sources_gives_the_committed_bytes() -> None:
    try:
        _, compiler = find_toolchain()
    except ToolchainMissingError as error:
        pytest.skip(str(error))
    files = compile_programs()
    for name, program in files.items():
        assert program == get_program(name), f"{name} is stale: run python -m contracts.solana.compile"
    assert make_manifest(files, compiler) == (BUILD_FOLDER / "manifest.json").read_bytes()


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_is_an_elf_file_that_holds_no_path(name: str) -> None:
    program = get_program(name)
    assert program[:4] == b"\x7fELF"
    for trace in (b"/root/", b"/home/", b"/usr/", str(FOLDER).encode(), b".cargo", b".rs:"):
        assert trace not in program


def test_the_lock_file_names_the_public_registry_alone() -> None:
    lock = (FOLDER / "Cargo.lock").read_text()
    sources = {line for line in lock.splitlines() if line.startswith("source = ")}
    assert sources == {'source = "registry+https://github.com/rust-lang/crates.io-index"'}
    assert lock.count("https://") == lock.count("source = ")
