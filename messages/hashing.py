"""The two hash functions of the protocol; everything else in `messages/` calls these.

Keccak-256 is the original padding of Ethereum, not FIPS 202 SHA3-256. Of the installed back ends pycryptodome is the one: by its Python
objects 6 to 9 microseconds for 96 bytes on the development machine, of which the permutation is a tenth, by its C functions 2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from messages.keccak import choose_keccak256

keccak256: Callable[[bytes], bytes] = choose_keccak256()
"""Return the 32-byte Keccak-256 of bytes (Ethereum Yellow Paper, appendix on the KEC function)."""


def sha256(data: bytes) -> bytes:
    """Return the 32-byte SHA-256 of ``data`` (FIPS 180-4)."""
    return hashlib.sha256(data).digest()
