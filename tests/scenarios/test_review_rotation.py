"""What an operator set that nobody handed over can still do, seen from outside."""

from __future__ import annotations

import pytest

from chains.solana import rotation
from relayer.tasks import watch
from tests.scenarios.test_solana_rotation import (
    NEW_KEYS,
    ReadOnlyStore,
    Rotating,
    View,
    make_anchors,
    replay_store,
)


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_those_who_left_are_not_believed_on_where_nobody_proved_who_followed(tmp_path, monkeypatch, is_restarted):
    """The rotation is on record since long: facts without a rotation among them do not make its operators those of before again."""
    monkeypatch.setattr(rotation, "MAX_HANDOVER_LINKS", -1)
    async with Rotating(tmp_path) as net:
        net.start_joining()
        instant = await net.rotate(NEW_KEYS)
        assert net.get_trusted(2).handovers == ()
        if is_restarted:
            for i in list(net.services):
                await net.kill(i)
                net.start(i)
        await net.pass_to(instant + 60)
        net.deposit(500)
        await net.pass_time(60)
        assert {net.get_trusted(i).clock < instant for i in net.services} == {True}
        heads = [service.node.store.get_head(net.vault_id) for service in net.services.values()]
        assert {head.point.time < instant for head in heads} == {True}


async def test_an_archive_in_which_those_who_left_speak_on_is_refused(tmp_path, monkeypatch):
    """A node that believed them after the instant has records that prove nothing: an auditor has the rotation from earlier in the archive."""
    monkeypatch.setattr(rotation, "MAX_HANDOVER_LINKS", -1)
    async with Rotating(tmp_path) as net:
        net.start_joining()
        instant = await net.rotate(NEW_KEYS)
        monkeypatch.setattr(watch, "get_unfinished_rotations", believe)
        await net.pass_to(instant + 60)
        net.deposit(500)
        await net.pass_time(60)
        times = {i: service.node.store.get_head(net.vault_id).point.time for i, service in net.services.items()}
        fooled = max(times, key=lambda i: times[i])
        assert times[fooled] > instant, times
        for i in list(net.services):
            await net.kill(i)
        anchors = make_anchors(net, monkeypatch)
        store = ReadOnlyStore(tmp_path / f"node{fooled}.db")
        answer = replay_store(
            View(f"node{fooled}", store, net.parameters, net.clock.now()), anchors, None, is_full=False
        )
        store.close()
        assert answer.code != 0
        assert "no operators any more" in str(answer.data)


async def believe(node, chain):
    del node, chain
    return ()
