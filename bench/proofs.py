"""Account and storage proofs: our verifier against go-ethereum's trie.VerifyProof on the same eth_getProof answer.

The Go program is built from the module proxy when `go` is there; without it the ratio is left out and said so. The proof comes
from a trie of realistic depth: 60,000 accounts and a vault with 20,000 storage slots, made here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rlp
from trie import HexaryTrie

from bench.figures import Figure
from bench.run import print_figures
from chains.evm.proofs import verify_storage_value
from chains.evm.types import Proof
from messages.hashing import keccak256

ACCOUNTS = 60_000
SLOTS = 20_000
GO_FOLDER = Path(__file__).resolve().parent / "go_mpt"


def make_case() -> tuple[bytes, Proof, int]:
    """(state root, proof, value) of slot 0 of one account among many."""
    vault = b"\xaa" * 20
    storage = HexaryTrie({}, prune=False)
    value = int.from_bytes(keccak256(b"head"), "big")
    for slot in range(SLOTS):
        storage[keccak256(slot.to_bytes(32, "big"))] = rlp.encode(value if slot == 0 else slot)
    state = HexaryTrie({}, prune=False)
    for i in range(ACCOUNTS):
        state[keccak256(i.to_bytes(20, "big"))] = rlp.encode([1, i, keccak256(b""), keccak256(b"")])
    state[keccak256(vault)] = rlp.encode([1, 0, storage.root_hash, keccak256(b"code")])
    return (
        state.root_hash,
        Proof(
            address=vault,
            slot=0,
            account_nodes=tuple(rlp.encode(n) for n in state.get_proof(keccak256(vault))),
            storage_nodes=tuple(rlp.encode(n) for n in storage.get_proof(keccak256(bytes(32)))),
        ),
        value,
    )


def run(seconds: float) -> list[Figure]:
    """Rates in verified pairs (account and storage proof) per second, one core."""
    root, proof, value = make_case()
    if int.from_bytes(verify_storage_value(root, proof), "big") != value:
        raise RuntimeError("our verifier reads another value")
    rates: list[float] = []
    go_rates: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        go = _build_go(Path(folder))
        case = Path(folder) / "case.json"
        case.write_text(
            json.dumps(
                {
                    "state_root": "0x" + root.hex(),
                    "address": "0x" + proof.address.hex(),
                    "account_proof": ["0x" + n.hex() for n in proof.account_nodes],
                    "slot": "0x" + bytes(32).hex(),
                    "storage_proof": ["0x" + n.hex() for n in proof.storage_nodes],
                }
            )
        )
        # The two take turns, so that a machine that slows down slows both.
        for _ in range(5):
            rates.append(_get_rate(root, proof, seconds / 5))
            if go is not None:
                out = subprocess.run(
                    [go, case, str(seconds / 5)], capture_output=True, text=True, check=True, env={"GOMAXPROCS": "1"}
                )
                go_rates.append(json.loads(out.stdout)["per_second"])
    rate = sorted(rates)[2]
    figures = [Figure(f"proofs: account + storage ({_count(proof)} nodes)", rate, "pairs/s")]
    if not go_rates:
        return [*figures, Figure("proofs: ratio to geth (no go toolchain here: not measured)", float("nan"), "x")]
    ratio = sorted(ours / theirs for ours, theirs in zip(rates, go_rates, strict=True))[2]
    return [
        *figures,
        Figure("proofs: geth trie.VerifyProof on the same answer", sorted(go_rates)[2], "pairs/s"),
        Figure("proofs: ours / geth", ratio, "x", ">= 0.3", is_met=ratio >= 0.3),
    ]


def _count(proof: Proof) -> str:
    return f"{len(proof.account_nodes)} + {len(proof.storage_nodes)}"


def _get_rate(root: bytes, proof: Proof, seconds: float) -> float:
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for _ in range(50):
            verify_storage_value(root, proof)
        count += 50
    return count / (time.perf_counter() - begin)


def _build_go(folder: Path) -> Path | None:
    if shutil.which("go") is None:
        return None
    program = folder / "go_mpt"
    done = subprocess.run(
        ["go", "build", "-o", str(program), "."],
        cwd=GO_FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"geth's verifier was not built: {done.stderr[-300:]}", file=sys.stderr)
        return None
    return program


if __name__ == "__main__":
    print_figures(run(float(sys.argv[1])))
