"""Let code that is not ours follow the sidecar: go-ethereum's light client `blsync`, built from the module cache (docs/sidecar-check.md).

    python -m relayer.testnet.sidecar_check

A node and a sidecar with main-net epochs and periods (32 slots, 256 epochs, 512 seats) and slots of one second start shortly before the end
of a sync-committee period. blsync begins at the first finalized block and must itself, from signatures and branches alone, finalize a block of the *next*
period: then it has verified the bootstrap, the update with the next committee, and heads signed by both committees. A second blsync that
is told another genesis validators root must not accept one signature: the check can fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from messages.errors import RelayerError, Unavailable
from relayer.testnet.nodes import Beacon, SidecarSizes, get_tools_folder, start_anvil, start_sidecar
from relayer.testnet.processes import Group, Process

MODULE = "github.com/ethereum/go-ethereum/cmd/blsync@v1.17.0"
CHAIN_ID = 31337
PERIOD_SLOTS = 8192
LEAD_SLOTS = PERIOD_SLOTS - 4 * 32 - 16
SIZES = SidecarSizes(seconds_per_slot=1, slots_per_epoch=32, epochs_per_period=256, lead_slots=LEAD_SLOTS)
BUILD_TIMEOUT_S = 1800
FINALITY_TIMEOUT_S = 400.0
CONTROL_S = 15.0
PAYLOAD_WORDS = "payload hash does not match"
"""anvil puts zero into parentBeaconBlockRoot, whatever the beacon chain is: the one thing that blsync has to refuse here."""


def build_blsync(tools: Path) -> Path:
    """The program, built with go if it is missing; Unavailable ("no_go", "no_blsync")."""
    program = tools / "bin" / "blsync"
    if program.is_file():
        return program
    go = shutil.which("go")
    if go is None:
        raise Unavailable("go is not installed: this check needs it (1.24 or later)", reason="no_go")
    program.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(  # noqa: S603  a fixed command
        [go, "install", MODULE],
        env={**os.environ, "GOBIN": str(program.parent)},
        cwd=tools,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0 or not program.is_file():
        raise Unavailable(f"go could not build blsync: {done.stderr.strip()[-400:]}", reason="no_blsync")
    return program


def make_chain_config(spec: dict[str, str]) -> str:
    """Blsync's config.yaml (fork names, epochs and versions) from the sidecar's /eth/v1/config/spec."""
    lines = []
    for key, value in spec.items():
        if key.endswith(("_FORK_EPOCH", "_FORK_VERSION")) and key != "PHASE0_FORK_EPOCH":
            lines.append(f"{key.replace('PHASE0_', 'GENESIS_')}: {value}\n")
    return "".join(lines)


def _get(beacon: Beacon, path: str) -> Any:
    with urllib.request.urlopen(beacon.url + path, timeout=10) as response:  # noqa: S310  http of the loopback
        return json.load(response)["data"]


def _start_blsync(group: Group, name: str, program: Path, beacon: Beacon, checkpoint: bytes, root: bytes) -> Process:
    config = group.folder / "config.yaml"
    config.write_text(make_chain_config(_get(beacon, "/eth/v1/config/spec")))
    process = group.add(
        name,
        [
            *(str(program), "--beacon.api", beacon.url, "--beacon.config", str(config)),
            *("--beacon.genesis.gvroot", "0x" + root.hex(), "--beacon.genesis.time", str(beacon.genesis_time)),
            *("--beacon.checkpoint", "0x" + checkpoint.hex(), "--beacon.nofilter", "--verbosity", "4"),
            *("--beacon.checkpoint.file", str(_get_checkpoint_file(group, name))),
        ],
    )
    process.start()
    return process


def _get_checkpoint_file(group: Group, name: str) -> Path:
    return group.folder / f"{name}.checkpoint"


def _get_finalized_slot(group: Group, name: str, beacon: Beacon) -> int:
    """Slot of the newest finalized block that blsync has verified and saved; -1 before the first."""
    file = _get_checkpoint_file(group, name)
    text = file.read_text() if file.is_file() else ""
    return int(_get(beacon, f"/eth/v1/beacon/headers/{text}")["header"]["message"]["slot"]) if len(text) == 66 else -1


def count_lines(log: str) -> Counter[str]:
    """Warnings and errors of blsync by their words, without what differs from line to line."""
    found: Counter[str] = Counter()
    for line in log.splitlines():
        match = re.match(r"(WARN|ERROR)\s*\[[^\]]*\]\s*(.*)", line)
        if match:
            words = re.sub(r"\s+(age|id|reqid)=\S+", "", match.group(2))
            words = re.sub(r"\(expected .*", "(...)", words)
            found[f"{match.group(1)} {words.strip()}"] += 1
    return found


def run_check(folder: Path) -> dict[str, Any]:
    """Run it all; the result as printed. Raises Unavailable when a part is missing or blsync does not get there."""
    program = build_blsync(get_tools_folder())
    with Group(folder) as group:
        node = start_anvil(group, "anvil", CHAIN_ID)
        beacon = start_sidecar(group, "sidecar", node, SIZES)
        checkpoint = beacon.wait_for_checkpoint(200.0)
        first = int(_get(beacon, f"/eth/v1/beacon/headers/0x{checkpoint.hex()}")["header"]["message"]["slot"])
        control = _start_blsync(group, "control", program, beacon, checkpoint, bytes([1]) * 32)
        process = _start_blsync(group, "blsync", program, beacon, checkpoint, beacon.genesis_validators_root)
        seen: list[int] = []
        begin = time.monotonic()

        def has_next_period() -> bool:
            slot = _get_finalized_slot(group, "blsync", beacon)
            if slot >= 0 and (not seen or slot != seen[-1]):
                seen.append(slot)
            if control.is_running and time.monotonic() - begin > CONTROL_S:
                control.stop()
            time.sleep(0.5)
            return slot >= PERIOD_SLOTS

        process.wait_until(has_next_period, "a finalized block of the next period", FINALITY_TIMEOUT_S)
        process.stop()
        log = process.log.read_text()
        control_log = control.log.read_text()
        return {
            "checked_by": MODULE,
            "checkpoint_slot": first,
            "finalized_slots": seen,
            "periods_followed": sorted({slot // PERIOD_SLOTS for slot in seen}),
            "committee_updates_inserted": log.count("Inserted new committee update"),
            "heads_announced": log.count("New head received"),
            "requests_failed": log.count("Beacon API request failed"),
            "warnings_and_errors": dict(count_lines(log)),
            "control_updates_inserted": control_log.count("Inserted new committee update"),
            "control_checkpoint": _get_finalized_slot(group, "control", beacon),
            "seconds": round(time.monotonic() - begin),
        }


def is_good(result: dict[str, Any]) -> bool:
    """Whether blsync followed through both periods, refused nothing but anvil's payload header, and the control accepted nothing."""
    allowed = ("Future", "No engine API target", PAYLOAD_WORDS)
    refused = [line for line in result["warnings_and_errors"] if not any(word in line for word in allowed)]
    return (
        result["periods_followed"] == [0, 1]
        and result["committee_updates_inserted"] >= 1
        and result["requests_failed"] == 0
        and not refused
        and result["control_updates_inserted"] == 0
        and result["control_checkpoint"] == -1
    )


def main() -> int:
    """Entry point: prints the result as JSON; exit code 0 if it is good."""
    with tempfile.TemporaryDirectory(prefix="sidecar-check-") as folder:
        try:
            result = run_check(Path(folder))
        except RelayerError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    sys.stdout.write(json.dumps(result | {"is_good": is_good(result)}, indent=1) + "\n")
    return 0 if is_good(result) else 1


if __name__ == "__main__":
    sys.exit(main())
