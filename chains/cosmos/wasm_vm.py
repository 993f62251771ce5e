"""A host for CosmWasm contracts: one binary, compiled once, run by wasmtime with the imports that `cosmwasm-vm` gives. Knows no chain.

    code = WasmCode(wasm)
    response = code.execute(storage, env, info, b'{"deposit": ...}', querier)     # the "ok" of the contract's answer

Every call gets a fresh instance, so nothing survives in memory. Storage is what the caller hands in; a call that fails may have written to it,
so the caller hands in an overlay and keeps it only on success. Deterministic: no threads, no vector or other newer instructions, NaNs
in one form, gas counted by instruction. (Reference types are taken although a chain refuses them: this engine cannot be without.) Not for two
threads at once.

Gas is the unit of wasmvm (a host divides by 140,000 for the gas of the SDK). What does not exist here: curves secp256r1 and BLS12-381; a
contract that calls them traps.

Source: CosmWasm `packages/vm` (imports, limits, gas costs) and `packages/std` (memory layout, sections), interface version 8.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, Protocol

import wasmtime
from coincurve import PublicKey
from coincurve.ecdsa import cdata_to_der, deserialize_compact, signature_normalize
from wasmtime import FuncType, ValType

from chains.cosmos import ed25519
from chains.cosmos.address import decode_address, encode_address
from chains.http_json import decode_json
from messages.errors import Rejected

GAS_PER_INSTRUCTION = 115
DEFAULT_GAS = 70_000_000 * 140_000
GAS_VALIDATE, GAS_CANONICALIZE, GAS_HUMANIZE = 9 * 140_000, 4 * 140_000, 5 * 140_000
GAS_SECP256K1_VERIFY, GAS_SECP256K1_RECOVER = 96_000_000, 194_000_000
GAS_ED25519_VERIFY, GAS_ED25519_BATCH_ENTRY = 35_000_000, 24_000_000

MAX_CODE_BYTES = 800 * 1024
MAX_MEMORY_BYTES = 32 << 20
MAX_TABLE_ELEMENTS = 2500
MAX_KEY_BYTES = 64 << 10
MAX_VALUE_BYTES = 128 << 10
MAX_RESULT_BYTES = 1 << 20
MAX_MESSAGE_BYTES = 1 << 20
MAX_QUERY_BYTES = 64 << 10
MAX_TEXT_BYTES = 256
MAX_HASHED_BYTES = 128 << 10
MAX_BATCH = 256
MAX_ITERATORS = 256
MAX_DEBUG_BYTES = 2 << 20
CAPABILITIES = frozenset(
    {
        "iterator",
        "staking",
        "stargate",
        *(f"cosmwasm_{v}" for v in ("1_1", "1_2", "1_3", "1_4", "2_0", "2_1", "2_2", "3_0")),
    }
)
_REGION_BYTES = 12
# the same few addresses are written and read all the time, and the checksum is slow
encode_address_once = lru_cache(maxsize=4096)(encode_address)
decode_address_once = lru_cache(maxsize=4096)(decode_address)
_ERROR_HASH, _ERROR_SIGNATURE, _ERROR_KEY, _ERROR_PARAMETER, _ERROR_BATCH, _ERROR_OTHER = 3, 4, 5, 6, 7, 10


class WasmTrap(Rejected):
    """The contract stopped in a way that is no answer: panic, unreachable code, a limit of the host."""

    def __init__(self, what: str, reason: str = "trap") -> None:
        super().__init__(what, reason=reason)


class OutOfGas(WasmTrap):
    """The gas that was handed in is used up."""

    def __init__(self) -> None:
        super().__init__("out of gas", "out_of_gas")


class ContractError(Rejected):
    """The contract answered with an error. ``what`` is its text, ``reason`` its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text, reason=text.split(" ", 1)[0].rstrip(":") if text else "")


