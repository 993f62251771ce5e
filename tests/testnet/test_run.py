"""The whole testnet: real nodes, broker, four operator processes, the story, with everything going wrong on the way (about nine minutes)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from relayer.testnet.run import Options, get_unavailable_reason, run_testnet

SLOTS_PER_EPOCH = 4
EXPIRY_MINUTES = 7


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("faults", [False, True], ids=["calm", "faults"])
@pytest.mark.parametrize("families", [("evm", "evm"), ("evm", "cosmos", "solana")], ids="-".join)
def test_the_story_is_settled_on_real_nodes_and_every_operator_knows_the_same(tmp_path, families, faults):
    reason = get_unavailable_reason(families)
    if reason:
        pytest.skip(reason)
    folder = tmp_path / "run"
    options = Options("run", folder, 2, faults, EXPIRY_MINUTES, SLOTS_PER_EPOCH, families=families)
    assert run_testnet(options) == 0
    result = json.loads((folder / "report.json").read_text())
    assert result["conservation"]["difference"] == "0"
    assert result["operators_agree"]
    assert [c["family"] for c in result["chains"].values()] == list(families)
    assert int(result["settlement"]["net"]) < int(result["settlement"]["gross"])
    assert result["packets"] > 4
    assert all(not found["halts"] for found in result["incidents"].values())
    blamed = {b["source"] for found in result["incidents"].values() for b in found["blames"]}
    assert ("proxied" in blamed) is faults
    assert [lie["operator"] for lie in result["lies"]] == ["op3"] * (faults and "solana" in families)
    for lie in result["lies"]:
        assert lie["forged"] > 1
        assert lie["endpoint_accusers"] == lie["operator_accusers"] == ["op0", "op1", "op2"]
    assert run_testnet(Options("report", folder)) == 0
    assert run_testnet(Options("down", folder)) == 1  # it has stopped already


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("families", "nodes"),
    [
        ("evm,evm", {"anvil-one", "sidecar-two"}),
        ("cosmos,evm", {"wasmd-one-0", "wasmd-one-1", "anvil-two"}),
        ("evm,solana", {"anvil-one", "surfnet-two", "surfnet-two-front", "proxy-rpc-two-fourth"}),
    ],
)
def test_what_up_started_goes_on_until_down(tmp_path, families, nodes):
    reason = get_unavailable_reason(tuple(families.split(",")))
    if reason:
        pytest.skip(reason)
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "relayer.testnet", "up", "--folder", str(folder), "--slots-per-epoch", "2"]
    command += ["--chains", families]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as harness:
        said = []
        for line in harness.stderr:
            said.append(line)
            if "Ready" in line:
                break
        assert harness.poll() is None, said
        assert run_testnet(Options("down", folder)) == 0
        assert harness.wait(30) == 0
    started = {p.stem for p in (folder / "processes").glob("*.log")}
    assert nodes | {"broker", "op0", "op3"} <= started
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in found


def test_a_run_does_not_write_into_a_folder_with_files(tmp_path, capsys):
    (tmp_path / "precious").write_text("x")
    assert run_testnet(Options("run", tmp_path)) == 1
    assert "not empty" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_there_is_no_report_where_no_run_was(tmp_path, capsys):
    assert run_testnet(Options("report", tmp_path)) == 1
    assert "no" in capsys.readouterr().err
