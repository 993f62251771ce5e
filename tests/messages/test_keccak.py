"""Keccak-256 by the library's C functions: the same digests, and the public way where they are not as known."""

from hypothesis import given, settings
from hypothesis import strategies as st

from messages import keccak
from messages.hashing import keccak256


@settings(max_examples=100)
@given(st.binary(max_size=700))
def test_the_fast_keccak_is_keccak(data):
    assert keccak256(data) == keccak.compute_keccak256(data)
    assert keccak.build_fast_keccak256()(data) == keccak.compute_keccak256(data)


def test_the_public_keccak_is_taken_where_the_fast_one_is_missing_or_wrong(monkeypatch):
    monkeypatch.setattr(keccak, "build_fast_keccak256", lambda: lambda _data: bytes(32))
    assert keccak.choose_keccak256() is keccak.compute_keccak256

    def missing():
        raise AttributeError("keccak_init")

    monkeypatch.setattr(keccak, "build_fast_keccak256", missing)
    assert keccak.choose_keccak256() is keccak.compute_keccak256