class Storage(Protocol):
    """A contract's storage: bytes to bytes, in the order of the keys."""

    def get(self, key: bytes, /) -> bytes | None: ...  # noqa: D102  see the class

    def __setitem__(self, key: bytes, value: bytes, /) -> None: ...

    def __delitem__(self, key: bytes, /) -> None: ...

    def scan(self, start: bytes | None, end: bytes | None, descending: bool) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < end; None leaves a side open."""
        ...


class MemoryStorage(dict[bytes, bytes]):
    """A storage in a dict; removing what is not there is no error, as in the chain's stores."""

    def __delitem__(self, key: bytes) -> None:
        self.pop(key, None)

    def scan(self, start: bytes | None, end: bytes | None, descending: bool) -> Iterator[tuple[bytes, bytes]]:
        """See `Storage.scan`."""
        keys = sorted(k for k in self if (start is None or k >= start) and (end is None or k < end))
        return iter([(key, self[key]) for key in (reversed(keys) if descending else keys)])


Querier = Callable[[bytes], bytes]
"""JSON of a QueryRequest -> JSON of SystemResult<ContractResult<Binary>>."""


@dataclass
class GasMeter:
    """Counts wasmvm gas; shared by a call, its storage and what it asks other contracts."""

    limit: int = DEFAULT_GAS
    used: int = 0

    @property
    def remaining(self) -> int:
        """What is left."""
        return self.limit - self.used

    def charge(self, gas: int) -> None:
        """Use gas; OutOfGas when there is less, and then all of it is used."""
        if gas > self.remaining:
            self.used = self.limit
            raise OutOfGas
        self.used += gas


# ---- one call ---------------------------------------------------------------------------------------------------------


