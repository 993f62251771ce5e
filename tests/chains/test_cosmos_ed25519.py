"""Ed25519 as CometBFT's consensus judges it: what others may leave open, and what a fast library must never decide alone."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256, sha512

import pytest
from Crypto.Signature import eddsa
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.cosmos import batch_compile, ed25519, ed25519_batch
from chains.cosmos.ed25519 import BASE, IDENTITY, ORDER, P
from tests.test_conformance_evm import get_folder

SEED = sha256(b"seed").digest()
KEY = ed25519.compute_public_key(SEED)
MESSAGE = b"a block"
SIGNATURE = ed25519.sign(SEED, MESSAGE)
MINUS_ONE = (P - 1).to_bytes(32, "little")  # y = -1, x = 0: the point of order two


def judge(key=KEY, message=MESSAGE, signature=SIGNATURE) -> bool:
    verdict = ed25519.is_valid(key, message, signature)
    assert verdict == ed25519.is_valid_exact(key, message, signature)
    return verdict


def test_a_signature_is_the_one_that_another_library_makes_and_takes():
    private = eddsa.import_private_key(SEED)
    assert private.public_key().export_key(format="raw") == KEY
    assert eddsa.new(private, "rfc8032").sign(MESSAGE) == SIGNATURE
    assert judge()


@pytest.mark.parametrize("at", range(0, 64, 5))
def test_a_signature_with_one_bit_changed_is_refused(at):
    assert not judge(signature=SIGNATURE[:at] + bytes([SIGNATURE[at] ^ 4]) + SIGNATURE[at + 1 :])


def test_another_message_another_key_or_other_sizes_are_refused():
    assert not judge(message=MESSAGE + b"!")
    assert not judge(key=ed25519.compute_public_key(sha256(b"other").digest()))
    for size in (0, 63, 65):
        assert not judge(signature=(SIGNATURE + b"\0")[:size])
    for size in (0, 31, 33):
        assert not judge(key=(KEY + b"\0")[:size])


def test_s_at_or_above_the_order_is_refused_though_the_equation_holds():
    s = int.from_bytes(SIGNATURE[32:], "little")
    assert not judge(signature=SIGNATURE[:32] + (s + ORDER).to_bytes(32, "little"))


def make_signature(r: bytes, key: bytes, nonce: int, scalar: int) -> bytes:
    k = int.from_bytes(sha512(r + key + MESSAGE).digest(), "little") % ORDER
    return r + ((nonce + k * scalar) % ORDER).to_bytes(32, "little")


def get_scalar(seed: bytes) -> int:
    return ed25519._expand(seed)[0]


def test_every_encoding_of_a_point_counts():
    """The identity as R: y = 1, also with the sign of x = 0 set, also as y = p + 1."""
    for r in (1, 1 | 1 << 255, P + 1, P + 1 | 1 << 255):
        signature = make_signature(r.to_bytes(32, "little"), KEY, 0, get_scalar(SEED))
        assert judge(signature=signature), r
    assert not judge(signature=make_signature((2).to_bytes(32, "little"), KEY, 0, get_scalar(SEED)))


def test_the_equation_is_the_one_multiplied_by_the_cofactor():
    """A key and an R shifted by a point of order two: refused by the plain equation for odd k, taken by consensus."""
    two = ed25519.decode_point(MINUS_ONE)
    assert two is not None
    shifted = ed25519.encode_point(ed25519._add(ed25519._multiply_base(get_scalar(SEED) % ORDER), two))
    r = ed25519.encode_point(ed25519._add(BASE, two))
    signature = make_signature(r, shifted, 1, get_scalar(SEED))
    assert judge(key=shifted, signature=signature)
    assert not judge(key=shifted, signature=signature[:32] + SIGNATURE[32:])


def test_what_is_no_point_is_refused():
    bad = next(n.to_bytes(32, "little") for n in range(2, 50) if ed25519.decode_point(n.to_bytes(32, "little")) is None)
    assert not judge(key=bad)
    assert not judge(signature=bad + SIGNATURE[32:])
    assert ed25519.decode_point(bytes(31)) is None


@given(st.integers(min_value=0, max_value=ORDER - 1))
@settings(max_examples=20, deadline=None)
def test_a_point_is_itself_after_encoding_and_the_two_multiplications_agree(scalar):
    point = ed25519._multiply_base(scalar)
    odd = ed25519._get_odd_multiples_of_negated(ed25519.encode_point(BASE))
    assert odd is not None
    other = ed25519._negate(ed25519._multiply(scalar, odd)) if scalar else IDENTITY
    data = ed25519.encode_point(point)
    assert data == ed25519.encode_point(other)
    decoded = ed25519.decode_point(data)
    assert decoded is not None
    assert ed25519.encode_point(decoded) == data


def is_taken_by_other(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        eddsa.new(eddsa.import_public_key(key), "rfc8032").verify(message, signature)
    except ValueError:
        return False
    return True


def make_odd_cases() -> list[tuple[bytes, bytes]]:
    """Keys and signatures at the edges: small, large and torsion points, s around the order, honest ones broken a little."""
    small = [n.to_bytes(32, "little") for n in (0, 1, 2, P - 1, P, P + 1, 2**255 - 1, 1 | 1 << 255)]
    s_values = [0, 1, ORDER - 1, ORDER, int.from_bytes(SIGNATURE[32:], "little")]
    cases = [(key, r + s.to_bytes(32, "little")) for key in (KEY, *small[:4]) for r in small for s in s_values[:3]]
    cases += [(KEY, SIGNATURE[:32] + s.to_bytes(32, "little")) for s in s_values]
    cases += [(KEY, make_signature(r, KEY, 0, get_scalar(SEED))) for r in small]
    return cases


def test_nothing_that_a_fast_library_takes_is_wrong():
    """What a stricter library takes, the exact rule takes; where the product's fast road exists it is held to the same."""
    taken = 0
    for key, signature in make_odd_cases():
        exact = ed25519.is_valid_exact(key, MESSAGE, signature)
        roads = [is_taken_by_other, *([ed25519._FAST] if ed25519._FAST else [])]
        for road in roads:
            if road(key, MESSAGE, signature):
                taken += 1
                assert exact, (key.hex(), signature.hex())
        assert ed25519.is_valid(key, MESSAGE, signature) == exact
    assert taken >= 1


