"""Keccak-256 at a quarter of the time that the way through pycryptodome's Python objects takes. Pure.

The permutation is the same compiled code of the same library; what is saved are a hash object, a state and seven calls a message. The
library does not promise these C functions to others, so they are proven at import against a known digest, and where they are missing
or differ the public way is taken. States are kept for reuse in a list, whose `pop` and `append` are atomic: threads never share one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

from Crypto.Hash import keccak as _library

_CAPACITY_BYTES = 64
_ROUNDS = 24
_PADDING = 1


def compute_keccak256(data: bytes) -> bytes:
    """Return the 32-byte Keccak-256 of bytes by the library's public door."""
    return _library.new(data=data, digest_bits=256).digest()


def build_fast_keccak256() -> Callable[[bytes], bytes]:
    """Return a Keccak-256 over the library's C functions; AttributeError, OSError or ValueError where they are not as known."""
    extension = next(Path(_library.__file__).parent.glob("_keccak.*"))
    code = ctypes.PyDLL(str(extension))  # keeps the interpreter lock: a node takes three microseconds
    init, reset, absorb, digest = code.keccak_init, code.keccak_reset, code.keccak_absorb, code.keccak_digest
    init.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_uint8]
    reset.argtypes = [ctypes.c_void_p]
    absorb.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    digest.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint8]
    idle: list[tuple[int, ctypes.Array[ctypes.c_char]]] = []

    def make_state() -> tuple[int, ctypes.Array[ctypes.c_char]]:
        state = ctypes.c_void_p()
        if init(ctypes.byref(state), _CAPACITY_BYTES, _ROUNDS) or not state.value:
            raise ValueError("keccak state")
        return state.value, ctypes.create_string_buffer(32)

    def keccak256(data: bytes) -> bytes:
        """Return the 32-byte Keccak-256 of bytes."""
        try:
            entry = idle.pop()
        except IndexError:
            entry = make_state()
        state, buffer = entry
        if reset(state) or absorb(state, data, len(data)) or digest(state, buffer, 32, _PADDING):
            raise ValueError("keccak")
        result = buffer.raw
        idle.append(entry)
        return result

    return keccak256


def choose_keccak256() -> Callable[[bytes], bytes]:
    """Return the fast function if it agrees with the public one on messages around its block of 136 bytes, else the public one."""
    try:
        fast = build_fast_keccak256()
        for size in (0, 1, 135, 136, 137, 272, 532):
            message = bytes(range(256)) * 3
            if fast(message[:size]) != compute_keccak256(message[:size]):
                return compute_keccak256
    except (AttributeError, OSError, StopIteration, ValueError):
        return compute_keccak256
    return fast