@dataclass
class _Call:
    """A running instance and what its imports work on. Pointers are offsets into its memory."""

    store: wasmtime.Store
    storage: Storage
    querier: Querier
    prefix: str
    meter: GasMeter
    read_only: bool
    memory: wasmtime.Memory = field(init=False)
    allocate_function: wasmtime.Func = field(init=False)
    iterators: list[Iterator[tuple[bytes, bytes]]] = field(default_factory=list)
    fuel: int = 0

    # -- gas

    def fill(self) -> None:
        """Give the instance what the meter has left."""
        self.fuel = self.meter.remaining // GAS_PER_INSTRUCTION
        self.store.set_fuel(self.fuel)

    def drain(self) -> None:
        """Book what the instance has used."""
        left = self.store.get_fuel()
        self.meter.used += (self.fuel - left) * GAS_PER_INSTRUCTION
        self.fuel = left

    # -- memory

    def _view(self, at: int, size: int) -> int:
        """Address of a range of the memory that lies inside it."""
        if at < 0 or size < 0 or at + size > self.memory.data_len(self.store):
            raise WasmTrap("a range outside the contract's memory")
        return int(ctypes.cast(self.memory.data_ptr(self.store), ctypes.c_void_p).value or 0) + at

    def _get_region(self, pointer: int) -> tuple[int, int, int]:
        raw = ctypes.string_at(self._view(pointer & 0xFFFFFFFF, _REGION_BYTES), _REGION_BYTES)
        offset, capacity, length = (int.from_bytes(raw[i : i + 4], "little") for i in (0, 4, 8))
        if not offset or length > capacity:
            raise WasmTrap("a region that is none")
        return offset, capacity, length

    def read(self, pointer: int, limit: int) -> bytes:
        """Bytes of a region, at most ``limit``."""
        offset, _, length = self._get_region(pointer)
        if length > limit:
            raise WasmTrap(f"a region of {length} bytes where at most {limit} are taken", "region_size")
        return ctypes.string_at(self._view(offset, length), length)

    def write(self, pointer: int, data: bytes) -> None:
        """Fill a region that the contract made."""
        offset, capacity, _ = self._get_region(pointer)
        if len(data) > capacity:
            raise WasmTrap("a region too small for what is written to it", "region_size")
        ctypes.memmove(self._view(offset, len(data)), data, len(data))
        ctypes.memmove(self._view((pointer & 0xFFFFFFFF) + 8, 4), len(data).to_bytes(4, "little"), 4)

    def give(self, data: bytes) -> int:
        """Put bytes into a new region of the contract; its pointer."""
        pointer = int(self.allocate_function(self.store, len(data))) & 0xFFFFFFFF
        if not pointer:
            raise WasmTrap("the contract allocates nothing")
        self.write(pointer, data)
        return pointer

    def _give_late(self, data: bytes) -> int:
        """As `give`, from inside an import: the fuel of the instance is the meter's again before its code runs."""
        self.fill()
        pointer = self.give(data)
        self.drain()
        return pointer

    # -- imports: storage

    def db_read(self, key: int) -> int:
        value = self.storage.get(self.read(key, MAX_KEY_BYTES))
        return 0 if value is None else self._give_late(value)

    def db_write(self, key: int, value: int) -> None:
        self._verify_writable()
        name, data = self.read(key, MAX_KEY_BYTES), self.read(value, MAX_VALUE_BYTES)
        if not data:
            raise WasmTrap("an empty value: the chain's stores hold none")
        self.storage[name] = data

    def db_remove(self, key: int) -> None:
        self._verify_writable()
        del self.storage[self.read(key, MAX_KEY_BYTES)]

    def _verify_writable(self) -> None:
        if self.read_only:
            raise WasmTrap("a query writes", "read_only")

    def db_scan(self, start: int, end: int, order: int) -> int:
        if order not in (1, 2) or len(self.iterators) >= MAX_ITERATORS:
            raise WasmTrap("an order that is none, or too many iterators")
        bounds = [self.read(side, MAX_KEY_BYTES) if side else None for side in (start, end)]
        self.iterators.append(self.storage.scan(bounds[0], bounds[1], order == 2))
        return len(self.iterators)

    def _next(self, number: int) -> tuple[bytes, bytes] | None:
        if not 1 <= number <= len(self.iterators):
            raise WasmTrap("an iterator that is none")
        return next(self.iterators[number - 1], None)

    def db_next(self, number: int) -> int:
        key, value = self._next(number) or (b"", b"")
        return self._give_late(b"".join(part + len(part).to_bytes(4, "big") for part in (key, value)))

    def db_next_key(self, number: int) -> int:
        found = self._next(number)
        return 0 if found is None else self._give_late(found[0])

    def db_next_value(self, number: int) -> int:
        found = self._next(number)
        return 0 if found is None else self._give_late(found[1])

    # -- imports: addresses

    def addr_validate(self, source: int) -> int:
        self.meter.charge(GAS_VALIDATE)
        return self._decode(source)[1]

    def addr_canonicalize(self, source: int, target: int) -> int:
        self.meter.charge(GAS_CANONICALIZE)
        data, failure = self._decode(source)
        if not failure:
            self.write(target, data)
        return failure

    def _decode(self, source: int) -> tuple[bytes, int]:
        """(bytes of an address, 0) or (none, a region with what is wrong)."""
        try:
            return decode_address_once(self.read(source, MAX_TEXT_BYTES).decode(), self.prefix), 0
        except (Rejected, UnicodeDecodeError) as error:
            if isinstance(error, WasmTrap):
                raise
            return b"", self._give_late(b"Invalid address: " + str(error).encode()[:200])

    def addr_humanize(self, source: int, target: int) -> int:
        self.meter.charge(GAS_HUMANIZE)
        try:
            text = encode_address_once(self.read(source, MAX_TEXT_BYTES), self.prefix)
        except Rejected as error:
            if isinstance(error, WasmTrap):
                raise
            return self._give_late(b"Invalid canonical address: " + str(error).encode()[:200])
        self.write(target, text.encode())
        return 0

    # -- imports: signatures

    def secp256k1_verify(self, digest: int, signature: int, key: int) -> int:
        self.meter.charge(GAS_SECP256K1_VERIFY)
        message, signed, public = self.read(digest, 32), self.read(signature, 64), self.read(key, 65)
        failure = _check_ecdsa(message, signed) or (0 if len(public) in (33, 65) else _ERROR_KEY)
        if failure:
            return failure
        try:
            known = PublicKey(public)
        except ValueError:
            return _ERROR_OTHER
        try:
            # a high s is taken too: signature_normalize gives the low one
            lowered = signature_normalize(deserialize_compact(signed))[1]
            return 0 if known.verify(cdata_to_der(lowered), message, hasher=None) else 1
        except ValueError:
            return 1

    def secp256k1_recover_pubkey(self, digest: int, signature: int, parameter: int) -> int:
        self.meter.charge(GAS_SECP256K1_RECOVER)
        message, signed = self.read(digest, 32), self.read(signature, 64)
        failure = _check_ecdsa(message, signed) or (0 if parameter in (0, 1) else _ERROR_PARAMETER)
        if failure:
            return failure << 32
        try:
            key = PublicKey.from_signature_and_message(signed + bytes([parameter]), message, hasher=None)
        except ValueError:
            return _ERROR_OTHER << 32
        return self._give_late(key.format(compressed=False))

    def ed25519_verify(self, message: int, signature: int, key: int) -> int:
        self.meter.charge(GAS_ED25519_VERIFY)
        data, signed, public = self.read(message, MAX_HASHED_BYTES), self.read(signature, 64), self.read(key, 32)
        return _verify_ed25519(public, data, signed)

    def ed25519_batch_verify(self, messages: int, signatures: int, keys: int) -> int:
        lists = [_decode_sections(self.read(pointer, MAX_HASHED_BYTES)) for pointer in (messages, signatures, keys)]
        count = len(lists[1])
        if count > MAX_BATCH or any(len(items) not in (count, 1) for items in (lists[0], lists[2])):
            return _ERROR_BATCH
        self.meter.charge(GAS_ED25519_BATCH_ENTRY * max(count, 1))
        data, keys_ = (items * count if len(items) == 1 else items for items in (lists[0], lists[2]))
        for item, signed, public in zip(data, lists[1], keys_, strict=True):
            failure = _verify_ed25519(public, item, signed)
            if failure:
                return failure
        return 0

    def refuse_curve(self, *_: int) -> int:
        raise WasmTrap("this host has no secp256r1 and no BLS12-381", "no_curve")

    # -- imports: the rest

    def debug(self, message: int) -> None:
        self.read(message, MAX_DEBUG_BYTES)  # what a real chain does with it: nothing, but the region must be one

    def abort(self, message: int) -> None:
        raise WasmTrap("Aborted: " + self.read(message, MAX_DEBUG_BYTES).decode("utf-8", "replace")[:1000], "aborted")

    def query_chain(self, request: int) -> int:
        return self._give_late(self.querier(self.read(request, MAX_QUERY_BYTES)))


