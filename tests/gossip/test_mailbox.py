"""The mailbox: bounded, and fair to those who say little."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayer import mailbox
from relayer.mailbox import Mailbox


def take_all(box):
    return [box.take() for _ in range(len(box))]


def test_a_flood_of_one_topic_pushes_out_only_itself():
    box = Mailbox(100, 10**6)
    box.put("honest", b"first")
    for i in range(10_000):
        box.put("flood", b"%d" % i)
    box.put("honest", b"second")
    assert len(box) == 100
    assert box.dropped == 9_902
    got = take_all(box)
    assert [d for t, d in got if t == "honest"] == [b"first", b"second"]
    assert got[-1] == ("flood", b"9999")


def test_a_flood_of_every_topic_at_once_is_bounded_too():
    box = Mailbox(100, 10**6)
    for i in range(10_000):
        box.put(f"{i % 300}", b"x")
    assert len(box) == 100


def test_what_waits_behind_a_flood_is_read_in_its_turn():
    box = Mailbox(1000, 10**6)
    for i in range(500):
        box.put("flood", b"%d" % i)
    box.put("honest", b"here")
    assert [box.take()[0] for _ in range(2)] == ["flood", "honest"]


def test_large_messages_push_out_the_heaviest_topic():
    box = Mailbox(100, 1000)
    box.put("small", b"x" * 10)
    for _ in range(20):
        box.put("large", b"y" * 300)
    assert box.total_bytes <= 1000
    assert ("small", b"x" * 10) in take_all(box)


def test_a_message_larger_than_the_box_is_dropped_and_leaves_the_others():
    box = Mailbox(100, 1000)
    box.put("small", b"x")
    box.put("large", b"y" * 1001)
    assert (len(box), box.dropped) == (1, 1)


def test_topics_without_number_share_a_lane(monkeypatch):
    monkeypatch.setattr(mailbox, "MAX_LANES", 4)
    box = Mailbox(50, 1000)
    for i in range(1000):
        box.put(f"topic {i}", b"x")
    assert len(box._lanes) <= 5
    assert len(box) == 50


def test_an_empty_box_says_so():
    box = Mailbox(1, 1)
    assert not box
    with pytest.raises(IndexError):
        box.take()


@given(st.lists(st.one_of(st.none(), st.tuples(st.sampled_from("abc"), st.integers(0, 40))), max_size=200))
@settings(max_examples=60)
def test_counts_and_sizes_always_agree_with_what_is_inside(steps):
    box, put, taken = Mailbox(10, 100), 0, 0
    for step in steps:
        if step is None:
            if box:
                box.take()
                taken += 1
            continue
        box.put(step[0], bytes(step[1]))
        put += 1
        inside = [(t, d) for lane in box._lanes.values() for t, d in lane]
        assert len(box) == len(inside) <= 10
        assert box.total_bytes == sum(len(d) for _, d in inside) == sum(box._bytes.values()) <= 100
        assert put == taken + len(box) + box.dropped
