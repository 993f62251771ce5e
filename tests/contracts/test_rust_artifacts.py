"""What is committed of the contracts written in Rust is what their sources compile to, and its build says so; for every family alike."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from contracts.cosmos import BUILD_FOLDER as COSMOS_FOLDER
from contracts.cosmos import compile as cosmos
from contracts.cosmos import get_wasm
from contracts.rust_build import RUSTC_VERSION, ToolchainMissingError, Workspace
from contracts.solana import BUILD_FOLDER as SOLANA_FOLDER
from contracts.solana import compile as solana
from contracts.solana import get_program


@dataclass(frozen=True)
class Family:
    """A workspace beside the reader of what was built of it."""

    workspace: Workspace
    get_output: Any
    build_folder: Path  # as the reader knows it

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.build_folder / "manifest.json").read_text())

    def get_entry(self, name: str) -> dict[str, Any]:
        return self.manifest[self.workspace.section][name]


FAMILIES = {
    "cosmos": Family(cosmos.WORKSPACE, get_wasm, COSMOS_FOLDER),
    "solana": Family(solana.WORKSPACE, get_program, SOLANA_FOLDER),
}

each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
each_crate = pytest.mark.parametrize(
    ("family", "name"),
    [pytest.param(f, name, id=f"{key} {name}") for key, f in FAMILIES.items() for name in f.workspace.crates],
)


def test_the_crates_are_those_that_chains_and_tests_need() -> None:
    assert {key: f.workspace.crates for key, f in FAMILIES.items()} == {
        "cosmos": ("vault", "cw20", "hostile"),
        "solana": ("vault",),
    }


@each_crate
def test_the_manifest_names_the_sources_and_the_output_that_are_here(family: Family, name: str) -> None:
    entry, output, noun = family.get_entry(name), family.get_output(name), family.workspace.noun
    assert entry == {
        "source_sha256": family.workspace.get_source_hash(name),
        f"{noun}_sha256": hashlib.sha256(output).hexdigest(),
        f"{noun}_bytes": len(output),
    }, "stale: run make contracts"
    assert len(output) <= family.workspace.max_bytes


@each_family
def test_the_manifest_names_the_pinned_compiler_and_its_flags(family: Family) -> None:
    assert family.manifest["compiler"].startswith(f"rustc {RUSTC_VERSION} ")
    assert family.manifest["rustflags"] == family.workspace.flags
    assert family.manifest.keys() == {"compiler", "rustflags", family.workspace.section}
    assert tuple(family.manifest[family.workspace.section]) == family.workspace.crates


def test_the_manifest_of_solana_names_the_pinned_linker_too() -> None:
    assert FAMILIES["solana"].manifest["compiler"].endswith(f"sbpf-linker {solana.LINKER_VERSION}")


@each_family
def test_the_build_folder_holds_nothing_else(family: Family) -> None:
    files = {f"{name}{family.workspace.suffix}" for name in family.workspace.crates}
    assert {p.name for p in family.build_folder.iterdir()} == {"manifest.json", *files}
    assert family.workspace.build_folder == family.build_folder


@each_family
@pytest.mark.parametrize("changed", ["vault/src/recv.rs", "Cargo.lock", "Cargo.toml", "vault/Cargo.toml"])
def test_a_changed_source_would_be_noticed(family: Family, changed: str, tmp_path: Path) -> None:
    folder = family.workspace.folder
    for path in [*folder.rglob("*.rs"), *folder.rglob("*.toml"), folder / "Cargo.lock"]:
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    moved = replace(family.workspace, folder=tmp_path)
    committed = family.get_entry("vault")["source_sha256"]
    assert moved.get_source_hash("vault") == committed
    with (tmp_path / changed).open("ab") as file:
        file.write(b"\n")
    assert moved.get_source_hash("vault") != committed


@pytest.mark.slow
@each_family
def test_compiling_the_sources_gives_the_committed_bytes(family: Family) -> None:
    try:
        _, compiler = family.workspace.find_toolchain()
    except ToolchainMissingError as error:
        pytest.skip(str(error))
    files = family.workspace.compile()
    for name, output in files.items():
        assert output == family.get_output(name), f"{name} is stale: run make contracts"
    assert family.workspace.make_manifest(files, compiler) == (family.build_folder / "manifest.json").read_bytes()


def _write_compiler(path: Path, version: str) -> Path:
    """A compiler that says which it is, and has no library."""
    path.write_text(
        f"#!/bin/sh\ncase $1 in --version) echo 'rustc {version} (of a test)';; *) echo {path.parent};; esac\n"
    )
    path.chmod(0o755)
    return path


@each_family
@pytest.mark.parametrize(
    ("version", "words"),
    [("", "apt install rustc-web"), ("1.0.0", "is pinned"), (RUSTC_VERSION, "needed: apt install")],
)
def test_a_missing_toolchain_is_said_clearly_and_nothing_is_written(
    family: Family, version: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    rustc = tmp_path / "rustc"
    if version:
        _write_compiler(rustc, version)
    assert replace(family.workspace, rustc=rustc, folder=tmp_path).main() == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "build").exists()


@each_crate
def test_the_output_holds_no_path(family: Family, name: str) -> None:
    output = family.get_output(name)
    for trace in (b"/root/", b"/home/", b"/usr/", str(family.workspace.folder).encode(), b".cargo", b".rs:"):
        assert trace not in output


@each_family
def test_the_lock_file_names_the_public_registry_alone(family: Family) -> None:
    lock = (family.workspace.folder / "Cargo.lock").read_text()
    sources = {line for line in lock.splitlines() if line.startswith("source = ")}
    assert sources == {'source = "registry+https://github.com/rust-lang/crates.io-index"'}
    assert lock.count("https://") == lock.count("source = ")
