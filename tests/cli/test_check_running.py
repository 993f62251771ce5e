"""`relayer check` beside things that run: a broker, records of a vault; and limits of alerts that a configuration sets."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from messages.bodies import Unpause, encode_body
from messages.documents import ControlParameters
from relayer.cli import app
from relayer.commands import check as check_module
from relayer.commands.control import get_standing
from relayer.config import load_config
from relayer.rules.ledger import get_initial_state, get_vault_id
from tests.builders import make_parameters, make_vault
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


@pytest.mark.parametrize("is_paused", [True, False])
def test_an_unpause_that_has_done_its_work_is_told_before_it_ends_another_pause(tmp_path, monkeypatch, is_paused):
    vault = make_vault(0)
    controls = (ControlParameters(get_vault_id(vault), encode_body(Unpause())),)
    parameters = replace(make_parameters([vault], effective=1_700_000_000), controls=controls)
    path = write_folder(tmp_path, parameters=parameters)
    state = replace(get_initial_state(vault), paused=is_paused)
    standing = get_standing(parameters, {get_vault_id(vault): state}, int(time.time()))
    monkeypatch.setattr(check_module, "read_standing", lambda *_: standing)
    assert ("old_unpause" in check(path)) is not is_paused
