"""Ed25519 under the rules of ZIP-215, which are those of CometBFT's consensus. Pure.

Light clients must agree with the chain on *every* signature, also on odd ones, or one odd validator splits them off. ZIP-215 fixes
what RFC 8032 leaves open: any encoding of a point counts (y is taken modulo p, and x = 0 with the sign bit set is x = 0), s must be
below the group order, and the equation is the one multiplied by the cofactor. Libraries are stricter, each in its own way, so a library
may only say yes: what it refuses goes to the exact verifier below. A commit has many signatures, and one equation judges them all (ZIP-215
has the cofactor in it so that this gives the same verdicts); where it does not hold they are asked one by one.

`sign` and `compute_public_key` are for simulated validators and tests; they are not constant-time and hold nobody's real key.

Source: ZIP-215 "Explicitly Defining and Modifying Ed25519 Validation Rules"; RFC 8032; Hisil, Wong, Carter, Dawson, "Twisted Edwards Curves
Revisited" (2008) for the formulas.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from hashlib import sha512

from chains.cosmos.ed25519_batch import Case, load_batch

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
_D2 = 2 * D % P
_SQRT_MINUS_ONE = pow(2, (P - 1) // 4, P)
_MASK = 2**255 - 1
_WINDOW_BITS = 5

BATCH_FROM = 16
"""Signatures from which one equation is quicker than one after another."""

Point = tuple[int, int, int, int]
"""Extended coordinates (X, Y, Z, T): x = X/Z, y = Y/Z, xy = T/Z."""
Niels = tuple[int, int, int]
"""A point that is added often: (y + x, y - x, 2dxy), affine."""

IDENTITY: Point = (0, 1, 1, 0)


# ---- the group --------------------------------------------------------------------------------------------------------


def _add(a: Point, b: Point) -> Point:
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    p = (y1 - x1) * (y2 - x2) % P
    q = (y1 + x1) * (y2 + x2) % P
    r = t1 * _D2 % P * t2 % P
    s = 2 * z1 * z2 % P
    e, f, g, h = q - p, s - r, s + r, q + p
    return e * f % P, g * h % P, f * g % P, e * h % P


def _add_niels(a: Point, b: Niels) -> Point:
    x1, y1, z1, t1 = a
    p = (y1 - x1) * b[1] % P
    q = (y1 + x1) * b[0] % P
    r = t1 * b[2] % P
    s = 2 * z1
    e, f, g, h = q - p, s - r, s + r, q + p
    return e * f % P, g * h % P, f * g % P, e * h % P


def _double(a: Point) -> Point:
    x1, y1, z1, _ = a
    p = x1 * x1 % P
    q = y1 * y1 % P
    h = p + q
    e = h - (x1 + y1) * (x1 + y1) % P
    g = p - q
    f = 2 * z1 * z1 % P + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def _negate(a: Point) -> Point:
    return P - a[0], a[1], a[2], P - a[3]


def _is_identity(a: Point) -> bool:
    return a[0] % P == 0 and (a[1] - a[2]) % P == 0


def decode_point(data: bytes) -> Point | None:
    """Return the point of 32 bytes under ZIP-215, None where there is none: y modulo p, any sign of x = 0."""
    if len(data) != 32:
        return None
    number = int.from_bytes(data, "little")
    y = (number & _MASK) % P
    square = y * y % P
    u, v = square - 1, D * square + 1
    v3 = v * v % P * v % P
    x = u * v3 % P * pow(u * v3 % P * v3 % P * v % P, (P - 5) // 8, P) % P
    check = v * x % P * x % P
    if check != u % P:
        if check != -u % P:
            return None
        x = x * _SQRT_MINUS_ONE % P
    if x & 1 != number >> 255:
        x = -x % P
    return x, y, 1, x * y % P


def encode_point(point: Point) -> bytes:
    """Return the canonical 32 bytes of a point."""
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decode_base() -> Point:
    base = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    assert base is not None
    return base


BASE = _decode_base()


def _to_niels(point: Point) -> Niels:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y + x) % P, (y - x) % P, _D2 * x % P * y % P


@cache
def _get_base_table() -> tuple[tuple[Niels, ...], ...]:
    """Return row i, entry j: (j + 1) * 16^i * B. Built once, at the first signature."""
    rows = []
    start = BASE
    for _ in range(64):
        row, point = [], start
        for _ in range(15):
            row.append(_to_niels(point))
            point = _add(point, start)
        rows.append(tuple(row))
        start = point
    return tuple(rows)


def _multiply_base(scalar: int) -> Point:
    point = IDENTITY
    for row in _get_base_table():
        digit = scalar & 15
        if digit:
            point = _add_niels(point, row[digit - 1])
        scalar >>= 4
    return point


def _multiply(scalar: int, odd: tuple[Point, ...]) -> Point:
    """Return scalar times a point given by its odd multiples 1, 3, 5 ... (sliding window)."""
    bits = f"{scalar:b}"
    point, i, size = IDENTITY, 0, len(bits)
    while i < size:
        if bits[i] == "0":
            point = _double(point)
            i += 1
            continue
        end = min(i + _WINDOW_BITS, size)
        while bits[end - 1] == "0":
            end -= 1
        for _ in range(end - i):
            point = _double(point)
        point = _add(point, odd[int(bits[i:end], 2) >> 1])
        i = end
    return point


@lru_cache(maxsize=1024)
def _get_odd_multiples_of_negated(public_key: bytes) -> tuple[Point, ...] | None:
    """Return -A, -3A, ... -31A of a key. Cached: the same validators sign every block."""
    point = decode_point(public_key)
    if point is None:
        return None
    point = _negate(point)
    twice = _double(point)
    multiples = [point]
    for _ in range(2 ** (_WINDOW_BITS - 1) - 1):
        multiples.append(_add(multiples[-1], twice))
    return tuple(multiples)


# ---- the rule ---------------------------------------------------------------------------------------------------------


def is_valid_exact(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Ask whether a 64-byte signature of a 32-byte key over a message is valid under ZIP-215: [8](sB - kA - R) = 0."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= ORDER:
        return False
    odd = _get_odd_multiples_of_negated(public_key)
    r = decode_point(signature[:32])
    if odd is None or r is None:
        return False
    # over the bytes as they came: re-encoding a point first would be another rule (CCTV flag reencoded_k)
    k = int.from_bytes(sha512(signature[:32] + public_key + message).digest(), "little") % ORDER
    point = _add(_add(_multiply_base(s), _multiply(k, odd)), _negate(r))
    for _ in range(3):
        point = _double(point)
    return _is_identity(point)


def build_fast() -> Callable[[bytes, bytes, bytes], bool] | None:
    """Return libsodium's verification through PyNaCl, None where that is not installed or does not behave as known.

    It is quicker by a factor of twenty and stricter than ZIP-215. Whatever it accepts is valid here too: it takes only canonical encodings, of
    which ZIP-215 reads the same points; it hashes the same bytes, so k is the same; it bounds s as here; and it compares sB - kA with R itself,
    which times eight is the equation of ZIP-215. It refuses points of small order and every R that equals sB - kA but for a point of small
    order: those are for `is_valid_exact`.
    """
    try:
        bindings = importlib.import_module("nacl.bindings")
        bad_signature: type[Exception] = importlib.import_module("nacl.exceptions").BadSignatureError
        open_signed: Callable[[bytes, bytes], bytes] = bindings.crypto_sign_open
    except (ImportError, AttributeError):
        return None

    def is_valid_fast(public_key: bytes, message: bytes, signature: bytes) -> bool:
        try:
            open_signed(signature + message, public_key)
        except bad_signature:
            return False
        return True

    seed = bytes(range(32))
    public_key, message = compute_public_key(seed), b"proved at import"
    signature = sign(seed, message)
    forged = signature[:40] + bytes([signature[40] ^ 1]) + signature[41:]
    if not is_valid_fast(public_key, message, signature) or is_valid_fast(public_key, message, forged):
        return None
    return is_valid_fast


def is_valid(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Ask the same as `is_valid_exact`, a fast library first; it decides nothing alone but a yes."""
    if len(public_key) != 32 or len(signature) != 64:
        return False
    if _FAST is not None and _FAST(public_key, message, signature):
        return True
    return is_valid_exact(public_key, message, signature)


