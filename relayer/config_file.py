"""Writes relayer.toml and parameters.toml: the inverse of `relayer.config`, for the demo, for tests and for `relayer init`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from chains.registry import ChainConfig
from messages.canonical import decode_canonical
from messages.documents import Parameters
from messages.ids import decode_name

_NAMES = {"quote_class", "underlying", "price_source"}


def format_parameters(parameters: Parameters) -> str:
    """Text of a parameters.toml that `relayer.config.load_parameters` reads back equal."""
    lines = ["# What the operators' quorum decides. One line per item; amounts in base units.", ""]
    for field in dataclasses.fields(parameters):
        value = getattr(parameters, field.name)
        if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            lines.append(f"{field.name} = [")
            lines += [f"    {_format(item, field.name)}," for item in value]
            lines.append("]")
        else:
            lines.append(f"{field.name} = {_format(value, field.name)}")
    return "\n".join(lines) + "\n"


def format_config(
    *,
    name: str,
    chains: Sequence[ChainConfig],
    store: str,
    journal: str,
    parameters: str,
    operator_key: str,
    operator_password: str,
    submit_keys: Mapping[str, tuple[str, str]] | None = None,
    allow_throwaway_key: bool = False,
    gossip: Mapping[str, object] | None = None,
    note: str = "",
) -> str:
    """Text of a relayer.toml that `relayer.config.load_config` reads back.

    Args:
        name: of the node.
        chains: one per vault.
        store: path, relative to the file, as all paths here.
        journal: path.
        parameters: path.
        operator_key: reference, ``file:PATH``.
        operator_password: reference, ``file:PATH`` or ``fd:NUMBER``.
        submit_keys: references (key, password) by chain, for the chains this node submits to.
        allow_throwaway_key: for demo and test keys.
        gossip: the table; memory by default.
        note: a comment at the top.
    """
    lines = [*(f"# {line}" for line in note.splitlines()), ""] if note else []
    lines += [
        f"{key} = {_format(value, '')}"
        for key, value in (("name", name), ("store", store), ("journal", journal), ("parameters", parameters))
    ]
    lines += ["", "[operator]", f"key = {_format(operator_key, '')}", f"password = {_format(operator_password, '')}"]
    if allow_throwaway_key:
        lines.append("allow_throwaway_key = true")
    lines += [
        "",
        "[gossip]",
        *(f"{key} = {_format(value, '')}" for key, value in (gossip or {"kind": "memory"}).items()),
    ]
    for chain in chains:
        lines += _format_chain(chain, (submit_keys or {}).get(chain.chain_id))
    return "\n".join(lines) + "\n"


def _format_chain(chain: ChainConfig, submit: tuple[str, str] | None) -> list[str]:
    table: dict[str, object] = {
        "family": chain.family,
        "vault": chain.vault_account,
        "checkpoint": chain.checkpoint,
        "start_height": chain.start_height,
        "settings": decode_canonical(chain.settings.encode()),
        "timeout_s": chain.timeout_s,
        "log_range": chain.log_range,
        "max_fee_gwei": chain.max_fee_cap_wei // 10**9,
    }
    if submit is not None:
        table |= {"submit_key": submit[0], "submit_password": submit[1]}
    lines = [
        "",
        f"[chains.{json.dumps(chain.chain_id)}]",
        *(f"{key} = {_format(value, '')}" for key, value in table.items()),
    ]
    for endpoint in chain.endpoints:
        lines += [
            f"[[chains.{json.dumps(chain.chain_id)}.endpoints]]",
            f"name = {_format(endpoint.name, '')}",
            f"execution = {_format(endpoint.execution_url, '')}",
            f"beacon = {_format(endpoint.beacon_url, '')}",
        ]
    return lines


def _format(value: Any, field: str) -> str:
    """A TOML value on one line. JSON strings of these texts are TOML basic strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_format_key(key)} = {_format(item, key)}" for key, item in value.items()) + " }"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_format(item, field) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, bytes):
        if field in _NAMES and any(value):
            return json.dumps(decode_name(value))
        return json.dumps("0x" + value.hex())
    return json.dumps(value)


def _format_key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else json.dumps(key)
