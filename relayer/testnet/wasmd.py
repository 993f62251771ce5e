"""A Cosmos chain of a testnet: `wasmd` validators on the loopback, one process each, with real CometBFT consensus between them.

wasmd has no ready-made program to download: `go` builds it once, from its module, into a folder of the project. Its VM is a shared library
that is put beside it and found through LD_LIBRARY_PATH.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from eth_account import Account

from messages.errors import Rejected, Unavailable
from relayer.testnet.nodes import RPC_TIMEOUT_S, get_tools_folder
from relayer.testnet.processes import LOOPBACK, Group, Process, get_free_port

WASMD_MODULE = "github.com/CosmWasm/wasmd"
WASMD_VERSION = "v0.70.3"
WASMVM_MODULE = "github.com/CosmWasm/wasmvm/v3"
BUILD_TIMEOUT_S = 3600
SETUP_TIMEOUT_S = 120
READY_TIMEOUT_S = 90.0
FIRST_HEIGHT = 3
"""A network counts as running when it has made so many blocks: then its first votes have gone round."""
VALIDATORS = 2
COMMIT_TIMEOUT_S = 1
DENOM = "stake"
GAS_PRICE = "0.001"
"""In `DENOM` a unit of gas."""
PREFIX = "wasm"
COIN_PATH = "m/44'/118'/0'/0/0"
TRUSTING_PERIOD_S = 14 * 86_400
"""Two thirds of the unbonding period of three weeks that a new chain begins with."""


def _get_library_name() -> str:
    return f"libwasmvm.{'aarch64' if platform.machine() in {'aarch64', 'arm64'} else 'x86_64'}.so"


def _get_home(tools: Path | None) -> Path:
    return (tools or get_tools_folder()) / "wasmd"


def find_wasmd(tools: Path | None = None) -> Path | None:
    """The program in the tools folder with its library beside it, or None. One on the PATH could be of any version."""
    home = _get_home(tools)
    return home / "wasmd" if (home / "wasmd").is_file() and (home / _get_library_name()).is_file() else None


def install_wasmd(tools: Path | None = None) -> Path:
    """The program, built with go if it is missing: five minutes and two gigabytes of modules.

    Raises:
        Unavailable: "no_wasmd", with what to do.
    """
    found = find_wasmd(tools)
    if found is not None:
        return found
    go = shutil.which("go")
    if go is None:
        raise Unavailable(
            "wasmd is not built and go is missing: install Go 1.25 or later, the first run builds wasmd with it",
            reason="no_wasmd",
        )
    home = _get_home(tools)
    source = home / "source"
    shutil.rmtree(source, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    module = json.loads(_run_go([go, "mod", "download", "-json", f"{WASMD_MODULE}@{WASMD_VERSION}"], home))["Dir"]
    # Its replace directives forbid `go install`, and the module cache is read-only: it is built from a copy.
    shutil.copytree(module, source)
    for path in (source, *source.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    names = " ".join(f"-X github.com/cosmos/cosmos-sdk/version.{key}=wasm" for key in ("Name", "AppName"))
    slow = [shutil.which("nice") or "", "-n", "10"]
    build = [*(slow if slow[0] else ()), go, "build", "-o", str(home / "wasmd.new"), "-ldflags", names, "./cmd/wasmd"]
    _run_go(build, source)
    library = Path(_run_go([go, "list", "-m", "-f", "{{.Dir}}", WASMVM_MODULE], source).strip())
    name = _get_library_name()
    shutil.copyfile(library / "internal" / "api" / name, home / name)
    (home / "wasmd.new").rename(home / "wasmd")
    shutil.rmtree(source, ignore_errors=True)
    return home / "wasmd"


def _run_go(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(  # noqa: S603  fixed commands
            command, cwd=folder, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable("go did not build wasmd in time", reason="no_wasmd") from error
    if done.returncode != 0:
        raise Unavailable(f"go could not build wasmd: {done.stderr.strip()[-400:]}", reason="no_wasmd")
    return done.stdout


def get_environment(program: Path) -> dict[str, str]:
    """Environment in which the program finds its library."""
    former = os.environ.get("LD_LIBRARY_PATH", "")
    return {"LD_LIBRARY_PATH": f"{program.parent}:{former}" if former else str(program.parent)}


def ask_comet(url: str, method: str, params: Mapping[str, Any] | None = None) -> Any:
    """The result of one JSON-RPC call to a CometBFT node.

    Raises:
        Unavailable: "unreachable". Rejected: the node answers with an error ("rpc_error"), in its own words.
    """
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": dict(params or {})}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  http or https
    try:
        with urllib.request.urlopen(request, timeout=RPC_TIMEOUT_S) as response:  # noqa: S310
            answer = json.load(response)
    except urllib.error.HTTPError as error:  # CometBFT sends its errors with status 500
        answer = _read_error(error, method)
    except (OSError, ValueError) as error:
        raise Unavailable(f"the node does not answer {method}: {error}", reason="unreachable") from error
    if not isinstance(answer, dict) or "error" in answer:
        failure = answer.get("error") if isinstance(answer, dict) else answer
        raise Rejected(f"the node refuses {method}: {str(failure)[:400]}", reason="rpc_error")
    return answer.get("result")


def _read_error(error: urllib.error.HTTPError, method: str) -> Any:
    try:
        return json.load(error)
    except ValueError:
        raise Unavailable(f"the node answers {method} with {error.code}", reason="unreachable") from error


@dataclass(frozen=True)
class Validator:
    """One validator: its process, and where its RPC listens."""

    process: Process
    port: int

    @property
    def url(self) -> str:
        """Its JSON-RPC."""
        return f"http://{LOOPBACK}:{self.port}"

    def get_height(self) -> int:
        """Height of its newest block; 0 while it does not answer."""
        try:
            return int(ask_comet(self.url, "status")["sync_info"]["latest_block_height"])
        except (Unavailable, Rejected):
            return 0


@dataclass(frozen=True)
class Wasmd:
    """A running network. ``faucet_key``: 32 bytes, of the account that the genesis gives coins to."""

    chain_id: str
    validators: tuple[Validator, ...]
    faucet_key: bytes

    def wait_for_blocks(self, height: int, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until every validator has a block at ``height``; Unavailable ("ended", "not_ready")."""
        for validator in self.validators:
            validator.process.wait_until(
                lambda v=validator: v.get_height() >= height,  # type: ignore[misc]  # bound now
                f"block {height} of {self.chain_id}",
                timeout_s,
                poll_s=0.2,
            )

    def restart(self, number: int) -> None:
        """Start a validator that was stopped or killed and wait until it makes blocks again."""
        self.validators[number].process.start()
        height = max(v.get_height() for v in self.validators)
        self.wait_for_blocks(height + 1)


