"""Every margin vector the product has a model for, one test each; the runner of `make conformance` finds and judges them."""

import pytest

from tests.conformance.case import SkippedError
from tests.conformance.kinds import margin
from tests.conformance.run import get_root

ROOT = get_root() / "margin"
CASES = list(margin.discover(ROOT)) if ROOT.is_dir() else []


@pytest.mark.skipif(not CASES, reason=f"no margin vectors at {ROOT}: set RELAYER_VECTORS")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_published_number_is_reproduced(case):
    try:
        case.run()
    except SkippedError as why:
        pytest.skip(str(why))


@pytest.mark.skipif(not CASES, reason=f"no margin vectors at {ROOT}: set RELAYER_VECTORS")
def test_every_srm_and_black76_vector_is_found():
    names = [case.name.split("/")[0] for case in CASES]
    assert names.count("derive_srm_cases.json") == 17
    assert names.count("derive_srm_portfolios.json") == 25
    assert names.count("derive_black76_svi.json") == 11
