"""The committed wasm of the Cosmos family is what its sources compile to, fits on chain and has no way to be changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from wasmtime import Engine, Module

from contracts.cosmos import BUILD_FOLDER, get_wasm
from contracts.cosmos import compile as compiler_module
from contracts.cosmos.compile import (
    CONTRACTS,
    FOLDER,
    MAX_WASM_BYTES,
    RUSTC_VERSION,
    RUSTFLAGS,
    ToolchainMissingError,
    compile_contracts,
    find_toolchain,
    get_source_hash,
    make_manifest,
)

MANIFEST = json.loads((BUILD_FOLDER / "manifest.json").read_text())
HOST_FUNCTIONS = {
    "abort", "addr_canonicalize", "addr_humanize", "addr_validate", "db_read", "db_remove", "db_write", "debug",
    "ed25519_batch_verify", "ed25519_verify", "query_chain", "secp256k1_recover_pubkey", "secp256k1_verify",
}  # fmt: skip  # what every chain with CosmWasm 1 has


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_manifest_names_the_sources_and_the_wasm_that_are_here(name: str) -> None:
    entry = MANIFEST["contracts"][name]
    assert entry["source_sha256"] == get_source_hash(name), "stale: run make contracts"
    assert entry["wasm_sha256"] == hashlib.sha256(get_wasm(name)).hexdigest()
    assert entry["wasm_bytes"] == len(get_wasm(name)) <= MAX_WASM_BYTES
    assert MANIFEST["compiler"].startswith(f"rustc {RUSTC_VERSION} ")
    assert MANIFEST["rustflags"] == RUSTFLAGS


def test_the_build_folder_holds_nothing_else() -> None:
    assert {p.name for p in BUILD_FOLDER.iterdir()} == {"manifest.json", *(f"{name}.wasm" for name in CONTRACTS)}


@pytest.mark.parametrize("changed", ["vault/src/recv.rs", "Cargo.lock", "Cargo.toml", "vault/Cargo.toml"])
def test_a_changed_source_would_be_noticed(changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in [*FOLDER.rglob("*.rs"), *FOLDER.rglob("*.toml"), FOLDER / "Cargo.lock"]:
        copy = tmp_path / path.relative_to(FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(compiler_module, "FOLDER", tmp_path)
    assert get_source_hash("vault") == MANIFEST["contracts"]["vault"]["source_sha256"]
    with (tmp_path / changed).open("ab") as file:
        file.write(b"\n")
    assert get_source_hash("vault") != MANIFEST["contracts"]["vault"]["source_sha256"]


@pytest.mark.slow
def test_compiling_the_sources_gives_the_committed_bytes() -> None:
    try:
        _, compiler = find_toolchain()
    except ToolchainMissingError as error:
        pytest.skip(str(error))
    files = compile_contracts()
    for name, wasm in files.items():
        assert wasm == get_wasm(name), f"{name} is stale: run make contracts"
    assert make_manifest(files, compiler) == (BUILD_FOLDER / "manifest.json").read_bytes()


def test_a_missing_toolchain_is_said_clearly_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiler_module, "RUSTC", tmp_path / "rustc")
    monkeypatch.setattr(compiler_module, "BUILD_FOLDER", tmp_path / "build")
    assert compiler_module.main() == 1
    assert "apt install rustc-web" in capsys.readouterr().err
    assert not (tmp_path / "build").exists()


def _get_names(name: str) -> tuple[set[str], set[str]]:
    """Return (imported functions, exports) of a contract."""
    module = Module(Engine(), get_wasm(name))
    assert {i.module for i in module.imports} == {"env"}
    return {str(i.name) for i in module.imports}, {e.name for e in module.exports}


def test_the_vault_can_be_created_called_answered_and_read_and_nothing_else() -> None:
    imports, exports = _get_names("vault")
    memory = {"memory", "allocate", "deallocate", "interface_version_8"}
    assert {e for e in exports if not e.startswith("__")} == {"instantiate", "execute", "reply", "query", *memory}
    assert imports <= HOST_FUNCTIONS
    assert "db_write" in imports  # so the scan does see imports


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_wasm_demands_no_capability_and_holds_no_path(name: str) -> None:
    _, exports = _get_names(name)
    assert not [e for e in exports if e.startswith("requires_")]
    wasm = get_wasm(name)
    for trace in (b"/root/", b"/home/", b"/usr/", str(FOLDER).encode(), b".cargo", b".rs:"):
        assert trace not in wasm


def test_the_lock_file_names_the_public_registry_alone() -> None:
    lock = (FOLDER / "Cargo.lock").read_text()
    sources = {line for line in lock.splitlines() if line.startswith("source = ")}
    assert sources == {'source = "registry+https://github.com/rust-lang/crates.io-index"'}
    assert lock.count("https://") == lock.count("source = ")
