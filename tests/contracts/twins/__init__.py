"""Deliberately weak vaults: the real source with one check taken out, compiled in memory and never written anywhere.

All weaknesses are in one contract, because compiling takes seconds: `{name}` in a replacement is true while the block's
coinbase is the number of that weakness. With coinbase 0 the twin is the real vault, and the tests say so.
The text that is replaced must occur exactly once, so that a twin can't silently become the real vault when the source changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from contracts.evm.compile import FOLDER

_SIGNER = "convert(signer, uint256) > convert(last, uint256) and signer in operators"
_ENVELOPE = "CLEARING_CHARS, CLEARING, timeout, size)),\n"
_DIGEST = 'def _digest(struct_hash: bytes32) -> bytes32:\n    self._require(chain.id == CHAIN_ID, "chain id")\n'
_PULLED = "extcall Token(token).transferFrom(msg.sender, self, amount, default_return_value=True"
_BEFORE = "    before: uint256 = staticcall Token(token).balanceOf(self)\n"
_ARRIVED = "    arrived: uint256 = staticcall Token(token).balanceOf(self) - before\n"
_CLEARED = "    self.balances[account][asset] = word & M96\n"
_PAID = '    self._require(extcall Token(token).transfer(owner, amount, default_return_value=True), "transfer")\n'
_OWNED = '    self._require(self._is_native(account), "account")\n'
_LOCK = "    assert not self.weak_lock or {unlocked}\n    self.weak_lock = True\n"
_UNLOCK = "    self.weak_lock = False\n"
_WORDS = "words != 6 + 2 * prices + 4 * legs"

EDITS: tuple[tuple[str, str], ...] = (
    ("# pragma optimize codesize", "# pragma optimize none"),  # quicker
    ("@pure\n@internal\ndef _is_set(", "@view\n@internal\ndef _is_set("),
    ("@pure\n@internal\ndef _recover(", "@view\n@internal\ndef _recover("),
    ("self._require(signer != empty(address),", "self._require(signer != empty(address) or {zero signer},"),
    (
        "if convert(operator, uint256) <= convert(last, uint256):",
        "if convert(operator, uint256) <= convert(last, uint256) and not (operator == last and {zero signer}):",
    ),
    (
        _SIGNER,
        (
            "(convert(signer, uint256) > convert(last, uint256) or {zero signer} or {any order})"
            " and (signer in operators or {any signer})"
        ),
    ),
    ("s <= HALF_N,", "s <= HALF_N or {high s},"),
    (
        "sequence: uint256 = ((self.cursors >> 64) & M64) + 1",
        "sequence: uint256 = convert(extract32(packet, 32), uint256) if {no sequence} else ((self.cursors >> 64) & M64) + 1",
    ),
    ('commitment)"), c.epoch, sequence', 'commitment)"), 0 if {no epoch} else c.epoch, sequence'),
    (_ENVELOPE, _ENVELOPE.replace(",\n", " or {no envelope},\n")),
    ("slice(msg.data, 4, 32), uint256) == 64,", "slice(msg.data, 4, 32), uint256) == 64 or {loose calldata},"),
    (_DIGEST, _DIGEST.replace("CHAIN_ID,", "CHAIN_ID or {any chain},")),
    ("        return R_SUM\n", "        if not {no sum}:\n            return R_SUM\n"),
    ("            return R_CAP\n", "            if not {no cap}:\n                return R_CAP\n"),
    (
        "    self.trades[key] = empty(TradeWords)",
        "    if not {trade stays open}:\n        self.trades[key] = empty(TradeWords)",
    ),
    ("self.trades[key].id != id:", "(self.trades[key].id != id and not {any trade id}):"),
    ('o.maker == self._account(), "owner"', 'o.maker == self._account() or {any canceller}, "owner"'),
    (
        'self.treasurers[self._control().set], "owner"',
        'self.treasurers[self._control().set] or {any treasurer}, "owner"',
    ),
    (
        _BEFORE,
        _LOCK.format(unlocked="{deposit unlocked}")
        + "    before: uint256 = 0\n    if not {no token code}:\n    "
        + _BEFORE.replace(": uint256", ""),
    ),
    (
        f'    self._require({_PULLED}), "transfer")\n',
        (
            f"    if {{no token code}}:\n        assert {_PULLED}, skip_contract_check=True)\n"
            f"    else:\n        assert {_PULLED})\n"
        ),
    ),
    (
        _ARRIVED,
        "    arrived: uint256 = amount\n    if not ({no token code} or {amount trusted}):\n    "
        + _ARRIVED.replace(": uint256", ""),
    ),
    ("@nonreentrant\ndef deposit(", "def deposit("),
    (
        "    self._emit(abi_encode(DEPOSITED, beneficiary, asset, arrived))\n",
        "    self._emit(abi_encode(DEPOSITED, beneficiary, asset, arrived))\n" + _UNLOCK,
    ),
    ("@nonreentrant\ndef claim(", "def claim("),
    (_OWNED, _LOCK.format(unlocked="{claim unlocked}") + _OWNED),
    (_CLEARED, "    if not ({claim stays} or {claim unlocked}):\n    " + _CLEARED),
    (_PAID, _PAID + "    if {claim unlocked}:\n    " + _CLEARED + _UNLOCK),
    ("self._number(3) != 160 + 64 * prices", "(self._number(3) != 160 + 64 * prices and not {loose offsets})"),
    (_WORDS, f"({_WORDS} and not ({{loose offsets}} and {_WORDS.replace('!=', '>')}))"),
    ("self.negatives[account] == 0,", "self.negatives[account] == 0 or {debtors escape},"),
    ("outbox_head: public(bytes32)", "weak_lock: transient(bool)\noutbox_head: public(bytes32)"),
)

NAMES: tuple[str, ...] = (
    "zero signer",
    "any order",
    "any signer",
    "high s",
    "no sequence",
    "no epoch",
    "no envelope",
    "loose calldata",
    "any chain",
    "no sum",
    "no cap",
    "trade stays open",
    "any trade id",
    "any canceller",
    "any treasurer",
    "no token code",
    "amount trusted",
    "deposit unlocked",
    "claim stays",
    "claim unlocked",
    "loose offsets",
    "debtors escape",
)


@dataclass(frozen=True)
class Twin:
    """A weak vault: creation code, and the coinbase that switches its weakness on."""

    code: bytes
    coinbase: int


@cache
def _compile() -> bytes:
    from vyper.compiler import compile_code

    source = (FOLDER / "vault.vy").read_text()
    for old, new in EDITS:
        if source.count(old) != 1:
            raise ValueError(f"{old!r} occurs {source.count(old)} times")
        source = source.replace(old, new)
    for number, name in enumerate(NAMES, 1):
        if "{" + name + "}" not in source:
            raise ValueError(f"no edit makes the weakness {name!r}")
        source = source.replace("{" + name + "}", f"(convert(block.coinbase, uint256) == {number})")
    return bytes.fromhex(compile_code(source, output_formats=["bytecode"])["bytecode"][2:])


def get_twin(name: str) -> Twin:
    """Return the vault with the weakness ``name``; "" is the one without any."""
    return Twin(_compile(), NAMES.index(name) + 1 if name else 0)
