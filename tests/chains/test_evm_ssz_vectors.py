"""SSZ vectors of byte strings are written and read in one piece: the same bytes and the same refusals as element by element."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.evm.ssz import Bytes, Uint, Vector
from messages.errors import Rejected


def encode_each(kind, value):
    """The rule itself: the right number of elements, each of them encoded by its own type."""
    if len(value) != kind.count:
        raise Rejected("length", reason="bad_ssz")
    return b"".join(kind.element.encode(item) for item in value)


def decode_each(kind, data):
    if len(data) != kind.size:
        raise Rejected("size", reason="bad_ssz")
    return tuple(kind.element.decode(data[i : i + kind.step]) for i in range(0, kind.size, kind.step))


def get_end(act):
    """What comes out, a value or the reason of a refusal."""
    try:
        return act()
    except Rejected as error:
        return error.reason


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 6), st.integers(1, 50), st.data())
def test_a_vector_of_byte_strings_is_what_its_elements_make_of_it(count, step, data):
    kind = Vector(Bytes(step), count)
    sizes = st.sampled_from([step, step, step, step, step - 1, step + 1, 0])
    item = sizes.flatmap(lambda size: st.binary(min_size=size, max_size=size))
    value = data.draw(st.lists(item, min_size=max(0, count - 1), max_size=count + 1))
    assert get_end(lambda: kind.encode(value)) == get_end(lambda: encode_each(kind, value))
    raw = data.draw(
        st.integers(max(0, kind.size - 1), kind.size + 1).flatmap(lambda n: st.binary(min_size=n, max_size=n))
    )
    assert get_end(lambda: kind.decode(raw)) == get_end(lambda: decode_each(kind, raw))


def test_elements_of_wrong_sizes_that_add_up_are_refused():
    kind = Vector(Bytes(48), 3)
    assert kind.decode(kind.encode([b"a" * 48, b"b" * 48, b"c" * 48])) == (b"a" * 48, b"b" * 48, b"c" * 48)
    for value in ([b"a" * 47, b"b" * 49, b"c" * 48], [b"a" * 144, b"", b""], [b"a" * 24] * 3, [b"a" * 48] * 2):
        with pytest.raises(Rejected) as caught:
            kind.encode(value)
        assert caught.value.reason == "bad_ssz"


def test_bytes_that_are_no_whole_vector_are_refused():
    kind = Vector(Bytes(48), 3)
    assert kind.decode(bytes(144)) == (bytes(48),) * 3
    for size in (0, 48, 143, 145, 192):
        with pytest.raises(Rejected) as caught:
            kind.decode(bytes(size))
        assert caught.value.reason == "bad_ssz"


def test_a_vector_of_numbers_is_still_read_number_by_number():
    kind = Vector(Uint(8), 2)
    assert kind.decode(kind.encode([1, 2**64 - 1])) == (1, 2**64 - 1)
    with pytest.raises(OverflowError):
        kind.encode([1, 2**64])