# ---- the fast road -----------------------------------------------------------------------------------------------------

FAST = ed25519.build_fast()


def make_torsion() -> list[ed25519.Point]:
    """The eight points whose order divides the cofactor: multiples of one of order eight."""
    for y in range(2, 200):
        point = ed25519.decode_point(y.to_bytes(32, "little"))
        if point is not None:
            small = _times(point, ORDER)
            if not ed25519._is_identity(_times(small, 4)):
                return [_times(small, i) for i in range(8)]
    raise AssertionError("no point of order eight")


def _times(point: ed25519.Point, scalar: int) -> ed25519.Point:
    result = IDENTITY
    for bit in f"{scalar:b}":
        result = ed25519._double(result)
        if bit == "1":
            result = ed25519._add(result, point)
    return result


TORSION = make_torsion()


def list_encodings(point: ed25519.Point) -> list[bytes]:
    """Every 32 bytes that ZIP-215 reads as a point: also y + p where that fits, also the sign of x = 0."""
    canonical = int.from_bytes(ed25519.encode_point(point), "little")
    y, sign = canonical & (2**255 - 1), canonical >> 255
    signs = (0, 1) if ed25519._add(point, point)[0] % P == 0 and point[0] % P == 0 else (sign,)
    ys = [y, y + P] if y + P < 2**255 else [y]
    return [(value | bit << 255).to_bytes(32, "little") for value in ys for bit in signs]


