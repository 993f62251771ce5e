"""What an operator set that nobody handed over can still do, seen from outside."""

from __future__ import annotations

import pytest

from chains.solana import rotation
from tests.scenarios.test_solana_rotation import NEW_KEYS, Rotating


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_those_who_left_are_not_believed_on_where_nobody_proved_who_followed(tmp_path, monkeypatch, is_restarted):
    """The rotation is on record since long: facts without a rotation among them do not make its operators those of before again."""
    monkeypatch.setattr(rotation, "MAX_HANDOVER_LINKS", -1)
    async with Rotating(tmp_path) as net:
        for i in (4, 5):
            net.start(i)
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
