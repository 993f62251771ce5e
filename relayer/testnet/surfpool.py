"""A Solana chain of a testnet: `surfpool` on the loopback, slots by the clock, and a front that keeps its finalized states.

There is no program to download: cargo builds a small one of ours (`surfnet/`) on surfpool's crates once, into a folder of the project.
`python -m relayer.testnet.surfpool` does just that. What the front is for says `relayer.testnet.surfnet_front`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from messages.errors import Rejected, RelayerError, Unavailable
from relayer.testnet.nodes import RPC_TIMEOUT_S, get_tools_folder
from relayer.testnet.processes import Group, Process

SOURCE = Path(__file__).resolve().parent / "surfnet"
PROGRAM = "surfnet"
RUST = (1, 97)
"""What surfpool 1.7 is written for; a nightly of that number does."""
TOOLCHAINS: tuple[tuple[str, ...], ...] = ((), ("+nightly",))
"""Ways to ask rustup for a compiler, the usual one first."""
BUILD_TIMEOUT_S = 7200
VERSION_TIMEOUT_S = 60
TELL_S = 15.0
"""How often the build says how far it is."""
SLOT_MS = 400
READY_TIMEOUT_S = 60.0
FIRST_SLOTS = 40
"""A chain counts as running when so many slots have passed: then there is a finalized one to read at."""


# ---- building ---------------------------------------------------------------------------------------------------------


def find_surfnet(tools: Path | None = None) -> Path | None:
    """The program in the tools folder, or None."""
    program = _get_home(tools) / PROGRAM
    return program if program.is_file() else None


def _get_home(tools: Path | None) -> Path:
    return (tools or get_tools_folder()) / "surfpool"


def install_surfnet(tools: Path | None = None, say: Callable[[str], None] | None = None) -> Path:
    """The program, built with cargo if it is missing: a thousand crates, ten minutes to an hour on two cores.

    Args:
        tools: folder that programs lie in; None is the project's.
        say: hears how far the build is; None writes lines to stderr.

    Raises:
        Unavailable: "no_surfpool", with what to do.
    """
    found = find_surfnet(tools)
    if found is not None:
        return found
    say = say or _say
    cargo = _find_cargo()
    home = _get_home(tools)
    home.mkdir(parents=True, exist_ok=True)
    target = home / "target"
    slow = [shutil.which("nice") or "", "-n", "10"]
    command = [
        *(slow if slow[0] else ()),
        *cargo,
        *("build", "--release", "--locked", "--ignore-rust-version"),
        *("--manifest-path", str(SOURCE / "Cargo.toml"), "--target-dir", str(target)),
    ]
    total = (SOURCE / "Cargo.lock").read_text().count("[[package]]")
    say(f"surfpool is built once, with {' '.join(cargo)}: {total} crates at most, ten minutes to an hour")
    _build(command, home, total, say)
    # the name appears when the file is whole: a build that was stopped is gone on with
    shutil.copy2(target / "release" / PROGRAM, home / f"{PROGRAM}.new")
    (home / f"{PROGRAM}.new").rename(home / PROGRAM)
    shutil.rmtree(target, ignore_errors=True)
    say("surfpool is built")
    return home / PROGRAM


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _find_cargo() -> tuple[str, ...]:
    """Cargo with a compiler that is new enough; Unavailable ("no_surfpool") says how to get one."""
    cargo, rustc = shutil.which("cargo"), shutil.which("rustc")
    number = ".".join(map(str, RUST))
    found = []
    if cargo is not None and rustc is not None:
        for toolchain in TOOLCHAINS:
            version = _get_version((rustc, *toolchain))
            if version >= RUST:
                return cargo, *toolchain
            found.append(".".join(map(str, version)) or "none")
    raise Unavailable(
        f"surfpool is not built and Rust {number} or later is missing: install rustup (https://rustup.rs) and run"
        " `rustup toolchain install nightly`; the first run builds surfpool with it",
        got=", ".join(found) or "no cargo on the PATH",
        expected=number,
        reason="no_surfpool",
    )


def _get_version(rustc: Sequence[str]) -> tuple[int, ...]:
    """(major, minor) of a compiler, () where it cannot be run."""
    try:
        done = subprocess.run(  # noqa: S603  rustc of the PATH
            [*rustc, "--version"], capture_output=True, text=True, timeout=VERSION_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(r"rustc (\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else ()


def _build(command: Sequence[str], folder: Path, total: int, say: Callable[[str], None]) -> None:
    with (
        tempfile.TemporaryFile() as out,
        subprocess.Popen(  # noqa: S603  a fixed command
            command,
            cwd=folder,
            env={**os.environ, **get_build_environment()},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        ) as child,
    ):
        timer = threading.Timer(BUILD_TIMEOUT_S, child.kill)
        timer.start()
        try:
            tail = follow_build(child.stderr or (), total, say)
        except BaseException:
            child.kill()
            raise
        finally:
            timer.cancel()
        code = child.wait()
    if code != 0:
        raise Unavailable(f"cargo could not build surfpool: {' | '.join(tail)}", reason="no_surfpool")


def get_build_environment() -> dict[str, str]:
    """What cargo is told beside its arguments: to take the system's OpenSSL where it can be compiled against, else it builds its own."""
    pkg_config = shutil.which("pkg-config")
    if pkg_config is None:
        return {}
    done = subprocess.run([pkg_config, "--exists", "openssl"], timeout=VERSION_TIMEOUT_S, check=False)  # noqa: S603  of the PATH
    return {"OPENSSL_NO_VENDOR": "1"} if done.returncode == 0 else {}


