"""The bytecode withstands every attack, and every attack succeeds on the twin without the check that stops it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contracts import attacks
from tests.contracts.twins import NAMES, Twin, get_twin

# attack -> the twins on which it must succeed
PAIRS: dict[Callable[[Twin | None], None], str] = {
    attacks.attack_with_the_zero_signer: "zero signer",
    attacks.attack_with_a_high_s: "high s",
    attacks.attack_by_one_operator_signing_thrice: "any order",
    attacks.attack_by_strangers: "any signer",
    attacks.attack_by_replay: "no sequence",
    attacks.attack_with_an_old_epoch: "no epoch",
    attacks.attack_with_another_envelope: "no envelope",
    attacks.attack_by_changing_a_field: "no envelope",
    attacks.attack_with_two_packets_in_one_calldata: "loose calldata",
    attacks.attack_from_another_chain: "any chain",
    attacks.attack_by_creating_cash: "no sum",
    attacks.attack_by_passing_a_cap: "no cap",
    attacks.attack_by_settling_a_trade_twice: "trade stays open",
    attacks.attack_with_a_trade_of_another_history: "any trade id",
    attacks.attack_by_claiming_again: "claim stays",
    attacks.attack_by_cancelling_for_another: "any canceller",
    attacks.attack_as_the_treasurer: "any treasurer",
    attacks.attack_with_a_token_without_code: "no token code",
    attacks.attack_with_a_fee_token: "amount trusted",
    attacks.attack_by_reentering_deposit: "deposit unlocked",
    attacks.attack_by_reentering_claim: "claim unlocked",
    attacks.attack_with_a_value_of_two_forms: "loose offsets",
    attacks.attack_by_escaping_from_debt: "debtors escape",
}


def get_name(attack: object) -> str:
    return getattr(attack, "__name__", "")


@pytest.mark.parametrize("attack", PAIRS, ids=get_name)
def test_the_vault_withstands(attack: Callable[[Twin | None], None]) -> None:
    attack(None)


@pytest.mark.parametrize("attack", PAIRS, ids=get_name)
def test_a_vault_without_the_check_falls(attack: Callable[[Twin | None], None]) -> None:
    twin = get_twin(PAIRS[attack])
    with pytest.raises(attacks.BrokenError):
        attack(twin)


@pytest.mark.parametrize("attack", PAIRS, ids=get_name)
def test_the_twin_with_no_weakness_switched_on_withstands(attack: Callable[[Twin | None], None]) -> None:
    attack(get_twin(""))


def test_every_attack_and_every_twin_is_run() -> None:
    assert {name for name in vars(attacks) if name.startswith("attack_")} == {get_name(a) for a in PAIRS}
    assert set(PAIRS.values()) == set(NAMES)
