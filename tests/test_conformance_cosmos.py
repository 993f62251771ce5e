"""The conformance kinds of the Cosmos family under pytest: one test a kind, so that a failure names its vectors."""

from __future__ import annotations

import importlib

import pytest

from tests.test_conformance_evm import get_folder, run_cases


@pytest.mark.parametrize("kind", ["tendermint", "ics23", "sig", "attacks"])
def test_every_vector_of_the_kind_gets_its_verdict(kind):
    run_cases(importlib.import_module(f"tests.conformance.kinds.{kind}").discover(get_folder(kind)))