def test_the_fast_library_is_there_and_is_the_road_of_every_ordinary_signature(monkeypatch):
    assert FAST is not None
    assert ed25519._FAST is not None
    monkeypatch.setattr(ed25519, "is_valid_exact", lambda *_: pytest.fail("an ordinary signature took the slow road"))
    assert ed25519.is_valid(KEY, MESSAGE, SIGNATURE)


def test_all_196_pairs_of_points_of_small_order_are_valid_with_s_of_zero_whatever_the_fast_library_says():
    """Key and R of small order: both sides of the equation vanish under the cofactor. The library refuses all, the rule takes all."""
    encodings = [data for point in TORSION for data in list_encodings(point)]
    assert len(encodings) == len(set(encodings)) == 14
    zero = bytes(32)
    taken = 0
    for key in encodings:
        for r in encodings:
            assert judge(key=key, signature=r + zero)
            assert not judge(key=key, signature=r + (1).to_bytes(32, "little"))
            taken += FAST(key, MESSAGE, r + zero)
    assert taken == 0


@given(
    a=st.integers(1, ORDER - 1),
    nonce=st.integers(0, ORDER - 1),
    torsions=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    error=st.sampled_from([0, 0, 0, 1, ORDER // 2]),
    lift=st.sampled_from([0, 0, 1]),
    pick=st.integers(0, 3),
    message=st.binary(max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_what_the_fast_library_takes_of_shifted_keys_and_points_the_rule_takes(
    a, nonce, torsions, error, lift, pick, message
):
    """Keys and R with a part of small order in every encoding, s wrong or lifted by the order: validity is known beforehand."""
    key = ed25519.encode_point(ed25519._add(ed25519._multiply_base(a), TORSION[torsions[0]]))
    encodings = list_encodings(ed25519._add(ed25519._multiply_base(nonce), TORSION[torsions[1]]))
    r = encodings[pick % len(encodings)]
    k = int.from_bytes(sha512(r + key + message).digest(), "little") % ORDER
    s = (nonce + k * a + error) % ORDER + lift * ORDER
    if s >= 2**256:
        return
    signature = r + s.to_bytes(32, "little")
    assert ed25519.is_valid_exact(key, message, signature) == (not error and not lift)
    assert ed25519.is_valid(key, message, signature) == (not error and not lift)
    if FAST(key, message, signature):
        assert (error, lift) == (0, 0)


@given(
    key=st.one_of(st.just(KEY), st.binary(min_size=32, max_size=32)),
    changes=st.lists(st.tuples(st.integers(0, 63), st.integers(1, 255)), max_size=3),
    message=st.sampled_from([MESSAGE, MESSAGE + b"!", b""]),
)
@settings(max_examples=100, deadline=None)
def test_what_the_fast_library_takes_of_damaged_signatures_the_rule_takes(key, changes, message):
    signature = bytearray(SIGNATURE)
    for at, mask in changes:
        signature[at] ^= mask
    if FAST(key, message, bytes(signature)):
        assert ed25519.is_valid_exact(key, message, bytes(signature))
    assert ed25519.is_valid(key, message, bytes(signature)) == ed25519.is_valid_exact(key, message, bytes(signature))


def test_what_the_fast_library_takes_of_the_public_edge_vectors_the_rule_takes():
    path = get_folder("sig") / "cctv_ed25519.json"
    taken, valid = 0, 0
    for entry in json.loads(path.read_text()):
        case = bytes.fromhex(entry["key"]), entry["msg"].encode(), bytes.fromhex(entry["sig"])
        flags = set(entry["flags"] or ())
        is_valid = "reencoded_k" not in flags or "low_order_A" in flags
        assert ed25519.is_valid(*case) == is_valid
        valid += is_valid
        if FAST(*case):
            taken += 1
            assert is_valid
    assert 0 < taken < valid  # the library is stricter, so it may say yes and never no


def test_a_fast_library_that_says_no_is_not_believed(monkeypatch):
    monkeypatch.setattr(ed25519, "_FAST", lambda *_: False)
    assert judge()


def test_a_fast_library_that_takes_a_forgery_is_not_used(monkeypatch):
    class Bindings:
        BadSignatureError = ValueError

        @staticmethod
        def crypto_sign_open(signed, key):
            return signed[64:]

    monkeypatch.setattr(ed25519.importlib, "import_module", lambda name: Bindings)
    assert ed25519.build_fast() is None

    class Refusing(Bindings):
        @staticmethod
        def crypto_sign_open(signed, key):
            raise ValueError

    monkeypatch.setattr(ed25519.importlib, "import_module", lambda name: Refusing)
    assert ed25519.build_fast() is None


# ---- many at once ------------------------------------------------------------------------------------------------------

BATCH = ed25519.build_batch()
SEEDS = [sha256(b"many %d" % i).digest() for i in range(24)]
MANY = [
    (ed25519.compute_public_key(seed), b"vote %d" % i, ed25519.sign(seed, b"vote %d" % i))
    for i, seed in enumerate(SEEDS)
]


def test_many_signatures_are_judged_by_one_equation(monkeypatch):
    assert BATCH is not None
    monkeypatch.setattr(ed25519, "is_valid", lambda *_: pytest.fail("asked one by one"))
    assert ed25519.find_invalid(MANY) is None
    assert ed25519.find_invalid([]) is None


@pytest.mark.parametrize("place", [0, 7, 23])
def test_one_wrong_signature_among_many_is_found_by_its_place(place):
    key, message, signature = MANY[place]
    for wrong in (
        (key, message + b"!", signature),
        (MANY[place - 1][0], message, signature),
        (key, message, signature[:40] + bytes([signature[40] ^ 1]) + signature[41:]),
        (key, message, signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")),
        (key, message, signature[:63]),
        (key[:31], message, signature),
        (key + b"\0", message, signature[:63]),
    ):
        cases = [*MANY[:place], wrong, *MANY[place + 1 :]]
        assert not BATCH(cases)
        assert ed25519.find_invalid(cases) == place


def test_two_wrong_signatures_do_not_make_up_for_each_other():
    """Errors that cancel in a plain sum: one s too large by what the other is too small. The factors tell them apart."""

    def shift(case, by):
        s = (int.from_bytes(case[2][32:], "little") + by) % ORDER
        return case[0], case[1], case[2][:32] + s.to_bytes(32, "little")

    for by in (1, 8, ORDER // 3):
        cases = [shift(MANY[0], by), shift(MANY[1], -by), *MANY[2:]]
        assert not BATCH(cases)
        assert ed25519.find_invalid(cases) == 0
    swapped = [(MANY[0][0], MANY[0][1], MANY[1][2]), (MANY[1][0], MANY[1][1], MANY[0][2]), *MANY[2:]]
    assert ed25519.find_invalid(swapped) == 0


@given(
    shifts=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(0, 3)), min_size=1, max_size=5),
    error=st.sampled_from([0, 0, 1]),
)
@settings(max_examples=40, deadline=None)
def test_a_batch_with_points_of_small_order_in_it_has_the_verdict_of_its_members(shifts, error):
    cases = list(MANY[:3])
    for i, (of_key, of_r, pick) in enumerate(shifts):
        key = ed25519.encode_point(ed25519._add(ed25519._multiply_base(77 + i), TORSION[of_key]))
        encodings = list_encodings(ed25519._add(ed25519._multiply_base(i), TORSION[of_r]))
        r = encodings[pick % len(encodings)]
        s = (i + int.from_bytes(sha512(r + key + b"m").digest(), "little") * (77 + i) + error) % ORDER
        cases.append((key, b"m", r + s.to_bytes(32, "little")))
    assert BATCH(cases) == all(ed25519.is_valid_exact(*case) for case in cases) == (not error)


def test_the_edge_vectors_have_their_verdict_in_a_batch():
    path = get_folder("sig") / "cctv_ed25519.json"
    valid = []
    for entry in json.loads(path.read_text()):
        case = bytes.fromhex(entry["key"]), entry["msg"].encode(), bytes.fromhex(entry["sig"])
        flags = set(entry["flags"] or ())
        is_valid = "reencoded_k" not in flags or "low_order_A" in flags
        assert BATCH([case, MANY[0]]) == is_valid
        if is_valid:
            valid.append(case)
    assert BATCH(valid)


def test_what_is_no_list_of_signatures_is_never_valid():
    import wasmtime

    config = wasmtime.Config()
    config.wasm_wide_arithmetic = True
    engine = wasmtime.Engine(config)
    module = wasmtime.Module(engine, (batch_compile.FOLDER / batch_compile.MODULE).read_bytes())
    assert not list(module.imports)  # nothing to reach out with

    def ask(data: bytes) -> int:
        store = wasmtime.Store(engine)
        exports = wasmtime.Instance(store, module, []).exports(store)
        start = exports["allocate"](store, len(data))
        exports["memory"].write(store, data, start)
        return exports["verify"](store, start, len(data))

    good = KEY + SIGNATURE + len(MESSAGE).to_bytes(4, "little") + MESSAGE
    assert ask(good) == 1
    assert ask(good + good) == 1
    for bad in (good[:-1], good + b"\0", good[:31], good[:95], good[:99], KEY + SIGNATURE + b"\xff" * 4 + MESSAGE):
        assert ask(bad) == 0


def test_without_the_engine_or_with_another_module_signatures_are_asked_one_by_one(monkeypatch):
    def miss(name):
        raise ImportError(name)

    monkeypatch.setattr(ed25519_batch, "import_module", miss)
    assert ed25519_batch.load_batch() is None
    assert ed25519.build_batch() is None
    monkeypatch.setattr(ed25519, "_get_batch", lambda: None)
    assert ed25519.find_invalid(MANY) is None
    assert ed25519.find_invalid([*MANY[:5], (KEY, b"", SIGNATURE), *MANY[5:]]) == 5
    for lying in (lambda cases: True, lambda cases: False):
        monkeypatch.setattr(ed25519, "load_batch", lambda lying=lying: lying)
        assert ed25519.build_batch() is None


def test_the_committed_module_is_the_one_of_its_sources():
    manifest = json.loads((batch_compile.FOLDER / "manifest.json").read_text())
    assert manifest["source_sha256"] == batch_compile.get_source_hash(), "python -m chains.cosmos.batch_compile"
    module = (batch_compile.FOLDER / batch_compile.MODULE).read_bytes()
    assert manifest["module_sha256"] == sha256(module).hexdigest()
    assert manifest["flags"] == list(batch_compile.RUSTFLAGS)
    assert b"/.cargo/" not in module
    assert b"/home/" not in module
    assert b"/root/" not in module


def test_a_changed_or_added_source_of_the_module_has_another_hash(tmp_path, monkeypatch):
    folder = tmp_path / "batch"
    shutil.copytree(batch_compile.FOLDER, folder)
    monkeypatch.setattr(batch_compile, "FOLDER", folder)
    committed = json.loads((folder / "manifest.json").read_text())["source_sha256"]
    assert batch_compile.get_source_hash() == committed
    (folder / "src" / "more.rs").write_text("// nothing")
    assert batch_compile.get_source_hash() != committed
    (folder / "src" / "more.rs").unlink()
    for name in ("Cargo.toml", "Cargo.lock", "src/lib.rs"):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before + b"\n")
        assert batch_compile.get_source_hash() != committed
        (folder / name).write_bytes(before)
    assert batch_compile.get_source_hash() == committed
