"""The CometBFT light client and ICS-23 proofs against CometBFT's `light` package and cosmos/ics23, both Go, on the same blocks and proofs.

The Go program is built from the module proxy when `go` is there; without it the ratios are left out and said so. 150 validators of equal
power sign a block; the proof is of one key in a store of 65,536 keys, under a multistore of 30 stores. Both sides stop counting signatures
where more than two thirds of the power are reached (101 of 150). Each verification of ours gets a block decoded for it alone, so that
nothing kept with an object of the last round helps; what the product keeps by content (facts of a validator set) is kept here too, as
Go keeps its validators' keys. All times are of one core's work (processor time, not the clock on the wall), on both sides.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.figures import Figure
from bench.run import print_figures
from chains.cosmos import ed25519
from chains.cosmos.codec import decode_update, encode_update
from chains.cosmos.hashing import compute_address
from chains.cosmos.ics23 import decode_proof
from chains.cosmos.light_client import make_trusted, verify_update
from chains.cosmos.proofs import verify_store_value
from chains.cosmos.types import NANOSECONDS, Commit, Header, LightBlock, Proof, Trusted, ValidatorSet
from tests.chains.cosmos_forge import CONFIG, IAVL_LEAF, SIMPLE_LEAF, Forge, Tree, make_set, make_store_proof

VALIDATORS = 150
ROUNDS = 7
KEYS = 65_536
STORES = 30
GO_FOLDER = Path(__file__).resolve().parent / "go_comet"


def make_blocks() -> tuple[LightBlock, LightBlock, LightBlock]:
    """(trusted, next, later) of a chain whose 150 validators all sign."""
    names = [f"v{i}" for i in range(VALIDATORS)]
    forge = Forge(((1, make_set(names)),))
    return forge.make_block(10), forge.make_block(11), forge.make_block(20)


def make_proof() -> tuple[bytes, Proof, bytes, bytes]:
    """(app hash, proof, key, value) of one key in the wasm store."""
    entries = {b"\3" + i.to_bytes(32, "big") + b"outbox_head": i.to_bytes(32, "little") for i in range(1, KEYS + 1)}
    module = Tree(entries, IAVL_LEAF)
    stores = {f"store{i:02}".encode(): bytes([i]) * 32 for i in range(STORES - 1)}
    multistore = Tree({**stores, b"wasm": module.root}, SIMPLE_LEAF)
    key = b"\3" + (KEYS // 3).to_bytes(32, "big") + b"outbox_head"
    return multistore.root, make_store_proof(module, multistore, key), key, entries[key]


# ---- the same cases as CometBFT's JSON --------------------------------------------------------------------------------


def show_time(time_ns: int) -> str:
    seconds, nanos = divmod(time_ns, NANOSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}.{nanos:09}Z"


def show_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def show_block_id(block_id: Any) -> dict[str, Any]:
    return {
        "hash": block_id.hash.hex().upper(),
        "parts": {"total": block_id.parts.total, "hash": block_id.parts.hash.hex().upper()},
    }


def show_header(header: Header) -> dict[str, Any]:
    hashes = {name: getattr(header, name).hex().upper() for name in vars(header) if name.endswith("_hash")}
    return {
        **hashes,
        "version": {"block": str(header.version_block), "app": str(header.version_app)},
        "chain_id": header.chain_id,
        "height": str(header.height),
        "time": show_time(header.time_ns),
        "last_block_id": show_block_id(header.last_block_id),
        "proposer_address": header.proposer_address.hex().upper(),
    }


def show_commit(commit: Commit) -> dict[str, Any]:
    votes = [
        {
            "block_id_flag": int(vote.flag),
            "validator_address": vote.address.hex().upper(),
            "timestamp": show_time(vote.time_ns),
            "signature": show_base64(vote.signature),
        }
        for vote in commit.signatures
    ]
    return {
        "height": str(commit.height),
        "round": commit.round,
        "block_id": show_block_id(commit.block_id),
        "signatures": votes,
    }


def show_validators(validators: ValidatorSet) -> dict[str, Any]:
    members = [
        {
            "address": compute_address(member.key).hex().upper(),
            "pub_key": {"type": "tendermint/PubKeyEd25519", "value": show_base64(member.key.data)},
            "voting_power": str(member.power),
            "proposer_priority": "0",
        }
        for member in validators.validators
    ]
    return {"validators": members, "proposer": members[0]}


def show_block(block: LightBlock) -> dict[str, Any]:
    return {
        "signed_header": {"header": show_header(block.header), "commit": show_commit(block.commit)},
        "validator_set": show_validators(block.validators),
    }


# ---- figures ----------------------------------------------------------------------------------------------------------


def _get_proof_rate(verify: Callable[[], None], seconds: float) -> float:
    end, begin, count = time.perf_counter() + seconds, time.process_time(), 0
    while time.perf_counter() < end:
        for _ in range(100):
            verify()
        count += 100
    return count / (time.process_time() - begin)


def _get_block_rate(trusted: Trusted, data: bytes, now_ns: int, seconds: float) -> float:
    """Verifications per second of a core's time; decoding, which Go does not do here either, is not timed."""
    spent, count, end = 0.0, 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        block = decode_update(data)
        begin = time.process_time()
        verify_update(trusted, block, now_ns, CONFIG)
        spent += time.process_time() - begin
        count += 1
    return count / spent