def start_wasmd(group: Group, name: str, chain_id: str, validators: int = VALIDATORS) -> Wasmd:
    """Start a network with equal validators, each with a home and ports of its own, and wait until it makes blocks.

    Raises:
        Unavailable: "no_wasmd", "not_startable", "ended", "not_ready".
    """
    program = install_wasmd()
    folder = group.folder / name
    _write_homes(program, folder, chain_id, validators)
    homes = [folder / f"node{i}" / "wasmd" for i in range(validators)]
    peer_ports = [get_free_port() for _ in homes]
    nodes = [_get_node_id(home) for home in homes]
    started = []
    for i, home in enumerate(homes):
        peers = ",".join(
            f"{node}@{LOOPBACK}:{port}" for j, (node, port) in enumerate(zip(nodes, peer_ports, strict=True)) if j != i
        )
        port = get_free_port()
        process = group.add(
            f"{name}-{i}",
            [
                *(str(program), "start", "--home", str(home), "--log_level", "warn", "--log_no_color"),
                *("--rpc.laddr", f"tcp://{LOOPBACK}:{port}", "--rpc.pprof_laddr", ""),
                *("--p2p.laddr", f"tcp://{LOOPBACK}:{peer_ports[i]}", "--p2p.persistent_peers", peers),
                # Without a gRPC server the node answers no simulation over its RPC either.
                *("--grpc.enable=true", "--grpc.address", f"{LOOPBACK}:{get_free_port()}"),
                *("--p2p.pex=false", "--grpc-web.enable=false", "--api.enable=false"),
                *("--minimum-gas-prices", GAS_PRICE + DENOM),
            ],
            get_environment(program),
        )
        process.start()
        started.append(Validator(process, port))
    network = Wasmd(chain_id, tuple(started), _get_faucet_key(homes[0]))
    network.wait_for_blocks(FIRST_HEIGHT)
    return network


def _write_homes(program: Path, folder: Path, chain_id: str, validators: int) -> None:
    command = [
        *(str(program), "testnet", "init-files", "--v", str(validators), "--chain-id", chain_id),
        *("--keyring-backend", "test", "--commit-timeout", f"{COMMIT_TIMEOUT_S}s", "--single-host"),
        *("--starting-ip-address", LOOPBACK, "--minimum-gas-prices", GAS_PRICE + DENOM),
        *("--output-dir", str(folder), "--home", str(folder / "init")),
    ]
    done = subprocess.run(  # noqa: S603  the harness's own program and arguments
        command,
        env={**os.environ, **get_environment(program)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SETUP_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise Unavailable(f"wasmd cannot write its homes: {done.stderr.strip()[-400:]}", reason="not_startable")


def _get_node_id(home: Path) -> str:
    """CometBFT's name of a node: hex of the first 20 bytes of the SHA-256 of its ed25519 key."""
    key = base64.b64decode(json.loads((home / "config" / "node_key.json").read_text())["priv_key"]["value"])
    return sha256(key[32:]).hexdigest()[:40]


def _get_faucet_key(home: Path) -> bytes:
    """Private key of the account that a home's genesis made for its validator, from its phrase."""
    Account.enable_unaudited_hdwallet_features()
    phrase = json.loads((home / "key_seed.json").read_text())["secret"]
    return bytes(Account.from_mnemonic(phrase, account_path=COIN_PATH).key)
