"""`python -m contracts.evm.compile`: compile the contracts and write `build/<name>.json` and `build/manifest.json`.

Needs vyper in the pinned version (dev dependency). The output depends on the sources and the compiler only: no time, no
path. The manifest ties the three together, so that a test can tell a stale artefact without a compiler.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).resolve().parent
BUILD_FOLDER: Final = FOLDER / "build"
CONTRACTS: Final = ("vault", "erc20")
VYPER_VERSION: Final = "0.4.3"
EVM_VERSION: Final = "cancun"
MAX_CODE_BYTES: Final = 24_576  # EIP-170
MAX_INITCODE_BYTES: Final = 49_152  # EIP-3860


def compile_source(source: str, name: str) -> dict[str, Any]:
    """Return the artefact of one Vyper source as a JSON object; ValueError when it does not fit on chain."""
    import vyper
    from vyper.compiler import compile_code

    if vyper.__version__.split("+")[0] != VYPER_VERSION:
        raise ValueError(f"vyper {VYPER_VERSION} is pinned, this is {vyper.__version__}")
    formats = ["abi", "bytecode", "bytecode_runtime", "layout"]
    out = compile_code(source, contract_path=f"{name}.vy", output_formats=formats)
    immutables = out["layout"].get("code_layout", {})
    immutables_bytes = sum(v["length"] for v in immutables.values())
    code_bytes = len(out["bytecode_runtime"]) // 2 - 1 + immutables_bytes
    if code_bytes > MAX_CODE_BYTES or len(out["bytecode"]) // 2 - 1 > MAX_INITCODE_BYTES:
        raise ValueError(f"{name} has {code_bytes} bytes of code, {MAX_CODE_BYTES} are allowed")
    return {
        "name": name,
        "compiler": f"vyper {VYPER_VERSION}",
        "evm_version": EVM_VERSION,
        "abi": out["abi"],
        "bytecode": out["bytecode"],
        "runtime_bytecode": out["bytecode_runtime"],
        "immutables_bytes": immutables_bytes,
        "storage_slots": {k: v["slot"] for k, v in out["layout"].get("storage_layout", {}).items()},
    }


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _encode(record: object) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


def build() -> dict[str, bytes]:
    """Return file name -> bytes of everything that belongs into the build folder."""
    files: dict[str, bytes] = {}
    manifest: dict[str, Any] = {"compiler": f"vyper {VYPER_VERSION}", "evm_version": EVM_VERSION, "contracts": {}}
    for name in CONTRACTS:
        source = (FOLDER / f"{name}.vy").read_bytes()
        data = _encode(compile_source(source.decode(), name))
        files[f"{name}.json"] = data
        manifest["contracts"][name] = {"source_sha256": _hash(source), "artifact_sha256": _hash(data)}
    files["manifest.json"] = _encode(manifest)
    return files


def main() -> int:
    """Write the build folder and print what was written."""
    BUILD_FOLDER.mkdir(exist_ok=True)
    for file_name, data in build().items():
        (BUILD_FOLDER / file_name).write_bytes(data)
        sys.stdout.write(f"{file_name}: {len(data)} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
