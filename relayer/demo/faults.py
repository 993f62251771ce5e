"""What goes wrong in `relayer demo --faults`; the story must end in the same balances.

One endpoint withholds, one forges, a chain reorgs before finality, an operator dies, a node is killed and restarted, the broker drops,
duplicates, holds back and replays.
"""

from __future__ import annotations

from relayer.demo.world import World
from relayer.gossip import Faults

BUS_FAULTS = Faults(drop=40, duplicate=200, hold=200, replay=100)
"""In parts per thousand of deliveries."""

DEAD_OPERATOR = 3
KILLED_OPERATOR = 1


def spoil_endpoints(world: World) -> list[str]:
    """The first endpoint of every chain lies from now on: one withholds logs, the other forges them; returns what was done."""
    done = []
    for number, site in enumerate(world.sites.values()):
        endpoint = site.network.endpoints[0]
        if number % 2 == 0:
            endpoint.lies.drop_log_every = 2
            done.append(f"{endpoint.name} withholds every second packet")
        else:
            endpoint.lies.forge_logs = True
            done.append(f"{endpoint.name} changes one byte of each packet")
    return done


def reorg_once(world: World) -> str:
    """Replace the newest, unfinalized block of the first chain; its transactions go back to the pool."""
    site = next(iter(world.sites.values()))
    gone = site.network.reorg(1)
    return f"chain {site.name} replaced block {gone[0].number} before finality"
