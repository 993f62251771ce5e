"""Ed25519 vectors against ZIP-215, the rule of CometBFT.

* CCTV: a list of {key, sig, msg, flags}; valid unless flagged ``reencoded_k`` without ``low_order_A``.
* Wycheproof: RFC 8032's verdicts. ZIP-215 differs only where an encoding of a point is not the canonical one, so the verdict must
  be: canonical encodings and valid under ZIP-215.

What a fast library accepts, the exact verifier accepts too; each vector checks that as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from chains.cosmos import ed25519
from tests.conformance.case import Case


def discover(root: Path) -> Iterator[Case]:
    for path in sorted(root.rglob("*.json")):
        name = str(path.relative_to(root))
        data = json.loads(path.read_text())
        if isinstance(data, list):
            for entry in data:
                yield Case("sig", f"{name}: {entry['number']}", partial(run_cctv, entry))
        elif "testGroups" in data:
            for group in data["testGroups"]:
                for test in group["tests"]:
                    yield Case("sig", f"{name}: {test['tcId']} {test['comment']}", partial(run_wycheproof, group, test))
        else:
            yield Case("sig", name, partial(fail, "no known layout of vectors"))


def fail(why: str) -> None:
    raise AssertionError(why)


def judge(key: bytes, message: bytes, signature: bytes) -> bool:
    verdict = ed25519.is_valid(key, message, signature)
    assert verdict == ed25519.is_valid_exact(key, message, signature), "the fast road gives another verdict"
    return verdict


def run_cctv(entry: dict[str, Any]) -> None:
    flags = set(entry["flags"] or ())
    expected = "reencoded_k" not in flags or "low_order_A" in flags
    assert judge(bytes.fromhex(entry["key"]), entry["msg"].encode(), bytes.fromhex(entry["sig"])) == expected


def run_wycheproof(group: dict[str, Any], test: dict[str, Any]) -> None:
    key_group = group.get("publicKey") or group.get("key")
    key, signature = bytes.fromhex(key_group["pk"]), bytes.fromhex(test["sig"])
    is_valid = judge(key, bytes.fromhex(test["msg"]), signature)
    is_strict = is_valid and is_canonical(key) and is_canonical(signature[:32])
    assert is_strict == (test["result"] == "valid"), f"got {is_strict} (ZIP-215: {is_valid})"


def is_canonical(data: bytes) -> bool:
    """Ask whether 32 bytes are the encoding that RFC 8032 gives the point they decode to."""
    point = ed25519.decode_point(data)
    return point is not None and ed25519.encode_point(point) == data
