"""The byte vectors of the protocol and of IBC v2, when the folder is there."""

from __future__ import annotations

import json

import pytest

from messages.errors import Rejected
from tests.conformance.kinds import ibc_v2, optsettle
from tests.conformance.run import get_root


@pytest.mark.parametrize("kind", [optsettle, ibc_v2], ids=["optsettle", "ibc_v2"])
def test_every_byte_vector_gives_its_verdict(kind):
    folder = get_root() / kind.KIND
    if not folder.is_dir():
        pytest.skip(f"no vectors at {folder}: set RELAYER_VECTORS")
    cases = list(kind.discover_in_process(folder))
    assert cases
    failures = []
    for case in cases:
        try:
            case.run()
        except Exception as error:  # noqa: BLE001  every failure is listed
            failures.append(f"{case.name}: {error!r}")
    assert not failures


def read_vectors(kind) -> dict:
    """The first byte-vector file of a kind, whatever its name."""
    folder = get_root() / kind.KIND
    if not folder.is_dir():
        pytest.skip(f"no vectors at {folder}: set RELAYER_VECTORS")
    files = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    return next(data for data in files if "packets" in data)


def run_all(kind, folder) -> tuple[int, int]:
    """Return (passed, failed) of what is found in ``folder`` in process."""
    passed = failed = 0
    for case in kind.discover_in_process(folder):
        try:
            case.run()
        except (AssertionError, Rejected):
            failed += 1
        else:
            passed += 1
    return passed, failed


def test_vectors_are_found_by_content_under_any_name(tmp_path):
    data = read_vectors(optsettle)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "other-name.json").write_text(json.dumps(data))
    (tmp_path / "unrelated.json").write_text('[1, {"packets": 5}]')
    passed, failed = run_all(optsettle, tmp_path)
    assert failed == 0
    assert passed >= sum(len(data[section]) for section in optsettle.SECTIONS) + len(data["signatures"])


def spoil(text: str) -> str:
    return ("1" if text[0] == "0" else "0") + text[1:]


EXPECTED = {
    "vault_ids": ["vault_id", "client"],
    "payloads": ["value", "kind"],
    "packets": ["commitment", "source_client", "destination_client"],
    "digests": ["digest", "type_hash", "domain_separator"],
    "signatures": ["address"],
    "series": ["id"],
    "dues": ["id"],
    "denoms": ["asset"],
    "malformed_values": ["expect"],
}


@pytest.mark.parametrize(("section", "key"), [(s, k) for s, keys in EXPECTED.items() for k in keys])
def test_a_vector_with_another_verdict_fails(tmp_path, section, key):
    data = read_vectors(optsettle)
    for entry in data[section]:
        value = entry[key]
        entry[key] = "00" * 20 if value is None else value + 1 if isinstance(value, int) else spoil(value)
    given = {section: data[section], "operators": data["operators"]}
    (tmp_path / "x.json").write_text(json.dumps(given))
    passed, failed = run_all(optsettle, tmp_path)
    assert (passed, failed) == (len(data["operators"]), len(data[section]))


def test_a_good_value_listed_as_malformed_fails(tmp_path):
    data = read_vectors(optsettle)
    entries = [{"why": "good", "value": p["value"], "expect": "malformed"} for p in data["payloads"]]
    (tmp_path / "x.json").write_text(json.dumps({"malformed_values": entries}))
    assert run_all(optsettle, tmp_path) == (0, len(entries))


def test_recv_verdicts_that_are_swapped_fail(tmp_path):
    data = read_vectors(optsettle)
    for case in data["recv_cases"]:
        case["expect"] = "revert signatures" if case["expect"].startswith("accepted") else "revert sequences"
    (tmp_path / "x.json").write_text(json.dumps({key: data[key] for key in ("recv_setup", "recv_cases")}))
    assert run_all(optsettle, tmp_path) == (0, len(data["recv_cases"]))


def test_a_link_of_the_head_chain_that_is_changed_fails(tmp_path):
    data = read_vectors(optsettle)
    for entry in data["heads"]:
        entry["links"][-1]["head"] = spoil(entry["links"][-1]["head"])
    (tmp_path / "x.json").write_text(json.dumps({"heads": data["heads"]}))
    assert run_all(optsettle, tmp_path) == (0, len(data["heads"]))


@pytest.mark.parametrize("section", ["packets", "acks"])
def test_another_commitment_of_ibc_fails(tmp_path, section):
    data = read_vectors(ibc_v2)
    for entry in data[section]:
        entry["commitment"] = spoil(entry["commitment"])
    (tmp_path / "x.json").write_text(json.dumps({section: data[section]}))
    assert run_all(ibc_v2, tmp_path) == (0, len(data[section]))
