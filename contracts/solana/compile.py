"""`python -m contracts.solana.compile`: build the vault program and write `build/vault.so` and `build/manifest.json`.

Needs the toolchain of README.md (Debian's rustc-web with its BPF core library, sbpf-linker, a cargo); what is committed
needs none. The manifest ties sources, compiler and output together, so that a test can tell a stale artefact without one.
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
PROGRAMS: Final = ("vault",)
RUSTC: Final = Path("/usr/bin/rustc")  # Debian's: it comes with a core library for BPF
RUSTC_VERSION: Final = "1.96.0"
LINKER: Final = "sbpf-linker"
LINKER_VERSION: Final = "0.2.6"
TARGET: Final = "bpfel-unknown-none"
# frames of 4 KiB are what the machine gives; no location detail: no path of this machine in panics
RUSTFLAGS: Final = (
    f"-C linker={LINKER} -C panic=abort -C relocation-model=static -Z location-detail=none"
    " -C link-arg=--llvm-args=--bpf-stack-size=4096 -C target-feature=+allows-misaligned-mem-access"
)
MAX_PROGRAM_BYTES: Final = 160 * 1024


def find_toolchain() -> tuple[Path, str]:
    """Return (cargo, one line that names the compilers); ToolchainMissingError when something is not there."""
    cargo, linker = shutil.which("cargo"), shutil.which(LINKER)
    if cargo is None or not RUSTC.exists():
        raise ToolchainMissingError(
            "cargo and /usr/bin/rustc are needed: apt install rustc-web libstd-rust-web-dev-bpf, and a cargo"
        )
    version = _run([str(RUSTC), "--version"]).split()[1]
    if version != RUSTC_VERSION:
        raise ToolchainMissingError(f"rustc {RUSTC_VERSION} of Debian's rustc-web is pinned, {RUSTC} is {version}")
    sysroot = Path(_run([str(RUSTC), "--print", "sysroot"]).strip())
    if not (sysroot / "lib/rustlib" / TARGET).exists():
        raise ToolchainMissingError("the core library for BPF is needed: apt install libstd-rust-web-dev-bpf")
    found = _run([linker, "--version"]).split()[1] if linker else "missing"
    if found != LINKER_VERSION:
        raise ToolchainMissingError(
            f"the linker {LINKER} {LINKER_VERSION} is pinned, here it is {found}: see README.md"
        )
    return Path(cargo), f"rustc {version} ({TARGET}), {LINKER} {found}"


def get_source_hash(name: str) -> str:
    """Return the hash over the sources of one crate; see `rust_build.compute_source_hash`."""
    return compute_source_hash(FOLDER, name)


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    return run_command(FOLDER, command, environment)


def compile_programs() -> dict[str, bytes]:
    """Return name -> ELF of all programs; ToolchainMissingError, CalledProcessError, ValueError (too large).

    The folder of intermediate files is CARGO_TARGET_DIR, else one below the system's temporary folder.
    """
    cargo, _ = find_toolchain()
    folder = Path(os.environ.get("CARGO_TARGET_DIR", str(Path(tempfile.gettempdir()) / "relayer-solana-contracts")))
    environment = {
        **os.environ,
        "RUSTC": str(RUSTC),
        "RUSTC_BOOTSTRAP": "1",
        "RUSTFLAGS": RUSTFLAGS,
        "CARGO_TARGET_DIR": str(folder),
    }
    packages = [word for name in PROGRAMS for word in ("-p", name)]
    _run([str(cargo), "build", "--locked", "--release", "--target", TARGET, *packages], environment)
    files = {name: (folder / TARGET / "release" / f"lib{name}.so").read_bytes() for name in PROGRAMS}
    for name, program in files.items():
        if len(program) > MAX_PROGRAM_BYTES:
            raise ValueError(f"{name} has {len(program)} bytes, {MAX_PROGRAM_BYTES} are allowed")
    return files


def make_manifest(files: dict[str, bytes], compiler: str) -> bytes:
    """Return `manifest.json` of built programs: compiler, flags, and per program the hashes of sources and output."""
    programs: dict[str, Any] = {
        name: {
            "source_sha256": get_source_hash(name),
            "program_sha256": hashlib.sha256(program).hexdigest(),
            "program_bytes": len(program),
        }
        for name, program in files.items()
    }
    record = {"compiler": compiler, "rustflags": RUSTFLAGS, "programs": programs}
    return (json.dumps(record, indent=1) + "\n").encode()


def main() -> int:
    """Write the build folder and print what was written; 1 and a line that says why when the toolchain is missing."""
    try:
        _, compiler = find_toolchain()
        files = compile_programs()
    except ToolchainMissingError as error:
        sys.stderr.write(f"the Solana program was not built: {error}\n")
        return 1
    BUILD_FOLDER.mkdir(exist_ok=True)
    for name, program in files.items():
        (BUILD_FOLDER / f"{name}.so").write_bytes(program)
        sys.stdout.write(f"{name}.so: {len(program)} bytes\n")
    (BUILD_FOLDER / "manifest.json").write_bytes(make_manifest(files, compiler))
    return 0


if __name__ == "__main__":
    sys.exit(main())
