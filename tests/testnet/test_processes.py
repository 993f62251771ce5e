"""Children end with their owner, whatever its end is; strangers are never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from messages.errors import Unavailable
from relayer.testnet.processes import Group, get_start_time, is_listening, stop_process
from relayer.testnet.proxy import start_proxy

SLEEPER = [sys.executable, "-c", 'import time; print(\'{"event": "ready", "n": 1}\', flush=True); time.sleep(600)']
STUBBORN = [
    sys.executable,
    "-c",
    'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(\'{"event": "ready"}\', flush=True); time.sleep(600)',
]


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123  a line of the kernel's
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_leaving_the_group_by_an_error_stops_every_process(tmp_path):
    pids = []
    with pytest.raises(ZeroDivisionError), Group(tmp_path) as group:  # noqa: PT012  what happens inside is the test
        for name in ("one", "two"):
            process = group.add(name, SLEEPER)
            process.start()
            pids.append(process.pid)
            assert process.wait_for_event("ready")["n"] == 1
        raise ZeroDivisionError
    assert not any(map(is_alive, pids))


def test_a_process_that_ignores_sigterm_is_killed(tmp_path):
    with Group(tmp_path) as group:
        process = group.add("stubborn", STUBBORN)
        process.start()
        process.wait_for_event("ready")
        assert process.stop(timeout_s=0.3) == -signal.SIGKILL


def test_a_process_that_ended_by_itself_is_told_with_its_last_words(tmp_path):
    with Group(tmp_path) as group:
        process = group.add("failing", [sys.executable, "-c", "import sys; sys.exit('no such vault')"])
        process.start()
        with pytest.raises(Unavailable, match="no such vault") as caught:
            process.wait_for_event("ready")
        assert caught.value.reason == "ended"
        again = group.add("missing", ["/nonexistent/program"])
        with pytest.raises(Unavailable) as caught:
            again.start()
        assert caught.value.reason == "not_startable"


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not end the children of a killed process")
def test_children_of_a_killed_harness_end_too(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from relayer.testnet.processes import Group\n"
        f"group = Group(Path({str(tmp_path)!r})); process = group.add('child', {SLEEPER!r}); process.start()\n"
        "print(process.pid, flush=True); time.sleep(600)"
    )
    harness = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        pid = int(harness.stdout.readline())
        assert is_alive(pid)
        harness.kill()
        harness.wait()
        assert until(lambda: not is_alive(pid))
    finally:
        harness.kill()
        harness.stdout.close()
        harness.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="start times are read from /proc")
def test_down_stops_the_process_it_means_and_no_other_with_its_id(tmp_path):
    with Group(tmp_path) as group:
        process = group.add("sleeper", SLEEPER)
        process.start()
        started = get_start_time(process.pid)
        assert not stop_process(process.pid, started + "1")
        assert process.is_running
        assert stop_process(process.pid, started)
        assert until(lambda: not process.is_running)
    assert get_start_time(os.getpid()) != started


def test_a_proxy_carries_bytes_until_it_is_killed_and_again_after_a_restart(tmp_path):
    server = [sys.executable, "-c", ("import socketserver as s, sys\nclass H(s.StreamRequestHandler):\n"
              "  def handle(self): self.wfile.write(self.rfile.readline()[::-1])\n"
              "t=s.TCPServer(('127.0.0.1', 0), H); print('{\"event\": \"ready\", \"port\": %d}' % t.server_address[1], flush=True)\n"
              "t.serve_forever()")]  # fmt: skip
    with Group(tmp_path) as group:
        process = group.add("server", server)
        process.start()
        proxy, port = start_proxy(group, "proxy", process.wait_for_event("ready")["port"])

        def ask():
            import socket

            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"abc\n")
                return connection.makefile("rb").read()

        assert ask() == b"\ncba"
        proxy.kill()
        with pytest.raises(OSError):
            ask()
        proxy.start()
        assert until(lambda: is_listening(port))
        assert ask() == b"\ncba"