def build_go(folder: Path) -> Path | None:
    if shutil.which("go") is None:
        return None
    program = folder / "go_comet"
    done = subprocess.run(
        ["go", "build", "-o", str(program), "."], cwd=GO_FOLDER, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"the verifiers of Go were not built: {done.stderr[-300:]}", file=sys.stderr)
        return None
    return program


def _run_go(program: Path, case: Path, seconds: float, kind: str) -> float:
    done = subprocess.run(
        [program, case, str(seconds), kind], capture_output=True, text=True, check=True, env={"GOMAXPROCS": "1"}
    )
    return float(json.loads(done.stdout)["per_second"])


def run(seconds: float) -> list[Figure]:
    """Figures of one core: a block with 150 signatures, next and later; a store proof; each beside Go where it is there."""
    if ed25519.build_fast() is None:
        raise RuntimeError("the fast road of ed25519 is not there: these would be figures of another product")
    trusted_block, following, later = make_blocks()
    trusted = make_trusted(trusted_block)
    now = later.header.time_ns + NANOSECONDS
    app_hash, proof, key, value = make_proof()
    ours: dict[str, Callable[[float], float]] = {
        "adjacent": partial(_get_block_rate, trusted, encode_update(following), now),
        "skipping": partial(_get_block_rate, trusted, encode_update(later), now),
        "proof": partial(_get_proof_rate, partial(verify_store_value, app_hash, proof, b"wasm", key, value)),
    }
    case = {
        "now": show_time(now),
        "trusted": show_block(trusted_block),
        "adjacent": show_block(following),
        "skipping": show_block(later),
        "next_validators": show_validators(following.validators),
        "proof": {
            "root": show_base64(app_hash),
            "store": show_base64(b"wasm"),
            "key": show_base64(key),
            "value": show_base64(value),
            "iavl": show_base64(proof.ops[0].data),
            "simple": show_base64(proof.ops[1].data),
        },
    }
    rates: dict[str, list[float]] = {kind: [] for kind in ours}
    go_rates: dict[str, list[float]] = {kind: [] for kind in ours}
    with tempfile.TemporaryDirectory() as folder:
        go = build_go(Path(folder))
        path = Path(folder) / "case.json"
        path.write_text(json.dumps(case))
        # The two take turns, so that a machine that slows down slows both.
        for _ in range(ROUNDS):
            for kind, measure in ours.items():
                rates[kind].append(measure(seconds / ROUNDS))
                if go is not None:
                    go_rates[kind].append(_run_go(go, path, seconds / ROUNDS, kind))
    steps = " + ".join(str(len(decode_proof(op.data)[0].path)) for op in proof.ops)
    figures = []
    for kind, what in (("adjacent", "next block"), ("skipping", "block 10 later")):
        ours_ms = 1e3 / _get_median(rates[kind])
        figures.append(Figure(f"cosmos: {what}, 150 validators", ours_ms, "ms"))
        if go is None:
            figures.append(Figure("cosmos: ratio to cometbft/light (no go here: not measured)", float("nan"), "x"))
            continue
        ratio = _get_median([theirs / mine for mine, theirs in zip(rates[kind], go_rates[kind], strict=True)])
        figures += [
            Figure(f"cosmos: {what}, cometbft/light on the same", 1e3 / _get_median(go_rates[kind]), "ms"),
            Figure(f"cosmos: {what}, ours / cometbft/light", ratio, "x", "<= 1.5", is_met=ratio <= 1.5),
        ]
    rate = _get_median(rates["proof"])
    figures.append(
        Figure(f"cosmos: IAVL + multistore proofs ({steps} steps)", rate, "proofs/s", ">= 5000", is_met=rate >= 5000)
    )
    if go is None:
        return [*figures, Figure("cosmos: ratio to cosmos/ics23 (no go here: not measured)", float("nan"), "x")]
    ratio = _get_median([mine / theirs for mine, theirs in zip(rates["proof"], go_rates["proof"], strict=True)])
    return [
        *figures,
        Figure("cosmos: cosmos/ics23 on the same proof", _get_median(go_rates["proof"]), "proofs/s"),
        Figure("cosmos: our rate / cosmos/ics23", ratio, "x"),
    ]


def _get_median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    print_figures(run(float(sys.argv[1])))
