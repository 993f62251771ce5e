"""Child processes: started with a log file each, health-checked, stopped in every exit path.

`Group` is the one owner: leaving its `with` block, an exception, SIGTERM (as `Stopped`) and the end of the interpreter all stop what it
started, newest first. On Linux the kernel also ends the children of a harness that was killed, unless they are meant to outlive it
(`testnet up`); those are written down with process id and start time, so that `down` never stops a stranger that got the same id.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from messages.errors import Unavailable

LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
TAIL_BYTES = 4000
_PR_SET_PDEATHSIG = 1


def get_free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_listening(port: int) -> bool:
    """Ask whether something accepts connections at a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


@dataclass
class Process:
    """One child. ``log`` receives stderr, ``output`` stdout (JSON lines of our own programs)."""

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)
    _child: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> Path:
        """File with stdout."""
        return self.folder / f"{self.name}.out"

    @property
    def log(self) -> Path:
        """File with stderr."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int:
        """Process id; RuntimeError before `start`."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start, or start again after it ended; files are appended to.

        Raises:
            Unavailable: the program cannot be executed ("not_startable").
        """
        if self.is_running:
            raise RuntimeError(f"{self.name} runs already")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with self.output.open("ab") as output, self.log.open("ab") as log:
                self._child = subprocess.Popen(  # noqa: S603  programs and arguments are the harness's own
                    list(self.command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=log,
                    env={**os.environ, **self.environment},
                    # a terminal's Ctrl-C is for the harness alone, which then stops its children in order
                    start_new_session=True,
                    preexec_fn=_get_death_wish(),  # noqa: PLW1509  one C call, no locks
                )
        except OSError as error:
            raise Unavailable(f"{self.name} cannot be started: {error}", reason="not_startable") from error

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """SIGTERM, then SIGKILL after ``timeout_s``; the exit code, None if it never ran."""
        if self._child is None:
            return None
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._child.kill()
        return self._reap()

    def kill(self) -> int | None:
        """SIGKILL: what a power cut does."""
        if self._child is None:
            return None
        if self._child.poll() is None:
            self._child.kill()
        return self._reap()

    def _reap(self) -> int:
        child = self._child
        if child is None:
            raise RuntimeError("nothing to wait for")
        code = child.wait()
        self._child = None
        self.exit_codes.append(code)
        return code

    def verify_running(self) -> None:
        """Raise Unavailable ("ended") with the last lines of its log, if it ended by itself."""
        if self._child is not None and (code := self._child.poll()) is not None:
            raise Unavailable(f"{self.name} ended: {self.get_tail()}", got=f"exit code {code}", reason="ended")

    def get_tail(self) -> str:
        """The last lines of log and output, for an error message."""
        tails = [
            path.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")
            for path in (self.log, self.output)
            if path.is_file()
        ]
        return " | ".join(line for tail in tails for line in tail.strip().splitlines()[-12:]) or "it said nothing"

    def get_events(self) -> list[dict[str, Any]]:
        """JSON lines on stdout so far; anything else there is passed over."""
        events = []
        for line in self.output.read_text(errors="replace").splitlines() if self.output.is_file() else ():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict):
                events.append(found)
        return events

    def wait_until(
        self, is_ready: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S, poll_s: float = POLL_S
    ) -> None:
        """Wait for a health check; Unavailable ("ended", "not_ready") with the last lines of the log."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            self.verify_running()
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"{self.name}: {what} does not happen: {self.get_tail()}",
                    expected=f"within {timeout_s} s",
                    reason="not_ready",
                )
            time.sleep(poll_s)

    def wait_for_event(self, event: str, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Wait for a JSON line {"event": event, ...} on stdout since the last start; raises as `wait_until`."""

        def find() -> dict[str, Any] | None:
            return next((e for e in reversed(self.get_events()) if e.get("event") == event), None)

        self.wait_until(lambda: find() is not None, f"event {event!r}", timeout_s)
        return find() or {}


def _get_death_wish() -> Callable[[], None] | None:
    """On Linux: a call, made in the child, that asks the kernel to end it when the harness ends."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)

    def wish() -> None:
        library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))

    return wish


def get_start_time(pid: int) -> str:
    """What tells this process from a later one with the same id; "" where the system does not say."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def stop_process(pid: int, started: str, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Stop a process by its id and `get_start_time`; False if it is not there any more."""
    if get_start_time(pid) != started or not _signal(pid, signal.SIGTERM):
        return False
    deadline = time.monotonic() + timeout_s
    while get_start_time(pid) == started and not _is_zombie(pid):
        if time.monotonic() > deadline:
            _signal(pid, signal.SIGKILL)
            break
        time.sleep(POLL_S)
    return True


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class Group:
    """The owner of a run's processes; use as a context manager, from the main thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, Process] = {}

    def add(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
        """A process of the group; the caller starts it."""
        if name in self.processes:
            raise RuntimeError(f"two processes named {name}")
        process = Process(name, tuple(command), self.folder, environment or {})
        self.processes[name] = process
        return process

    def verify_running(self) -> None:
        """Raise Unavailable ("ended") for the first one that ended by itself."""
        for process in self.processes.values():
            process.verify_running()

    def stop(self) -> dict[str, int | None]:
        """Stop all, newest first; name to exit code. Safe to call twice."""
        return {name: process.stop() for name, process in reversed(list(self.processes.items())) if process.is_running}

    def kill(self) -> None:
        """SIGKILL to all that still run."""
        for process in self.processes.values():
            process.kill()

    def __enter__(self) -> Self:
        atexit.register(self.kill)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self.kill()
            atexit.unregister(self.kill)
