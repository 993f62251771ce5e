"""What an endpoint of Solana can do to a node that goes a long way through its list."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from chains.solana import history
from chains.solana.history import VaultHistory
from chains.solana.rpc_json import Listed
from messages.errors import Unavailable


class Endless:
    """A list with a page behind every page, each of them just in time."""

    rules = SimpleNamespace(vault=bytes(32))

    def __init__(self, pages=10**9):
        self.pages = pages
        self.given = 0

    async def list_transactions(self, source, vault, *, before, until, limit):
        del source, vault, before, until, limit
        await asyncio.sleep(0.01)
        if self.given == self.pages:
            return ()
        self.given += 1
        return (Listed(f"{self.given}", 10**9 - self.given, True),)


def make_history(client):
    return VaultHistory(client, "one", timeout_s=0.03)


async def go(told):
    async for _ in told.go_through(0, 1, 0):
        pass


async def test_pages_that_each_come_just_in_time_do_not_come_for_ever(monkeypatch):
    monkeypatch.setattr(history, "PATIENCE_PER_PACKET_S", 0.05)
    monkeypatch.setattr(history, "MAX_PAGES", 300)
    endless = Endless()
    with pytest.raises(Unavailable) as late:  # the next source is asked
        await go(make_history(endless))
    assert late.value.reason == "timeout"
    assert endless.given < 300


async def test_who_is_only_slow_is_given_more_time_the_next_time(monkeypatch):
    monkeypatch.setattr(history, "PATIENCE_PER_PACKET_S", 0.05)
    told, reasons = make_history(Endless()), []
    for _ in range(8):
        told._client.given, told._client.pages = 0, 60
        with pytest.raises(Unavailable) as error:
            await go(told)
        reasons.append(error.value.reason)
        if reasons[-1] != "timeout":
            break
    assert reasons[0] == "timeout"
    assert reasons[-1] == "packets_missing"  # the whole list was read: it holds none
