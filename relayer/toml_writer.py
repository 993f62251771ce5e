"""TOML for files that the product writes itself: operators' configurations and parameters. Strict subset, stable order, one item a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from messages.documents import Parameters, to_object
from messages.errors import Rejected
from messages.ids import decode_name

_NAMES = {"quote_class", "underlying", "price_source"}
"""Keys whose 32 bytes are written as the text they hold."""


def encode_toml(table: Mapping[str, Any], *, comment: str = "") -> str:
    """Text of a table: plain values first, then one section for each inner table; inner values of sections are inline.

    Args:
        table: str, int, bool, float, lists and tables of these; keys are strings.
        comment: lines for the top, without ``#``.

    Raises:
        TypeError: a value that TOML has no form for.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f"{_key(k)} = {_lines(v)}" for k, v in table.items() if not isinstance(v, Mapping)]
    for name, inner in table.items():
        if isinstance(inner, Mapping):
            lines += _section([name], inner)
    return "\n".join(lines) + "\n"


def encode_parameters(
    parameters: Parameters,
    *,
    comment: str = "What the operators decide together (data.md 2): every operator holds the same. Amounts in base units.",
) -> str:
    """parameters.toml of a document, as `relayer.config.load_parameters` reads it back equal. ``comment`` as `encode_toml`."""
    obj = to_object(parameters)
    obj.pop("schema")
    return encode_toml(_tell_names(obj), comment=comment)


def _tell_names(value: Any, key: str = "") -> Any:
    """The same with names as text, where they are names."""
    if isinstance(value, Mapping):
        return {k: _tell_names(v, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_tell_names(v, key) for v in value]
    if key in _NAMES:
        try:
            text = decode_name(bytes.fromhex(str(value)[2:]))
        except Rejected:
            return value
        return value if text.startswith("0x") else text  # what begins like hex would be read as hex
    return value


def _section(path: list[str], table: Mapping[str, Any]) -> list[str]:
    tables = {k: v for k, v in table.items() if isinstance(v, Mapping) and _is_section(v)}
    lines = ["", f"[{'.'.join(_key(p) for p in path)}]"]
    lines += [f"{_key(k)} = {_value(v)}" for k, v in table.items() if k not in tables]
    for name, inner in tables.items():
        lines += _section([*path, name], inner)
    return lines


def _is_section(table: Mapping[str, Any]) -> bool:
    return any(isinstance(v, Mapping) for v in table.values()) or len(table) > 4


def _key(key: str) -> str:
    is_bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if is_bare else json.dumps(key)


def _lines(value: Any) -> str:
    """A value of the top level: a list of tables has a line for each."""
    if isinstance(value, list | tuple) and value and all(isinstance(v, Mapping) for v in value):
        return "[\n" + "".join(f"    {_value(v)},\n" for v in value) + "]"
    return _value(value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        # A JSON string without surrogates is a TOML basic string; DEL is the one character that differs.
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    raise TypeError(f"TOML has no form for {type(value).__name__}")
