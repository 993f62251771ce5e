"""`python -m contracts.cosmos.compile`: build the contracts and write `build/<name>.wasm` and `build/manifest.json`.

Needs the toolchain of README.md (Debian's rustc-web and rust-web-src, lld, and a cargo); what is committed needs none. The output
depends on the sources, the lock file and the compilers only: no time, and no path, because panics carry no places and symbols are
stripped.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from contracts.rust_build import ToolchainMissingError, Workspace

TARGET: Final = "wasm32-unknown-unknown"
# mvp: no wasm feature that an older chain refuses; no location detail: no path of this machine in panics
RUSTFLAGS: Final = "-C target-cpu=mvp -C link-arg=-s -C link-arg=--allow-undefined -Z location-detail=none"
MAX_WASM_BYTES: Final = 800 * 1024  # what a chain takes (wasmd's MaxWasmSize)


def find_sources_and_linker(sysroot: Path) -> str:
    """Return what names the target; ToolchainMissingError when the sources of std or the linker are not there."""
    if not (sysroot / "lib/rustlib/src/rust/library/std").exists():
        raise ToolchainMissingError("the sources of std are needed: apt install rust-web-src")
    if shutil.which("rust-lld") is None:
        raise ToolchainMissingError("the linker rust-lld is needed: apt install rust-web-llvm lld-22")
    return f"(build-std, {TARGET})"


WORKSPACE: Final = Workspace(
    title="the Cosmos contracts were",
    folder=Path(__file__).resolve().parent,
    crates=("vault", "cw20", "hostile"),
    target=TARGET,
    flags=RUSTFLAGS,
    words=("-Z", "build-std=std,panic_abort"),
    output="{}.wasm",
    suffix=".wasm",
    section="contracts",
    noun="wasm",
    max_bytes=MAX_WASM_BYTES,
    packages="rustc-web rust-web-src",
    find_rest=find_sources_and_linker,
)


if __name__ == "__main__":
    sys.exit(WORKSPACE.main())