def _check_ecdsa(digest: bytes, signature: bytes) -> int:
    if len(digest) != 32:
        return _ERROR_HASH
    return 0 if len(signature) == 64 else _ERROR_SIGNATURE


def _verify_ed25519(key: bytes, message: bytes, signature: bytes) -> int:
    if len(signature) != 64:
        return _ERROR_SIGNATURE
    if len(key) != 32:
        return _ERROR_KEY
    return 0 if ed25519.is_valid(key, message, signature) else 1


def _decode_sections(data: bytes) -> list[bytes]:
    """Parts of a region, each with its length behind it (4 bytes, big-endian)."""
    parts: list[bytes] = []
    end = len(data)
    while end:
        size = int.from_bytes(data[max(end - 4, 0) : end], "big")
        if end < 4 or size > end - 4 or len(parts) > MAX_BATCH:
            raise WasmTrap("sections that are none")
        parts.append(data[end - 4 - size : end - 4])
        end -= 4 + size
    return parts[::-1]


# ---- the engine -------------------------------------------------------------------------------------------------------

_ACTIVE: list[_Call] = []
"""The calls that run, innermost last: a contract that is asked by another runs inside the other's call."""

_IMPORTS: Mapping[str, tuple[int, str]] = {
    "abort": (1, ""),
    "db_read": (1, "i"),
    "db_write": (2, ""),
    "db_remove": (1, ""),
    "db_scan": (3, "i"),
    "db_next": (1, "i"),
    "db_next_key": (1, "i"),
    "db_next_value": (1, "i"),
    "addr_validate": (1, "i"),
    "addr_canonicalize": (2, "i"),
    "addr_humanize": (2, "i"),
    "secp256k1_verify": (3, "i"),
    "secp256k1_recover_pubkey": (3, "I"),
    "secp256r1_verify": (3, "i"),
    "secp256r1_recover_pubkey": (3, "I"),
    "ed25519_verify": (3, "i"),
    "ed25519_batch_verify": (3, "i"),
    "bls12_381_aggregate_g1": (2, "i"),
    "bls12_381_aggregate_g2": (2, "i"),
    "bls12_381_pairing_equality": (4, "i"),
    "bls12_381_hash_to_g1": (4, "i"),
    "bls12_381_hash_to_g2": (4, "i"),
    "debug": (1, ""),
    "query_chain": (1, "i"),
}
"""Name -> number of i32 parameters and what is given back: nothing, an i32, an i64."""


