"""Snapshot bytes of a vault's state: one value has one byte string, so two nodes compare states by their hash.

A mechanical binary form by the types of the fields: integers as length and minimal two's complement, byte strings with their
length, tables sorted by their encoded keys. Decoding bounds every count by the bytes that are there, and encodes again to compare.

A digest covers the level of a tier and not its m of n: around a rotation two honest nodes may fold one packet under heads that
different operator sets attested. The stored form keeps m and n before the body; one of version 2, without them, is still read.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from messages.errors import Rejected
from messages.hashing import keccak256
from messages.outbox import TrustTier
from relayer.rules.vault_state import VaultState

_DIGEST_MAGIC: Final = b"optsettle/state/2"
_MAGIC: Final = b"optsettle/state/3"
_OPERATORS_BYTES: Final = 2  # m and n of the tier
MAX_SNAPSHOT_BYTES: Final = 512 * 1024 * 1024


def encode_vault_state(state: VaultState) -> bytes:
    """Return the snapshot of a state: deterministic, independent of the order in which tables were filled."""
    return b"".join([_MAGIC, bytes([state.tier.m, state.tier.n]), *_encode_body(state)])


def decode_vault_state(data: bytes) -> VaultState:
    """Return the state of a snapshot.

    Raises:
        Rejected: not byte for byte what `encode_vault_state` gives, or gave in version 2; reason "malformed".
    """
    if len(data) > MAX_SNAPSHOT_BYTES or data[: len(_MAGIC)] not in (_MAGIC, _DIGEST_MAGIC):
        raise _malformed("not a snapshot of this version")
    is_old = data.startswith(_DIGEST_MAGIC)
    read = _Reader(data, len(_MAGIC))
    m, n = (0, 0) if is_old else read.take(_OPERATORS_BYTES)
    try:
        state: VaultState = _get_codec(VaultState)[1](read)
    except (UnicodeDecodeError, TypeError) as error:
        raise _malformed(str(error)) from error
    state = dataclasses.replace(state, tier=TrustTier(state.tier.level, m, n))
    if read.at != len(data) or (_encode_digested(state) if is_old else encode_vault_state(state)) != data:
        raise _malformed("not the canonical form")
    return state


def compute_state_digest(state: VaultState) -> bytes:
    """Return keccak256 of what all nodes agree on in a state, 32 bytes: everything but m and n of its tier."""
    return keccak256(_encode_digested(state))


def _encode_digested(state: VaultState) -> bytes:
    return b"".join([_DIGEST_MAGIC, *_encode_body(state)])


def _encode_body(state: VaultState) -> list[bytes]:
    out: list[bytes] = []
    _get_codec(VaultState)[0](state, out)
    return out


def _malformed(why: str) -> Rejected:
    return Rejected(f"a stored snapshot is unsound: {why}; fold again from the facts", reason="malformed")


class _Reader:
    """Reads forward, never past the end."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise _malformed("the data end too early")
        out = self.data[self.at : end]
        self.at = end
        return out

    def count(self) -> int:
        count = int.from_bytes(self.take(4), "big")
        if count > len(self.data) - self.at:
            raise _malformed("a count is larger than the data")
        return count


_Encode = Callable[[Any, list[bytes]], None]
_Decode = Callable[[_Reader], Any]


def _encode_int(value: int, out: list[bytes]) -> None:
    size = (value.bit_length() + 8) // 8
    out.append(bytes([size]) + value.to_bytes(size, "big", signed=True))


def _decode_int(read: _Reader) -> int:
    return int.from_bytes(read.take(read.take(1)[0]), "big", signed=True)


def _encode_bytes(value: bytes, out: list[bytes]) -> None:
    out.append(len(value).to_bytes(4, "big") + value)


def _decode_bytes(read: _Reader) -> bytes:
    return read.take(read.count())


def _encode_bool(value: bool, out: list[bytes]) -> None:
    out.append(b"\1" if value else b"\0")


@cache
def _get_codec(hint: Any) -> tuple[_Encode, _Decode]:
    """(encode, decode) for one type of field."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is bool:
        return _encode_bool, lambda read: read.take(1) == b"\1"
    if hint is int:
        return _encode_int, _decode_int
    if hint is bytes:
        return _encode_bytes, _decode_bytes
    if hint is str:
        return lambda v, out: _encode_bytes(v.encode(), out), lambda read: _decode_bytes(read).decode()
    if hint is TrustTier:
        return lambda v, out: _encode_int(v.level, out), lambda read: TrustTier(_decode_int(read))
    if dataclasses.is_dataclass(hint):
        return _get_dataclass_codec(hint)
    if origin is types.UnionType:
        encode, decode = _get_codec(next(a for a in args if a is not type(None)))
        return (
            lambda v, out: out.append(b"\0") if v is None else (out.append(b"\1"), encode(v, out))[0],
            lambda read: decode(read) if read.take(1) == b"\1" else None,
        )
    if origin is tuple and args[-1] is not Ellipsis:
        codecs = [_get_codec(a) for a in args]

        def encode_fixed(value: Any, out: list[bytes]) -> None:
            for (encode, _), item in zip(codecs, value, strict=True):
                encode(item, out)

        return encode_fixed, lambda read: tuple(decode(read) for _, decode in codecs)
    if origin is tuple:
        return _get_list_codec(_get_codec(args[0]))
    if origin is frozenset:
        encode_list, decode_list = _get_list_codec(_get_codec(args[0]))
        return lambda v, out: encode_list(sorted(v), out), lambda read: frozenset(decode_list(read))
    if origin in (dict, Mapping):
        return _get_table_codec(_get_codec(args[0]), _get_codec(args[1]))
    raise TypeError(f"no snapshot mapping for {hint}")


def _get_dataclass_codec(kind: Any) -> tuple[_Encode, _Decode]:
    hints = typing.get_type_hints(kind)
    codecs = [(f.name, *_get_codec(hints[f.name])) for f in dataclasses.fields(kind)]

    def encode_fields(value: Any, out: list[bytes]) -> None:
        for name, encode, _ in codecs:
            encode(getattr(value, name), out)

    return encode_fields, lambda read: kind(*[decode(read) for _, _, decode in codecs])


def _get_list_codec(item: tuple[_Encode, _Decode]) -> tuple[_Encode, _Decode]:
    encode, decode = item

    def encode_list(value: Any, out: list[bytes]) -> None:
        out.append(len(value).to_bytes(4, "big"))
        for part in value:
            encode(part, out)

    return encode_list, lambda read: tuple(decode(read) for _ in range(read.count()))


def _get_table_codec(key: tuple[_Encode, _Decode], value: tuple[_Encode, _Decode]) -> tuple[_Encode, _Decode]:
    def encode_table(table: Any, out: list[bytes]) -> None:
        rows: list[tuple[bytes, Any]] = []
        for k, v in table.items():
            parts: list[bytes] = []
            key[0](k, parts)
            rows.append((b"".join(parts), v))
        rows.sort(key=lambda row: row[0])
        out.append(len(rows).to_bytes(4, "big"))
        for encoded, v in rows:
            out.append(encoded)
            value[0](v, out)

    return encode_table, lambda read: {key[1](read): value[1](read) for _ in range(read.count())}
