"""A real mosquitto on loopback for tests, started from the example configuration in configs/mosquitto."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import aiomqtt
import pytest

from relayer.mqtt import MqttGossip, MqttSettings
from tests.builders import OPERATORS

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "mosquitto"
PASSWORD = "a test's password"
EVIL = "evil"


def find(program):
    """Path of a program, also where the system keeps daemons; skips the test if there is none."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install mosquitto)")
    return path


def get_free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """``evil``: a broker that is in the hands of an attacker: one user may read and write everything, retained too."""

    def __init__(self, folder: Path, *, evil: bool = False, config: str = "local.conf", changes: dict | None = None):
        self._mosquitto, passwd = find("mosquitto"), find("mosquitto_passwd")
        self.folder = folder / "broker"
        self.folder.mkdir(mode=0o700)
        self.port = get_free_port()
        text = (CONFIGS / config).read_text()
        standard = {
            "listener 1883": f"listener {self.port}",
            "password_file passwords": f"password_file {self.folder / 'passwords'}",
            "acl_file operators.acl": f"acl_file {self.folder / 'operators.acl'}",
        }
        if config != "local.conf":
            standard = {"listener 8883": f"listener {self.port} 127.0.0.1"}
        changes = {**standard, **(changes or {})}
        if evil:
            changes["retain_available false"] = "retain_available true"
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        self.conf = self.folder / "mosquitto.conf"
        # Started by root (as in a container), mosquitto would change to a user that can't read this folder.
        self.conf.write_text(text + "\nuser root\n")
        acl = (CONFIGS / "operators.acl").read_text()
        (self.folder / "operators.acl").write_text(acl + (f"user {EVIL}\ntopic readwrite #\n" if evil else ""))
        passwords = self.folder / "passwords"
        passwords.touch(mode=0o600)
        for user in [*(o.hex() for o in OPERATORS), *([EVIL] if evil else [])]:
            subprocess.run([passwd, "-b", str(passwords), user, PASSWORD], check=True, capture_output=True)
        self.password_file = self.folder / "secret"
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(PASSWORD + "\n")
        self.process: subprocess.Popen | None = None

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([self._mosquitto, "-c", str(self.conf)], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return self
        raise AssertionError((self.folder / "log").read_text())

    def kill(self, number=signal.SIGKILL):
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill(signal.SIGTERM)

    def settings(self, i, **changes):
        fields = {
            "host": "127.0.0.1",
            "port": self.port,
            "operator": OPERATORS[i],
            "operators": OPERATORS,
            "password_file": self.password_file,
            "backoff_min_s": 0.05,
            "backoff_max_s": 0.3,
            **changes,
        }
        return MqttSettings(**fields)

    def client(self, user=EVIL, password=PASSWORD, **options):
        """A bare client, for those who keep to no rule."""
        return aiomqtt.Client(
            "127.0.0.1",
            self.port,
            username=user,
            password=password,
            protocol=aiomqtt.ProtocolVersion.V5,
            **options,
        )


class Running:
    """Gossips that run as long as the block."""

    def __init__(self, *gossips: MqttGossip):
        self.gossips = gossips
        self.tasks: list[asyncio.Task] = []

    async def __aenter__(self):
        self.tasks = [asyncio.create_task(g.run()) for g in self.gossips]
        await until(lambda: all(g.is_connected for g in self.gossips), self.tasks)
        return self.gossips

    async def __aexit__(self, *_):
        for gossip in self.gossips:
            gossip.stop()
        await asyncio.wait_for(asyncio.gather(*self.tasks), 20)


async def until(condition, tasks=(), seconds=20):
    """Wait for something that must come; a task that ended with an error ends the wait."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        for task in tasks:
            if task.done():
                task.result()
        assert asyncio.get_running_loop().time() < deadline, "it did not come"
        await asyncio.sleep(0.01)