@cache
def _get_engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.consume_fuel = True
    config.cranelift_nan_canonicalization = True
    config.cranelift_opt_level = "none"
    for newer in (
        "threads",
        "simd",
        "relaxed_simd",
        "bulk_memory",
        "function_references",
        "gc",
        "multi_value",
        "multi_memory",
        "memory64",
        "tail_call",
        "exceptions",
    ):
        setattr(config, f"wasm_{newer}", False)
    return wasmtime.Engine(config)


def _make_import(name: str) -> Callable[..., int | None]:
    method = "refuse_curve" if name.startswith(("secp256r1", "bls12")) else name

    def run(*arguments: int) -> int | None:
        call = _ACTIVE[-1]
        call.drain()
        # numbers are unsigned in the interface and signed in the engine's Python
        answer: int | None = getattr(call, method)(*(a & 0xFFFFFFFF for a in arguments))
        call.fill()
        if answer is None:
            return None
        if _IMPORTS[name][1] == "I":
            return answer if answer < 2**63 else answer - 2**64
        return answer if answer < 2**31 else answer - 2**32

    return run


@cache
def _get_linker() -> wasmtime.Linker:
    linker = wasmtime.Linker(_get_engine())
    types = {"": [], "i": [ValType.i32()], "I": [ValType.i64()]}
    for name, (count, result) in _IMPORTS.items():
        linker.define_func("env", name, FuncType([ValType.i32()] * count, types[result]), _make_import(name))
    return linker


