"""`relayer operators`: sets by facts, participation by records."""

from __future__ import annotations

from tests.builders import OPERATORS


def test_operators_shows_the_set_of_every_vault_and_who_took_part(shell):
    data = shell.json("operators")
    assert data["epoch"] == 0
    assert data["threshold"] == 3
    assert [m["operator"] for m in data["operators"]] == ["0x" + o.hex() for o in OPERATORS]
    assert data["plans"] >= 2
    assert sum(m["votes"] for m in data["operators"]) >= 3 * data["plans"]  # each plan has at least m votes
    assert all(0 < m["signed"] <= data["plans"] for m in data["operators"])
    assert data["is_one_set"]
    assert [v["pending"] for v in data["vaults"]] == [None, None]
    one = shell.json("operators", "--last", "1")
    assert one["plans"] == 1
    text = shell.text("operators")
    assert "3 of 4, epoch 0" in text


def test_operators_of_a_node_without_records_says_so(shell):
    shell.store.unlink()
    assert shell("operators").exit_code == 4
