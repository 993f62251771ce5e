"""The chain side of a testnet: `anvil` nodes, and a sidecar beside each that is its consensus layer.

`anvil` comes from PATH or from the npm package `@foundry-rs/anvil`, which is installed once into a folder of the project.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messages.errors import Unavailable
from relayer.testnet.processes import LOOPBACK, Group, Process, get_free_port

ANVIL_PACKAGE = "@foundry-rs/anvil@1.7.1"
INSTALL_TIMEOUT_S = 300
RPC_TIMEOUT_S = 5.0
MNEMONIC = "test test test test test test test test test test test junk"
"""The public phrase of every development chain; its first account is the faucet of a local testnet."""
ATTEMPTS = 3
HARDFORK = "prague"


def get_tools_folder() -> Path:
    """Where downloaded tools lie: $RELAYER_TOOLS, or .tools below the working directory."""
    return Path(os.environ.get("RELAYER_TOOLS", ".tools")).absolute()


def find_anvil(tools: Path | None = None) -> Path | None:
    """The program from PATH or the tools folder, or None."""
    found = shutil.which("anvil")
    if found is not None:
        return Path(found)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"anvil-{sys.platform}-{machine}"
    path = (tools or get_tools_folder()) / "anvil" / "node_modules" / "@foundry-rs" / name / "bin" / "anvil"
    return path if path.is_file() else None


def install_anvil(tools: Path | None = None) -> Path:
    """The program, installed with npm if it is missing.

    Raises:
        Unavailable: "no_anvil", with what to do.
    """
    tools = tools or get_tools_folder()
    found = find_anvil(tools)
    if found is not None:
        return found
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("anvil is not installed and npm is missing: install either of them", reason="no_anvil")
    folder = tools / "anvil"
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), ANVIL_PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise Unavailable("npm did not install anvil in time", reason="no_anvil") from error
    found = find_anvil(tools)
    if done.returncode != 0 or found is None:
        raise Unavailable(f"npm could not install anvil: {done.stderr.strip()[-400:]}", reason="no_anvil")
    return found


def ask(url: str, method: str, *params: Any) -> Any:
    """The result of one JSON-RPC call to a node of this machine; Unavailable ("unreachable", "rpc_error")."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  http of the loopback
    try:
        with urllib.request.urlopen(request, timeout=RPC_TIMEOUT_S) as response:  # noqa: S310
            answer = json.load(response)
    except (OSError, ValueError) as error:
        raise Unavailable(f"the node does not answer {method}: {error}", reason="unreachable") from error
    if "error" in answer:
        raise Unavailable(f"the node refuses {method}: {answer['error'].get('message')}", reason="rpc_error")
    return answer.get("result")


@dataclass(frozen=True)
class Anvil:
    """A running node."""

    process: Process
    chain_id: int
    port: int

    @property
    def url(self) -> str:
        """Its JSON-RPC."""
        return f"http://{LOOPBACK}:{self.port}"


def start_anvil(group: Group, name: str, chain_id: int, block_time_s: int = 1) -> Anvil:
    """Start a node with the development accounts on a free port and wait until it answers with its chain id.

    Raises:
        Unavailable: "no_anvil", "not_startable", "ended", "not_ready".
    """
    program = install_anvil()
    for attempt in range(ATTEMPTS):
        port = get_free_port()
        process = group.add(
            name if attempt == 0 else f"{name}-{attempt}",
            [
                str(program),
                *("--host", LOOPBACK, "--port", str(port), "--chain-id", str(chain_id)),
                *("--block-time", str(block_time_s), "--hardfork", HARDFORK, "--mnemonic", MNEMONIC, "--accounts", "2"),
                *("--order", "fifo", "--quiet"),
            ],
        )
        process.start()
        node = Anvil(process, chain_id, port)
        try:
            process.wait_until(lambda node=node: _answers(node), "an answer with its chain id")  # type: ignore[misc]  # bound now
        except Unavailable as error:
            # somebody took the port between looking and listening
            if error.reason != "ended" or attempt == ATTEMPTS - 1:
                raise
        else:
            return node
    raise AssertionError("the last attempt returns or raises")


def _answers(node: Anvil) -> bool:
    try:
        return int(str(ask(node.url, "eth_chainId")), 16) == node.chain_id
    except Unavailable:
        return False


@dataclass(frozen=True)
class SidecarSizes:
    """Sizes of a devnet's consensus, in seconds, slots and epochs; see `chains.evm.sidecar.Profile`."""

    seconds_per_slot: int = 1
    slots_per_epoch: int = 8
    epochs_per_period: int = 32
    lead_slots: int = 0


@dataclass(frozen=True)
class Beacon:
    """A running sidecar. ``settings``: the text a relayer's chain is configured with."""

    process: Process
    url: str
    port: int
    genesis_time: int
    genesis_validators_root: bytes
    settings: str
    sizes: SidecarSizes

    def wait_for_checkpoint(self, timeout_s: float = 120.0) -> bytes:
        """Root of the first finalized block, 32 bytes; Unavailable ("not_ready")."""
        found = self.process.wait_for_event("finalized", timeout_s)
        return bytes.fromhex(str(found["checkpoint"])[2:])

    def wait_for_finalized(self, height: int, timeout_s: float = 120.0) -> tuple[bytes, int]:
        """Root of a finalized beacon block that carries execution block ``height`` or a later one, and that block's number."""
        found: list[tuple[bytes, int]] = []

        def look() -> bool:
            block = self.get("/eth/v2/beacon/blocks/finalized")
            if block is None:
                return False
            number = int(block["message"]["body"]["execution_payload"]["block_number"])
            header = self.get("/eth/v1/beacon/headers/" + block["message"]["slot"])
            if number >= height and header is not None:
                found.append((bytes.fromhex(header["root"][2:]), number))
            return bool(found)

        self.process.wait_until(look, f"finality of block {height}", timeout_s)
        return found[0]

    def get(self, path: str) -> Any:
        """The ``data`` of a Beacon API answer, None for 404; Unavailable ("unreachable")."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=RPC_TIMEOUT_S) as response:  # noqa: S310  the loopback
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise Unavailable(f"the sidecar answers {path} with {error.code}", reason="unreachable") from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"the sidecar does not answer {path}: {error}", reason="unreachable") from error


def start_sidecar(
    group: Group, name: str, node: Anvil, sizes: SidecarSizes | None = None, *, first_block: int = 0
) -> Beacon:
    """Start a sidecar beside a node and wait until it serves; Unavailable ("ended", "not_ready")."""
    sizes = sizes or SidecarSizes()
    process = group.add(
        name,
        [
            *(
                sys.executable,
                "-m",
                "chains.evm.sidecar",
                "--execution-url",
                node.url,
                "--chain-id",
                str(node.chain_id),
            ),
            *("--slot-seconds", str(sizes.seconds_per_slot), "--slots-per-epoch", str(sizes.slots_per_epoch)),
            *("--epochs-per-period", str(sizes.epochs_per_period), "--lead-slots", str(sizes.lead_slots)),
            *("--first-block", str(first_block), "--port", str(get_free_port())),
        ],
    )
    process.start()
    ready = process.wait_for_event("ready")
    url = str(ready["url"])
    return Beacon(
        process,
        url,
        int(url.rpartition(":")[2]),
        int(ready["genesis_time"]),
        bytes.fromhex(str(ready["genesis_validators_root"])[2:]),
        str(ready["settings"]),
        sizes,
    )