# ---- the door ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WasmCode:
    """A contract's binary, checked as a chain checks what is uploaded.

    ``wasm``: at most 800 KiB. Raises Rejected: "code_size", "bad_code" (not WebAssembly, instructions or imports that the host has not, no
    interface version 8, a capability that the host has not).
    """

    wasm: bytes = field(repr=False)
    prefix: str = "wasm"
    """What addresses of the chain begin with."""

    def __post_init__(self) -> None:
        if len(self.wasm) > MAX_CODE_BYTES:
            raise Rejected("a contract too large", got=len(self.wasm), expected=MAX_CODE_BYTES, reason="code_size")
        _compile(self.wasm)

    @property
    def checksum(self) -> bytes:
        """SHA-256 of the binary."""
        return sha256(self.wasm).digest()

    @property
    def capabilities(self) -> frozenset[str]:
        """What the contract requires of a chain."""
        return _get_capabilities(_compile(self.wasm))

    def has_entry_point(self, name: str) -> bool:
        """Ask whether the contract has an entry point, such as "reply"."""
        return any(export.name == name for export in _compile(self.wasm).exports)

    def instantiate(
        self,
        storage: Storage,
        env: Mapping[str, Any],
        info: Mapping[str, Any],
        msg: bytes,
        querier: Querier,
        meter: GasMeter | None = None,
    ) -> dict[str, Any]:
        """The Response of `instantiate`; ContractError, WasmTrap, OutOfGas."""
        return _get_response(self._run("instantiate", storage, (_dump(env), _dump(info), msg), querier, meter))

    def execute(
        self,
        storage: Storage,
        env: Mapping[str, Any],
        info: Mapping[str, Any],
        msg: bytes,
        querier: Querier,
        meter: GasMeter | None = None,
    ) -> dict[str, Any]:
        """The Response of `execute`; ContractError, WasmTrap, OutOfGas."""
        return _get_response(self._run("execute", storage, (_dump(env), _dump(info), msg), querier, meter))

    def reply(
        self, storage: Storage, env: Mapping[str, Any], msg: bytes, querier: Querier, meter: GasMeter | None = None
    ) -> dict[str, Any]:
        """The Response of `reply` to the JSON of a Reply; ContractError, WasmTrap, OutOfGas."""
        return _get_response(self._run("reply", storage, (_dump(env), msg), querier, meter))

    def query(
        self, storage: Storage, env: Mapping[str, Any], msg: bytes, querier: Querier, meter: GasMeter | None = None
    ) -> bytes:
        """The bytes of a query's answer, JSON as a rule; ContractError, WasmTrap (also when it writes), OutOfGas."""
        answer = self._run("query", storage, (_dump(env), msg), querier, meter, read_only=True)
        try:
            return base64.b64decode(answer, validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise WasmTrap("the contract's answer is not base64") from error

    def _run(
        self,
        name: str,
        storage: Storage,
        arguments: tuple[bytes, ...],
        querier: Querier,
        meter: GasMeter | None,
        *,
        read_only: bool = False,
    ) -> Any:
        """Call an entry point in a fresh instance; what stands under "ok" in its answer."""
        if sum(map(len, arguments)) > MAX_MESSAGE_BYTES:
            raise WasmTrap("a message too large", "message_size")
        store = wasmtime.Store(_get_engine())
        store.set_limits(memory_size=MAX_MEMORY_BYTES, table_elements=MAX_TABLE_ELEMENTS, memories=1)
        call = _Call(store, storage, querier, self.prefix, GasMeter() if meter is None else meter, read_only)
        _ACTIVE.append(call)
        try:
            call.fill()
            exports = _get_linker().instantiate(store, _compile(self.wasm)).exports(store)
            entry, memory, allocate = exports.get(name), exports["memory"], exports["allocate"]
            if not isinstance(entry, wasmtime.Func):
                raise WasmTrap(f"the contract has no entry point {name}", "no_entry_point")
            if not isinstance(memory, wasmtime.Memory) or not isinstance(allocate, wasmtime.Func):
                raise WasmTrap("the contract's exports are of other kinds")
            call.memory, call.allocate_function = memory, allocate
            pointers = [call.give(argument) for argument in arguments]
            answer = call.read(entry(store, *pointers), MAX_RESULT_BYTES)
            call.drain()
        except wasmtime.Trap as trap:
            if trap.trap_code == wasmtime.TrapCode.OUT_OF_FUEL:
                call.meter.used = call.meter.limit
                raise OutOfGas from trap
            call.drain()
            raise WasmTrap(f"the contract trapped: {str(trap.message).splitlines()[-1]}") from trap
        except wasmtime.WasmtimeError as error:
            raise WasmTrap(f"the contract does not run: {str(error).splitlines()[0]}") from error
        finally:
            _ACTIVE.pop()
        return _open(answer)


@lru_cache(maxsize=32)
def _compile(wasm: bytes) -> wasmtime.Module:
    try:
        module = wasmtime.Module(_get_engine(), wasm)
    except wasmtime.WasmtimeError as error:
        raise _refuse(f"not a contract for this host: {str(error).splitlines()[0][:200]}", None) from error
    for needed in module.imports:
        if needed.module != "env" or needed.name not in _IMPORTS:
            raise _refuse("the contract imports what no chain has", f"{needed.module}.{needed.name}")
    names = {export.name for export in module.exports}
    missing = {"memory", "allocate", "deallocate", "interface_version_8"} - names
    if missing:
        raise _refuse("the contract lacks exports of interface version 8", sorted(missing))
    unknown = _get_capabilities(module) - CAPABILITIES
    if unknown:
        raise _refuse("the contract requires what the chain has not", sorted(unknown))
    return module


def _get_capabilities(module: wasmtime.Module) -> frozenset[str]:
    return frozenset(e.name.removeprefix("requires_") for e in module.exports if e.name.startswith("requires_"))


def _refuse(what: str, got: object) -> Rejected:
    return Rejected(what, got=got, reason="bad_code")


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _open(answer: bytes) -> Any:
    """What stands under "ok" in a ContractResult; ContractError for "error"."""
    try:
        result = decode_json(answer)
    except Rejected as error:
        raise WasmTrap("the contract's answer is not JSON") from error
    if not isinstance(result, dict) or len(result) != 1:
        raise WasmTrap("the contract's answer is no ContractResult")
    if "error" in result:
        raise ContractError(str(result["error"]))
    if "ok" not in result:
        raise WasmTrap("the contract's answer is no ContractResult")
    return result["ok"]


def _get_response(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WasmTrap("the contract's answer is no Response")
    return value
