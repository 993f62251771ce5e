"""Deliberately weak Solana vaults: the real source with checks taken out, compiled once in a temporary folder.

The counterpart of `twins`: all weaknesses are in one program, and `weak(n)` is true while the leader schedule epoch of the Clock,
which the vault never looks at, is the number of that weakness. With 0 the twin is the real vault, and the tests say so.
The text that is replaced must occur exactly once, so that a twin can't silently become the real vault when the source changes.
Needs the toolchain of contracts/solana/README.md; takes some ten seconds.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

from contracts.solana.compile import WORKSPACE

_CLOCK = "/// Time of the block in whole seconds.\n"
_WEAK = """/// Whether weakness `number` is switched on.
pub fn weak(number: u64) -> bool {
    let mut epoch = [0u8; 8];
    unsafe {
        syscalls::sol_get_sysvar(pinocchio::sysvars::clock::CLOCK_ID.as_array().as_ptr(), epoch.as_mut_ptr(), 24, 8)
    };
    u64::from_le_bytes(epoch) == number
}

"""
_CLOSED = "    item.record.save(Trade { id: ZERO, quantity: 0, cost: 0, number: 0 })?;\n"

# name -> (file, text, text with `weak()` where the weakness shows)
EDITS: dict[str, tuple[str, str, str]] = {
    "any order": ("packet", "signer > last &&", "(signer > last || weak()) &&"),
    "any signer": ("packet", ".contains(&signer)", ".contains(&signer) || weak()"),
    "high s": ("packet", "signature[32..64] <= HALF_ORDER[..]", "signature[32..64] <= HALF_ORDER[..] || weak()"),
    "no epoch": (
        "recv",
        "compute_packet_digest(&state.vault_id, state.epoch,",
        "compute_packet_digest(&state.vault_id, if weak() { 0 } else { state.epoch },",
    ),
    "no sequence": (
        "recv",
        "    require(sequence == next, Fail::Sequence)?;\n",
        "    let next = if weak() { sequence } else { next };\n    require(sequence == next, Fail::Sequence)?;\n",
    ),
    "no timeout": ("recv", "require(now < timeout &&", "require((now < timeout || weak()) &&"),
    "no sum": ("recv", "check!(*sum == 0, Sum)", "check!(*sum == 0 || weak(), Sum)"),
    "no cap": (
        "recv",
        "check!(charge_settlement(record, s.now, *debit)?.is_some(), Cap)",
        "check!(charge_settlement(record, s.now, *debit)?.is_some() || weak(), Cap)",
    ),
    "no order of legs": ("recv", "check!(is_after, Order)", "check!(is_after || weak(), Order)"),
    "trade stays open": ("recv", _CLOSED, f"    if !weak() {{\n    {_CLOSED}    }}\n"),
    "any trade id": ("recv", "trade.id != item.id", "(trade.id != item.id && !weak())"),
    "stale trades": ("recv", "s.now < offer.valid_until.min(offer.expiry)", "(weak() || s.now < offer.valid_until.min(offer.expiry))"),
    "any canceller": ("calls", "require(&offer.maker == c.get_caller()?,", "require(&offer.maker == c.get_caller()? || weak(),"),
    "any treasurer": ("calls", "account == c.state.get_set().treasurer,", "account == c.state.get_set().treasurer || weak(),"),
    "claim stays": ("calls", "Balance { claimable: 0, ..balance }", "Balance { claimable: if weak() { amount } else { 0 }, ..balance }"),
    "debtors escape": ("calls", "positions.negatives == 0,", "positions.negatives == 0 || weak(),"),
    "pause for ever": ("calls", "c.state.pause_used & bit == 0,", "c.state.pause_used & bit == 0 || weak(),"),
    "own offers": ("calls", "require(taker != o.maker,", "require(taker != o.maker || weak(),"),
    "floored cost": ("values", "checked_add(u64::from(rest != 0))", "checked_add(u64::from(rest != 0 && !weak()))"),
    # a carrier could force a refusal by how it says the packet
    "no long legs": ("recv", "is_in_range.then_some(delta)", "(is_in_range && !(is_wide && weak())).then_some(delta)"),
}  # fmt: skip
NUMBERS = {name: number for number, name in enumerate(EDITS, 1)}


def build_twin(folder: Path) -> bytes:
    """Return the program with all weaknesses, built in an empty folder; ToolchainMissingError where there is none."""
    WORKSPACE.find_toolchain()
    source = folder / "source"
    shutil.copytree(WORKSPACE.folder, source, ignore=shutil.ignore_patterns("build", "target", "__pycache__"))
    texts = {path.stem: path.read_text() for path in (source / "vault" / "src").glob("*.rs")}
    for name, (file, old, new) in EDITS.items():
        assert texts[file].count(old) == 1, f"{name}: the source has changed"
        texts[file] = texts[file].replace(old, new.replace("weak()", f"crate::host::weak({NUMBERS[name]})"))
    assert texts["host"].count(_CLOCK) == 1
    texts["host"] = texts["host"].replace(_CLOCK, _WEAK + _CLOCK)
    for stem, text in texts.items():
        (source / "vault" / "src" / f"{stem}.rs").write_text(text)
    with mock.patch.dict("os.environ", {"CARGO_TARGET_DIR": str(folder / "target")}):
        return replace(WORKSPACE, folder=source).compile()["vault"]
