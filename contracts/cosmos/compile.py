"""`python -m contracts.cosmos.compile`: build the contracts and write `build/<name>.wasm` and `build/manifest.json`.

Needs the toolchain of README.md (Debian's rustc-web and rust-web-src, lld, and a cargo); what is committed needs none. The output
depends on the sources, the lock file and the compilers only: no time, and no path, because panics carry no places and symbols are
stripped. The manifest ties the parts together, so that a test can tell a stale artefact without a compiler.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from contracts.rust_build import ToolchainMissingError, compute_source_hash, run_command

FOLDER: Final = Path(__file__).resolve().parent
BUILD_FOLDER: Final = FOLDER / "build"
CONTRACTS: Final = ("vault", "cw20", "hostile")
RUSTC: Final = Path("/usr/bin/rustc")  # Debian's: it comes with the sources of std that match it
RUSTC_VERSION: Final = "1.96.0"
TARGET: Final = "wasm32-unknown-unknown"
# mvp: no wasm feature that an older chain refuses; no location detail: no path of this machine in panics
RUSTFLAGS: Final = "-C target-cpu=mvp -C link-arg=-s -C link-arg=--allow-undefined -Z location-detail=none"
MAX_WASM_BYTES: Final = 800 * 1024  # what a chain takes (wasmd's MaxWasmSize)


def find_toolchain() -> tuple[Path, str]:
    """Return (cargo, one line that names the compilers); ToolchainMissingError when something is not there."""
    cargo = shutil.which("cargo")
    if cargo is None or not RUSTC.exists():
        raise ToolchainMissingError(
            "cargo and /usr/bin/rustc are needed: apt install rustc-web rust-web-src, and a cargo"
        )
    version = _run([str(RUSTC), "--version"]).split()[1]
    if version != RUSTC_VERSION:
        raise ToolchainMissingError(f"rustc {RUSTC_VERSION} of Debian's rustc-web is pinned, {RUSTC} is {version}")
    sysroot = Path(_run([str(RUSTC), "--print", "sysroot"]).strip())
    if not (sysroot / "lib/rustlib/src/rust/library/std").exists():
        raise ToolchainMissingError("the sources of std are needed: apt install rust-web-src")
    if shutil.which("rust-lld") is None:
        raise ToolchainMissingError("the linker rust-lld is needed: apt install rust-web-llvm lld-22")
    return Path(cargo), f"rustc {version} (build-std, {TARGET})"


def get_source_hash(name: str) -> str:
    """Return the hash over the sources of one crate; see `rust_build.compute_source_hash`."""
    return compute_source_hash(FOLDER, name)


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    return run_command(FOLDER, command, environment)


def compile_contracts() -> dict[str, bytes]:
    """Return name -> wasm of all contracts; ToolchainMissingError, CalledProcessError, ValueError (too large).

    The folder of intermediate files is CARGO_TARGET_DIR, else one below the system's temporary folder.
    """
    cargo, _ = find_toolchain()
    folder = Path(os.environ.get("CARGO_TARGET_DIR", str(Path(tempfile.gettempdir()) / "relayer-cosmos-contracts")))
    environment = {
        **os.environ,
        "RUSTC": str(RUSTC),
        "RUSTC_BOOTSTRAP": "1",
        "RUSTFLAGS": RUSTFLAGS,
        "CARGO_TARGET_DIR": str(folder),
    }
    packages = [word for name in CONTRACTS for word in ("-p", name)]
    command = [str(cargo), "build", "--locked", "--release", "--target", TARGET, "-Z", "build-std=std,panic_abort"]
    _run([*command, *packages], environment)
    files = {name: (folder / TARGET / "release" / f"{name}.wasm").read_bytes() for name in CONTRACTS}
    for name, wasm in files.items():
        if len(wasm) > MAX_WASM_BYTES:
            raise ValueError(f"{name} has {len(wasm)} bytes, {MAX_WASM_BYTES} are allowed")
    return files


def make_manifest(files: dict[str, bytes], compiler: str) -> bytes:
    """Return `manifest.json` of built contracts: compiler, flags, and per contract the hashes of sources and output."""
    contracts: dict[str, Any] = {
        name: {
            "source_sha256": get_source_hash(name),
            "wasm_sha256": hashlib.sha256(wasm).hexdigest(),
            "wasm_bytes": len(wasm),
        }
        for name, wasm in files.items()
    }
    record = {"compiler": compiler, "rustflags": RUSTFLAGS, "contracts": contracts}
    return (json.dumps(record, indent=1) + "\n").encode()


def main() -> int:
    """Write the build folder and print what was written; 1 and a line that says why when the toolchain is missing."""
    try:
        _, compiler = find_toolchain()
        files = compile_contracts()
    except ToolchainMissingError as error:
        sys.stderr.write(f"the Cosmos contracts were not built: {error}\n")
        return 1
    BUILD_FOLDER.mkdir(exist_ok=True)
    for name, wasm in files.items():
        (BUILD_FOLDER / f"{name}.wasm").write_bytes(wasm)
        sys.stdout.write(f"{name}.wasm: {len(wasm)} bytes\n")
    (BUILD_FOLDER / "manifest.json").write_bytes(make_manifest(files, compiler))
    return 0


if __name__ == "__main__":
    sys.exit(main())
