"""What goes wrong in `relayer demo --faults`; the story must end in the same balances.

One endpoint withholds, the others' first ones forge, a chain reorgs before finality, an operator signs two states of one vault and then dies, a
node is killed and restarted, the broker drops, duplicates, holds back and replays.
"""

from __future__ import annotations

from itertools import chain, repeat

from relayer.demo.world import World
from relayer.gossip import Faults

BUS_FAULTS = Faults(drop=40, duplicate=200, hold=200, replay=100)
"""In parts per thousand of deliveries."""

DEAD_OPERATOR = 3
KILLED_OPERATOR = 1


def spoil_endpoints(world: World) -> list[str]:
    """The first endpoint of every chain lies from now on: one withholds, the others forge; returns what was done."""
    kinds = chain(["withhold"], repeat("forge"))
    return [site.spoil_endpoint(kind) for site, kind in zip(world.sites.values(), kinds, strict=False)]


def reorg_once(world: World) -> str:
    """Replace the newest block of the first chain that has unfinalized ones; its transactions go back to the pool."""
    for site in world.sites.values():
        if (height := site.reorg()) is not None:
            return f"chain {site.name} replaced block {height} before finality"
    return "no chain here can be reorganised: each block is final at once"
