"""The configuration for operators (configs/mosquitto/operators.conf): TLS 1.3, a certificate per operator, names from it."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from relayer.mqtt import MqttGossip
from tests.builders import OPERATORS
from tests.gossip.broker import Broker, Running, find, until

TOPIC = "optsettle/00112233/vote"


class Authority:
    """A certificate authority of the committee, made with openssl."""

    def __init__(self, folder: Path, name: str = "ca"):
        self.openssl = find("openssl")
        self.folder = folder
        self.ca = folder / f"{name}.crt"
        self._key = folder / f"{name}.key"
        self._run(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.ca,
        )  # fmt: skip

    def _run(self, *arguments):
        subprocess.run([self.openssl, *map(str, arguments)], check=True, capture_output=True)

    def issue(self, common_name, file_name):
        """Return (certificate, key) files."""
        certificate, key = self.folder / f"{file_name}.crt", self.folder / f"{file_name}.key"
        request, names = self.folder / f"{file_name}.csr", self.folder / f"{file_name}.ext"
        self._run(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={common_name}",
            "-keyout", key, "-out", request,
        )  # fmt: skip
        names.write_text("subjectAltName=IP:127.0.0.1\n")
        self._run(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-days", "2", "-CAcreateserial",
            "-extfile", names, "-out", certificate,
        )  # fmt: skip
        key.chmod(0o600)
        return certificate, key


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def make_tls_broker(folder, authority):
    """A broker from the operators' configuration, with a certificate of the authority."""
    certificate, key = authority.issue("broker", "broker")
    changes = {
        "/etc/mosquitto/operators/ca.crt": str(authority.ca),
        "/etc/mosquitto/operators/broker.crt": str(certificate),
        "/etc/mosquitto/operators/broker.key": str(key),
        "acl_file /etc/mosquitto/operators/operators.acl": f"acl_file {folder / 'broker' / 'operators.acl'}",
    }
    return Broker(folder, config="operators.conf", changes=changes)


@pytest.fixture
def broker(tmp_path, authority):
    with make_tls_broker(tmp_path, authority) as broker:
        yield broker


def make_settings(broker, authority, i, *, common_name=None, **changes):
    certificate, key = authority.issue(common_name or OPERATORS[i].hex(), f"operator{i}")
    fields = {"password_file": None, "ca_file": authority.ca, "cert_file": certificate, "key_file": key}
    return broker.settings(i, **{"connect_timeout_s": 1.0, **fields, **changes})


async def test_operators_with_certificates_talk_and_one_name_cannot_use_another(broker, authority):
    a, b, c = (
        MqttGossip(make_settings(broker, authority, 0)),
        MqttGossip(make_settings(broker, authority, 1)),
        MqttGossip(make_settings(broker, authority, 2, common_name=OPERATORS[3].hex())),
    )
    got = []
    a.subscribe(TOPIC, lambda _, d: got.append(d))
    async with Running(a, b, c):
        await c.publish(TOPIC, b"with a certificate of another name")
        await until(lambda: c.counts.get("sent"))
        await b.publish(TOPIC, b"hello")
        await until(lambda: got)
    assert got == [b"hello"]


# The client library leaves the closing of a socket that failed its handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_without_a_certificate_or_with_a_strangers_there_is_no_connection(broker, authority, tmp_path):
    stranger_folder = tmp_path / "stranger"
    stranger_folder.mkdir()
    stranger = Authority(stranger_folder, "stranger")
    certificate, key = stranger.issue(OPERATORS[0].hex(), "operator")
    for changes in (
        {"cert_file": None, "key_file": None},
        {"cert_file": certificate, "key_file": key},
        {"ca_file": stranger.ca},
    ):
        gossip = MqttGossip(make_settings(broker, authority, 0, **changes))
        task = asyncio.create_task(gossip.run())
        await until(lambda g=gossip: g.last_error != "never connected", [task])
        assert not gossip.counts.get("connects")
        gossip.stop()
        await asyncio.wait_for(task, 20)
