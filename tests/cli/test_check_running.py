"""`relayer check` beside things that run: a broker, records of a vault; and limits of alerts that a configuration sets."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from relayer.cli import app
from relayer.config import load_config
from tests.cli.operator_files import write_folder, write_secret
from tests.gossip.broker import PASSWORD, Broker


def check(path, *words):
    result = CliRunner().invoke(app, ["check", "-c", str(path), "--json", *words])
    assert "Traceback" not in result.output, result.output
    return {f["code"]: f for f in json.loads(result.stdout)["findings"]}


def write_with_broker(folder, broker, password):
    write_secret(folder / "broker.password", password.encode())
    gossip = {"kind": "mqtt", "host": "127.0.0.1", "port": broker.port, "password_file": "broker.password"}
    return write_folder(folder, gossip=gossip)


def test_a_broker_that_works_is_told_and_one_that_knows_us_not_is_wrong(tmp_path):
    with Broker(tmp_path) as broker:
        (tmp_path / "good").mkdir()
        found = check(write_with_broker(tmp_path / "good", broker, PASSWORD), "--live").values()
        levels = [f["level"] for f in found if f["subject"] == "broker"]
        assert levels
        assert set(levels) == {"ok"}
        (tmp_path / "bad").mkdir()
        found = check(write_with_broker(tmp_path / "bad", broker, "not the password"), "--live").values()
        assert {f["level"] for f in found if f["subject"] == "broker"} == {"wrong"}


def test_limits_of_alerts_are_read_and_a_name_that_there_is_not_is_wrong(tmp_path):
    path = write_folder(tmp_path / "good", metrics={"port": 9464, "limits": {"head_old": 7200, "disk_slow": 0.25}})
    assert load_config(path).metrics.limits == {"head_old": 7200, "disk_slow": 0.25}
    assert check(path)["metrics"]["level"] == "ok"
    path = write_folder(tmp_path / "unknown", metrics={"port": 9464, "limits": {"head_olds": 7200}})
    assert check(path)["unknown_alert"]["level"] == "wrong"
    for wrong in (-1, "7200", True, float("inf")):
        path.write_text(
            path.read_text().replace("head_olds = 7200", f"head_olds = {json.dumps(wrong)}".replace("Infinity", "inf"))
        )
        result = CliRunner().invoke(app, ["check", "-c", str(path)])
        assert result.exit_code == 3, (wrong, result.output)
        assert "metrics.limits" in result.stderr
        path = write_folder(tmp_path / f"again {wrong}", metrics={"port": 9464, "limits": {"head_olds": 7200}})