def build_batch() -> Callable[[Sequence[Case]], bool] | None:
    """Return the question whether all of some signatures are valid, None where the batch verifier is not there or not as known."""
    are_valid = load_batch()
    if are_valid is None:
        return None
    seeds = (bytes(range(32)), bytes(range(1, 33)))
    cases = [(compute_public_key(seed), b"proved at loading", sign(seed, b"proved at loading")) for seed in seeds]
    (key, message, signature), other = cases
    forged = signature[:40] + bytes([signature[40] ^ 1]) + signature[41:]
    swapped = [(key, message, other[2]), (other[0], message, signature)]
    if not are_valid(cases) or are_valid([(key, message, forged), other]) or are_valid(swapped):
        return None
    return are_valid


_get_batch = cache(build_batch)


def find_invalid(cases: Sequence[Case]) -> int | None:
    """Return the place of the first of some signatures that is not valid under ZIP-215, None when all are: one equation for many."""
    if len(cases) >= BATCH_FROM:
        are_valid = _get_batch()
        if are_valid is not None and are_valid(cases):
            return None
    return next((place for place, case in enumerate(cases) if not is_valid(*case)), None)


# ---- simulated validators ---------------------------------------------------------------------------------------------


def _expand(seed: bytes) -> tuple[int, bytes]:
    digest = sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    return (scalar & (2**254 - 8)) | 2**254, digest[32:]


@lru_cache(maxsize=1024)
def compute_public_key(seed: bytes) -> bytes:
    """Return the 32-byte public key of a 32-byte seed (RFC 8032, 5.1.5)."""
    return encode_point(_multiply_base(_expand(seed)[0] % ORDER))


def sign(seed: bytes, message: bytes) -> bytes:
    """Return the 64-byte signature of a message under a seed (RFC 8032, 5.1.6). Not constant-time."""
    scalar, prefix = _expand(seed)
    nonce = int.from_bytes(sha512(prefix + message).digest(), "little") % ORDER
    r = encode_point(_multiply_base(nonce))
    k = int.from_bytes(sha512(r + compute_public_key(seed) + message).digest(), "little") % ORDER
    return r + ((nonce + k * scalar) % ORDER).to_bytes(32, "little")


_FAST = build_fast()
