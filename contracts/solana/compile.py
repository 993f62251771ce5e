"""`python -m contracts.solana.compile`: build the vault program and write `build/vault.so` and `build/manifest.json`.

Needs the toolchain of README.md (Debian's rustc-web with its BPF core library, sbpf-linker, a cargo); what is committed
needs none.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from contracts.rust_build import ToolchainMissingError, Workspace, run_command

FOLDER: Final = Path(__file__).resolve().parent
LINKER: Final = "sbpf-linker"
LINKER_VERSION: Final = "0.2.6"
TARGET: Final = "bpfel-unknown-none"
# frames of 4 KiB are what the machine gives; no location detail: no path of this machine in panics
RUSTFLAGS: Final = (
    f"-C linker={LINKER} -C panic=abort -C relocation-model=static -Z location-detail=none"
    " -C link-arg=--llvm-args=--bpf-stack-size=4096 -C target-feature=+allows-misaligned-mem-access"
)


def find_library_and_linker(sysroot: Path) -> str:
    """Return what names target and linker; ToolchainMissingError when the core library for BPF or the linker is not there."""
    if not (sysroot / "lib/rustlib" / TARGET).exists():
        raise ToolchainMissingError("the core library for BPF is needed: apt install libstd-rust-web-dev-bpf")
    linker = shutil.which(LINKER)
    found = run_command(FOLDER, [linker, "--version"]).split()[1] if linker else "missing"
    if found != LINKER_VERSION:
        raise ToolchainMissingError(
            f"the linker {LINKER} {LINKER_VERSION} is pinned, here it is {found}: see README.md"
        )
    return f"({TARGET}), {LINKER} {found}"


WORKSPACE: Final = Workspace(
    title="the Solana program was",
    folder=FOLDER,
    crates=("vault",),
    target=TARGET,
    flags=RUSTFLAGS,
    words=(),
    output="lib{}.so",
    suffix=".so",
    section="programs",
    noun="program",
    max_bytes=160 * 1024,
    packages="rustc-web libstd-rust-web-dev-bpf",
    find_rest=find_library_and_linker,
)


if __name__ == "__main__":
    sys.exit(WORKSPACE.main())
