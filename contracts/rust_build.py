"""What the builds of contracts written in Rust share: the hash over a crate's sources, finding and running the compilers, the manifest."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SHARED_SOURCES: Final = ("Cargo.toml", "Cargo.lock")
RUSTC: Final = Path("/usr/bin/rustc")  # Debian's: it comes with what it needs for targets that no rustup has
RUSTC_VERSION: Final = "1.96.0"


class ToolchainMissingError(Exception):
    """A compiler is not on this machine; the text says what to install."""


def compute_source_hash(folder: Path, name: str) -> str:
    """Return the SHA-256 (hex) over every source of the crate ``name`` in a workspace, the workspace file and the lock file.

    Each file counts as its path (slashes), a zero byte, the SHA-256 of its content; sorted by path.
    """
    paths = [folder / shared for shared in SHARED_SOURCES]
    paths += [path for path in (folder / name).rglob("*") if path.suffix in (".rs", ".toml")]
    total = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.relative_to(folder).as_posix()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def run_command(folder: Path, command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Return what a command prints when it is run in a folder; CalledProcessError when it fails."""
    done = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603  fixed commands
    return done.stdout


def run_cargo(
    folder: Path, cargo: Path, rustc: Path, target: str, flags: str, words: Sequence[str], made: Path
) -> Path:
    """Build for a target, exactly as locked; return the folder of what was made, below ``made``. CalledProcessError when it fails."""
    environment = {
        **os.environ,
        "RUSTC": str(rustc),
        "RUSTC_BOOTSTRAP": "1",
        "RUSTFLAGS": flags,
        "CARGO_TARGET_DIR": str(made),
    }
    run_command(folder, [str(cargo), "build", "--locked", "--release", "--target", target, *words], environment)
    return made / target / "release"


def encode_manifest(record: Mapping[str, Any]) -> bytes:
    """Return a manifest as its file holds it."""
    return (json.dumps(record, indent=1) + "\n").encode()


@dataclass(frozen=True)
class Workspace:
    """The crates of one family and how they become what its chain runs.

    What is built is committed with a manifest that ties sources, compilers and output together, so that a test can tell a stale
    artefact without a compiler.
    """

    title: str  # what was not built when the toolchain is missing
    folder: Path
    crates: tuple[str, ...]
    target: str
    flags: str
    words: tuple[str, ...]  # further words to cargo
    output: str  # what cargo makes of a crate, with {} for its name
    suffix: str  # of the committed file
    section: str  # of the crates in the manifest
    noun: str  # of the output in the manifest
    max_bytes: int  # of one output
    packages: str  # Debian's, that bring the compiler
    find_rest: Callable[
        [Path], str
    ]  # sysroot -> what the compilers' line says beyond the version; ToolchainMissingError
    rustc: Path = RUSTC

    @property
    def build_folder(self) -> Path:
        """Where the committed output is."""
        return self.folder / "build"

    def find_toolchain(self) -> tuple[Path, str]:
        """Return (cargo, one line that names the compilers); ToolchainMissingError when something is not there."""
        cargo = shutil.which("cargo")
        if cargo is None or not self.rustc.exists():
            raise ToolchainMissingError(f"cargo and {self.rustc} are needed: apt install {self.packages}, and a cargo")
        version = run_command(self.folder, [str(self.rustc), "--version"]).split()[1]
        if version != RUSTC_VERSION:
            raise ToolchainMissingError(
                f"rustc {RUSTC_VERSION} of Debian's rustc-web is pinned, {self.rustc} is {version}"
            )
        sysroot = Path(run_command(self.folder, [str(self.rustc), "--print", "sysroot"]).strip())
        return Path(cargo), f"rustc {version} {self.find_rest(sysroot)}"

    def compile(self) -> dict[str, bytes]:
        """Return crate -> output of all crates; ToolchainMissingError, CalledProcessError, ValueError (too large).

        The folder of intermediate files is CARGO_TARGET_DIR, else one below the system's temporary folder.
        """
        cargo, _ = self.find_toolchain()
        own = Path(tempfile.gettempdir()) / f"relayer-{self.folder.name}-contracts"
        made = Path(os.environ.get("CARGO_TARGET_DIR", str(own)))
        words = [*self.words, *(word for name in self.crates for word in ("-p", name))]
        release = run_cargo(self.folder, cargo, self.rustc, self.target, self.flags, words, made)
        files = {name: (release / self.output.format(name)).read_bytes() for name in self.crates}
        for name, data in files.items():
            if len(data) > self.max_bytes:
                raise ValueError(f"{name} has {len(data)} bytes, {self.max_bytes} are allowed")
        return files

    def get_source_hash(self, name: str) -> str:
        """Return the hash over the sources of one crate; see `compute_source_hash`."""
        return compute_source_hash(self.folder, name)

    def make_manifest(self, files: Mapping[str, bytes], compiler: str) -> bytes:
        """Return `manifest.json` of what was built: compiler, flags, and per crate the hashes of sources and output."""
        entries = {
            name: {
                "source_sha256": self.get_source_hash(name),
                f"{self.noun}_sha256": hashlib.sha256(data).hexdigest(),
                f"{self.noun}_bytes": len(data),
            }
            for name, data in files.items()
        }
        return encode_manifest({"compiler": compiler, "rustflags": self.flags, self.section: entries})

    def main(self) -> int:
        """Write the build folder and print what was written; 1 and a line that says why when the toolchain is missing."""
        try:
            _, compiler = self.find_toolchain()
            files = self.compile()
        except ToolchainMissingError as error:
            sys.stderr.write(f"{self.title} not built: {error}\n")
            return 1
        self.build_folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (self.build_folder / f"{name}{self.suffix}").write_bytes(data)
            sys.stdout.write(f"{name}{self.suffix}: {len(data)} bytes\n")
        (self.build_folder / "manifest.json").write_bytes(self.make_manifest(files, compiler))
        return 0
