"""The conformance kinds of the Ethereum family under pytest: one test a kind, so that a failure names its vectors."""

from __future__ import annotations

import importlib

import pytest

from tests.conformance import eureka_e2e
from tests.conformance.run import get_root

KINDS = (
    *(
        "bls",
        "eth_lc_mutations",
        "eth_lc_sync",
        "eth_real_lc",
        "eth_single_merkle_proof",
        "eth_ssz_static",
        "eth_update_ranking",
    ),
    *("mpt", "receipts"),
)


def run_cases(cases) -> None:
    failures, count = [], 0
    for case in cases:
        count += 1
        try:
            case.run()
        except Exception as error:  # noqa: BLE001  collected, so that one failure does not hide the others
            failures.append(f"{case.name}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures[:20])
    assert count, "the folder holds no case"


def get_folder(kind: str):
    folder = get_root() / kind
    if not folder.is_dir():
        pytest.skip(f"no vectors at {folder}: set RELAYER_VECTORS")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_of_the_kind_gets_its_verdict(kind):
    run_cases(importlib.import_module(f"tests.conformance.kinds.{kind}").discover(get_folder(kind)))


def test_the_devnet_fixtures_of_ibc_v2_are_accepted_from_update_to_packet():
    run_cases(eureka_e2e.discover_e2e(get_folder("ibc_v2")))
