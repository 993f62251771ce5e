"""A mosquitto broker on the loopback for one run: users with passwords, an ACL, nothing retained (incidents.md 5, configs/mosquitto)."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from messages.errors import Unavailable
from relayer.testnet.processes import LOOPBACK, Group, Process, get_free_port, is_listening

ITERATIONS = 101
SYSTEM_PATH = ":/usr/sbin:/usr/local/sbin"
"""Where Debian keeps daemons, which is not on everybody's PATH."""

_CONFIG = """\
per_listener_settings false
listener {port} {host}
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
retain_available false
persistence false
max_queued_messages 2000
max_queued_bytes 134217728
max_packet_size 16777216
max_connections 100
set_tcp_nodelay true
log_dest stderr
"""
_ACL = "pattern write {root}/%u/#\npattern read {root}/#\npattern read $SYS/broker/version\n"


def find_mosquitto() -> Path | None:
    """The broker's program, or None."""
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + SYSTEM_PATH)
    return None if found is None else Path(found)


def encode_password(user: str, password: str) -> str:
    """A line of mosquitto's password file: PBKDF2-HMAC-SHA512, salted (format 7)."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return f"{user}:$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


@dataclass(frozen=True)
class Broker:
    """A running broker."""

    process: Process
    port: int

    def restart(self) -> None:
        """Stop it and start it again on the same port: what it held is gone."""
        self.process.stop()
        self.process.start()
        self.wait()

    def wait(self) -> None:
        """Wait until it accepts connections."""
        self.process.wait_until(lambda: is_listening(self.port), "accepting connections")


def start_broker(group: Group, passwords: Mapping[str, str], root: str = "optsettle") -> Broker:
    """Start a broker whose users are operators' addresses (40 hex digits) with their passwords.

    Raises:
        Unavailable: "no_mosquitto", with what to do; "ended", "not_ready".
    """
    program = find_mosquitto()
    if program is None:
        raise Unavailable("mosquitto is not installed (Debian: apt-get install mosquitto)", reason="no_mosquitto")
    folder = group.folder / "broker"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = get_free_port()
    # Started by root, as in a container, mosquitto would change to a user that cannot read this folder.
    user = "user root\n" if os.geteuid() == 0 else ""
    (folder / "mosquitto.conf").write_text(_CONFIG.format(port=port, host=LOOPBACK, folder=folder.absolute()) + user)
    (folder / "acl").write_text(_ACL.format(root=root))
    file = folder / "passwords"
    file.touch(mode=0o600)
    file.write_text("".join(encode_password(u, p) + "\n" for u, p in sorted(passwords.items())))
    (folder / "acl").chmod(0o600)
    process = group.add("broker", [str(program), "-c", str(folder / "mosquitto.conf")])
    process.start()
    broker = Broker(process, port)
    broker.wait()
    return broker
