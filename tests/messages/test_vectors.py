"""The byte vectors of the protocol and of IBC v2, when the folder is there."""

from __future__ import annotations

import pytest

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
