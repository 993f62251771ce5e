"""`python -m chains.cosmos.batch_compile`: build the batch verifier of ed25519 to WebAssembly and write its manifest.

Needs a Rust compiler with the sources of its standard library (Debian: `rustc-web`, `rust-web-src`) and `cargo`; users of the product need
none of it, because the result is committed. 128-bit products are taken in one instruction ("wide arithmetic"), which makes the module as
quick as native code; the engine must have that switched on. Nothing in the result names a path of the machine that built it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from contracts.rust_build import RUSTC, compute_source_hash, encode_manifest, run_cargo, run_command

FOLDER: Final = Path(__file__).resolve().parent / "batch"
SOURCES: Final = "src"  # beside Cargo.toml and Cargo.lock
MODULE: Final = "ed25519_batch.wasm"
TARGET: Final = "wasm32-unknown-unknown"
RUSTFLAGS: Final = (
    '--cfg curve25519_dalek_bits="64"',
    '--cfg curve25519_dalek_backend="serial"',
    "-C target-feature=+wide-arithmetic",
    "-C link-arg=-s",
    "-Z location-detail=none",
)


def get_compiler() -> str:
    """Return the Rust compiler to use: $RELAYER_RUSTC, else Debian's."""
    return os.environ.get("RELAYER_RUSTC", str(RUSTC))


def get_source_hash() -> str:
    """Return the hash over the sources of the module; see `rust_build.compute_source_hash`."""
    return compute_source_hash(FOLDER, SOURCES)


def build() -> tuple[bytes, dict[str, Any]]:
    """Return the module and its manifest; CalledProcessError where the compiler refuses, FileNotFoundError where it is not there."""
    cargo = shutil.which("cargo")
    if cargo is None:
        raise FileNotFoundError("cargo is not installed")
    rustc = Path(get_compiler())
    version = run_command(FOLDER, [str(rustc), "--version"])
    words = ["--quiet", "-Z", "build-std=std,panic_abort"]
    with tempfile.TemporaryDirectory() as folder:
        release = run_cargo(FOLDER, Path(cargo), rustc, TARGET, " ".join(RUSTFLAGS), words, Path(folder))
        module = (release / MODULE).read_bytes()
    manifest = {
        "compiler": version.split(" (")[0].strip(),
        "flags": list(RUSTFLAGS),
        "source_sha256": get_source_hash(),
        "module_sha256": hashlib.sha256(module).hexdigest(),
    }
    return module, manifest


def main() -> int:
    """Write module and manifest and say what was written."""
    module, manifest = build()
    (FOLDER / MODULE).write_bytes(module)
    (FOLDER / "manifest.json").write_bytes(encode_manifest(manifest))
    sys.stdout.write(f"{MODULE}: {len(module)} bytes, {manifest['compiler']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