def follow_build(lines: Any, total: int, say: Callable[[str], None]) -> list[str]:
    """Read what cargo says, tell now and then how many crates are compiled; the last lines, for an error message."""
    count, told, tail = 0, time.monotonic(), [""]
    for line in lines:
        tail = [*tail[-11:], line.strip()]
        if line.lstrip().startswith("Compiling"):
            count += 1
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            say(f"surfpool: {count} of {total} crates compiled")
    return tail


# ---- running ----------------------------------------------------------------------------------------------------------


def ask_solana(url: str, method: str, params: Sequence[Any] = ()) -> Any:
    """The result of one JSON-RPC call to a Solana node.

    Raises:
        Unavailable: "unreachable". Rejected: the node answers with an error ("rpc_error"), in its own words.
    """
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  http or https
    try:
        with urllib.request.urlopen(request, timeout=RPC_TIMEOUT_S) as response:  # noqa: S310
            answer = json.load(response)
    except (OSError, ValueError) as error:
        raise Unavailable(f"the node does not answer {method}: {error}", reason="unreachable") from error
    if not isinstance(answer, dict) or "error" in answer:
        failure = answer.get("error") if isinstance(answer, dict) else answer
        raise Rejected(f"the node refuses {method}: {_tell_failure(failure)}", reason="rpc_error")
    return answer.get("result")


def _tell_failure(failure: Any) -> str:
    """Code, message and what failed in a transaction; not the log that a node puts between them."""
    found = failure if isinstance(failure, dict) else {"message": failure}
    data = found.get("data")
    failed = json.dumps(data.get("err")) if isinstance(data, dict) and "err" in data else ""
    return f"{found.get('code')} {str(found.get('message'))[:300]} {failed}".rstrip()


@dataclass(frozen=True)
class Surfnet:
    """A running chain. ``node_url``: surfpool's own JSON-RPC; ``url``: the front's, for everybody but cheats."""

    process: Process
    front: Process
    node_url: str
    url: str

    @property
    def port(self) -> int:
        """Of the front."""
        return int(self.url.rpartition(":")[2])

    def install_program(self, address: str, code: bytes) -> None:
        """Put a program at an address (base58), owned by the loader that lets nobody change it, as a cheat of surfpool's."""
        lamports = int(ask_solana(self.node_url, "getMinimumBalanceForRentExemption", [len(code)]))
        account = {"lamports": lamports, "data": code.hex(), "owner": LOADER, "executable": True}
        ask_solana(self.node_url, "surfnet_setAccount", [address, account])


LOADER = "BPFLoader2111111111111111111111111111111111"
"""The loader without upgrades: its programs are their account's data."""


def start_surfnet(group: Group, name: str) -> Surfnet:
    """Start a chain with its front on free ports and wait until it has a finalized slot.

    Raises:
        Unavailable: "no_surfpool", "not_startable", "ended", "not_ready".
    """
    program = install_surfnet()
    process = group.add(name, [str(program), str(SLOT_MS)])
    process.start()
    process.wait_until(lambda: bool(_get_address(process)), "an address to ask at", READY_TIMEOUT_S)
    node_url = _get_address(process)
    command = [sys.executable, "-m", "relayer.testnet.surfnet_front", "--target", node_url]
    front = group.add(f"{name}-front", command)
    front.start()
    url = str(front.wait_for_event("ready")["url"])
    chain = Surfnet(process, front, node_url, url)
    process.wait_until(
        lambda: int(ask_solana(node_url, "getSlot", [{"commitment": "processed"}])) > FIRST_SLOTS,
        f"slot {FIRST_SLOTS}",
        READY_TIMEOUT_S,
        poll_s=0.2,
    )
    return chain


def _get_address(process: Process) -> str:
    return next((str(e["rpc_url"]) for e in process.get_events() if "rpc_url" in e), "")


if __name__ == "__main__":
    try:
        install_surfnet()
    except RelayerError as error:
        sys.exit(str(error))
