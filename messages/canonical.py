"""Canonical JSON (data.md 1): RFC 8785 without floats and null.

One value has one byte string, so a digest of bytes is a digest of the value. Decoding judges size, characters, depth and count
with linear scans before any parser sees the text (fault 27), parses, writes again and compares (incident class F14).
"""

from __future__ import annotations

import json
import re
from typing import Any

from messages.errors import Rejected
from messages.hashing import keccak256
from messages.ids import Digest

MAX_BYTES = 1_048_576
MAX_DEPTH = 32
MAX_CONTAINERS = 65_536
MAX_STRINGS = 131_072
MAX_SAFE_INTEGER = 2**53  # larger integers are strings

_SIXTEEN_DIGITS = re.compile(rb"[0-9]{16,}")
_STRUCTURE = b"0123456789-[]{},:"
_HEX = re.compile(r"0x(?:[0-9a-f]{2})*")
_UNSIGNED = re.compile(r"0|[1-9][0-9]{0,77}")
_SIGNED = re.compile(r"0|-?[1-9][0-9]{0,77}")


def _refuse(what: str, got: object = None, expected: object = None) -> Rejected:
    return Rejected(what, got=got, expected=expected, reason="not_canonical")


def encode_canonical(obj: object) -> bytes:
    """Return the canonical bytes of a value of dict, list, tuple, str, int, bool; Rejected ("not_canonical") otherwise.

    Keys are ASCII (so that sorting by code point and by UTF-16 agree) and sorted; no spaces; no floats, no null.
    """
    _verify_value(obj, MAX_DEPTH)
    return _dump(obj)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _dump(obj: object) -> bytes:
    return _ENCODER.encode(obj).encode()


def _verify_value(obj: object, depth: int) -> None:
    if isinstance(obj, str):
        if not obj.isascii():
            _verify_unicode(obj)
    elif isinstance(obj, bool):
        pass
    elif isinstance(obj, int):
        if not -MAX_SAFE_INTEGER <= obj <= MAX_SAFE_INTEGER:
            raise _refuse("an integer beyond 2^53 must be a string", got=obj)
    elif isinstance(obj, dict | list | tuple):
        if depth == 0:
            raise _refuse("nested too deep", expected=f"<= {MAX_DEPTH}")
        if isinstance(obj, dict):
            for key in obj:
                if not isinstance(key, str) or not key.isascii():
                    raise _refuse("keys are ASCII strings", got=key)
            obj = list(obj.values())
        for item in obj:
            _verify_value(item, depth - 1)
    else:
        raise _refuse("only strings, integers, booleans, arrays and objects", got=type(obj).__name__)


def _verify_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _refuse("a lone surrogate is no character") from error


def decode_canonical(data: bytes, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """Return the value of canonical bytes; Rejected ("size", "depth" or "not_canonical").

    Duplicate keys, floats, null, spaces, other key orders, other escapes: all give other bytes when written again.
    """
    if len(data) > max_bytes:
        raise Rejected("document too large", got=len(data), expected=f"<= {max_bytes}", reason="size")
    _verify_structure(data, max_depth)
    try:
        text = data.decode()
        obj = json.loads(text)
        again = _dump(obj)
    except (ValueError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise _refuse("not JSON", got=str(error)) from error
    if again != data:
        raise _refuse("not the canonical form (key order, duplicates, spaces or escapes)")
    if not data.isascii():
        _verify_value(obj, max_depth)
    return obj


def _verify_structure(data: bytes, max_depth: int) -> None:
    """Judge the text outside strings without parsing it: characters, size of numbers, number and depth of containers."""
    if data.count(b'"') > 2 * MAX_STRINGS:
        raise Rejected("too many strings", expected=f"<= {MAX_STRINGS}", reason="size")
    # Without escapes the odd pieces between quotes are strings. A backslash outside a string stops the parser at that place.
    pieces = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    if len(pieces) % 2 == 0:
        raise _refuse("a string has no end")
    outside = b"".join(pieces[::2])
    if outside.replace(b"true", b"").replace(b"false", b"").translate(None, _STRUCTURE):
        raise _refuse("outside strings only integers, booleans, arrays and objects, without spaces")
    for number in _SIXTEEN_DIGITS.findall(outside):
        if len(number) > 16 or int(number) > MAX_SAFE_INTEGER:
            raise _refuse("an integer beyond 2^53 must be a string", got=number[:32])
    brackets = outside.translate(None, b"0123456789-,:truefals")
    if len(brackets) > 2 * MAX_CONTAINERS:
        raise Rejected("too many containers", got=len(brackets) // 2, expected=MAX_CONTAINERS, reason="size")
    # Each round removes the innermost pairs, so what is left after max_depth rounds is too deep or unbalanced.
    for _ in range(max_depth):
        if not brackets:
            return
        rest = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if len(rest) == len(brackets):
            raise _refuse("brackets do not match")
        brackets = rest
    if brackets:
        raise Rejected("nested too deep", expected=f"<= {max_depth}", reason="depth")


def compute_document_digest(obj: object) -> Digest:
    """Return keccak256 of the canonical bytes (data.md 1)."""
    return Digest(keccak256(encode_canonical(obj)))


# ---- values inside documents ------------------------------------------------------------------------------------------


def encode_hex(data: bytes) -> str:
    """Return 0x and lower-case hex."""
    return "0x" + data.hex()


def decode_hex(text: object, size: int | None = None) -> bytes:
    """Return the bytes of strict lower-case 0x hex, of exactly ``size`` bytes if given; Rejected ("bad_hex")."""
    if not isinstance(text, str) or len(text) > 2 + 2 * MAX_BYTES or _HEX.fullmatch(text) is None:
        raise Rejected("not lower-case 0x hex", got=text, reason="bad_hex")
    data = bytes.fromhex(text[2:])
    if size is not None and len(data) != size:
        raise Rejected("wrong number of bytes", got=len(data), expected=size, reason="bad_hex")
    return data


def encode_amount(amount: int) -> str:
    """Return the decimal string of an integer of at most 256 bits; Rejected ("bad_amount")."""
    # bool is an int to Python and never an amount
    if isinstance(amount, bool) or not -(2**256) < amount < 2**256:
        raise Rejected("an amount is an integer of at most 256 bits", got=amount, reason="bad_amount")
    return str(amount)


def decode_amount(text: object, *, signed: bool = False) -> int:
    """Return the integer of a decimal string without leading zeros; Rejected ("bad_amount"); negative only if signed."""
    pattern = _SIGNED if signed else _UNSIGNED
    if not isinstance(text, str) or len(text) > 79 or pattern.fullmatch(text) is None:
        raise Rejected("not a decimal amount", got=text, reason="bad_amount")
    amount = int(text)
    if not -(2**256) < amount < 2**256:
        raise Rejected("an amount has at most 256 bits", got=text, reason="bad_amount")
    return amount
