"""Loads the batch verifier of ed25519 (`batch/src/lib.rs`, built to WebAssembly) and calls it.

The module imports nothing, so what it computes depends on its input alone. It is compiled by the engine once a process, at the first large
batch; each call gets an instance of its own and leaves nothing behind.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.resources import files
from typing import Any

Case = tuple[bytes, bytes, bytes]
"""Public key (32 bytes), message, signature (64 bytes)."""

MODULE = "ed25519_batch.wasm"
MAX_MEMORY_BYTES = 64 << 20
"""Ten thousand signatures need a third of it."""
MAX_MESSAGES_BYTES = 16 << 20
"""Of all messages together; a vote has some two hundred."""


def load_batch() -> Callable[[Sequence[Case]], bool] | None:
    """Return the question whether *all* of some signatures are valid under ZIP-215; None where the engine or the module is not installed.

    A yes is as good as the same from `ed25519.is_valid` for each; a no says only that one of them is not valid.
    """
    path = files("chains.cosmos") / "batch" / MODULE
    try:
        wasmtime: Any = import_module("wasmtime")
        code = path.read_bytes()
    except (ImportError, FileNotFoundError):
        return None
    config = wasmtime.Config()
    config.wasm_wide_arithmetic = True
    engine = wasmtime.Engine(config)
    module = wasmtime.Module(engine, code)
    # given back while the engine's library still is there: an interpreter that ends takes modules down in no order
    atexit.register(engine.close)
    atexit.register(module.close)

    def are_valid(cases: Sequence[Case]) -> bool:
        if sum(len(message) for _, message, _ in cases) > MAX_MESSAGES_BYTES:
            return False
        if any(len(key) != 32 or len(signature) != 64 for key, _, signature in cases):
            return False
        data = b"".join(
            [key + signature + len(message).to_bytes(4, "little") + message for key, message, signature in cases]
        )
        store = wasmtime.Store(engine)
        store.set_limits(memory_size=MAX_MEMORY_BYTES)
        exports = wasmtime.Instance(store, module, []).exports(store)
        start = exports["allocate"](store, len(data))
        exports["memory"].write(store, data, start)
        return bool(exports["verify"](store, start, len(data)) == 1)

    return are_valid
