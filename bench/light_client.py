"""Light client: one finality update with a cached committee against the pairing alone; a bootstrap with 512 keys."""

from __future__ import annotations

import asyncio
import sys

from py_arkworks_bls12381 import GT, G1Point, Scalar

from bench.figures import Figure, measure_median, measure_pair
from bench.run import print_figures
from chains.evm import bls
from chains.evm.light_client import LightClientConfig, verify_bootstrap, verify_update
from chains.evm.sim import ManualClock, SimNetwork
from chains.registry import build_sim_chain

START = 1_800_000_000


def run(seconds: float) -> list[Figure]:
    """Figures of the light client."""
    clock = ManualClock(START)
    network = SimNetwork(31337, clock, n_endpoints=1)
    checkpoint = network.get_checkpoint()
    chain = build_sim_chain(network, bytes(19) + b"\x01", checkpoint=checkpoint)
    source = chain.reader.sources[0]
    bootstrap = asyncio.run(chain.reader.bootstrap(source))
    trusted = chain.verifier.verify_bootstrap(bootstrap, clock.now)
    network.mine()
    network.finalize()
    update = asyncio.run(chain.reader.update(source, trusted))
    if update is None:
        raise RuntimeError("the simulated network finalized nothing")
    config = LightClientConfig(network.schedule)
    now = clock.now

    # The pairing alone: e(pk, H(m)) e(-g1, sig) == 1 on points that are there already.
    key, message = Scalar(7), bls.hash_to_g2(b"bench")
    points = [G1Point() * key, -G1Point()], [message, message * key]

    def pair() -> None:
        if not GT.pairing_check(*points):
            raise RuntimeError("the pairing does not hold")

    verified, pairing, ratio = measure_pair(lambda: verify_update(trusted, update, now, config), pair, 200)

    # The simulated committee has few distinct keys; a real one has 512, so those are decompressed besides.
    keys = tuple((G1Point() * Scalar(i + 1)).to_compressed_bytes() for i in range(512))
    keys = tuple(bytes(k) for k in keys)

    def start() -> None:
        bls.get_committee_keys.cache_clear()
        bls.get_committee_keys(keys)
        verify_bootstrap(bootstrap, checkpoint, config, now)

    def hash_and_pair() -> None:
        if not GT.pairing_check(points[0], [bls.hash_to_g2(b"bench"), points[1][1]]):
            raise RuntimeError("the pairing does not hold")

    _, hashed, hashed_ratio = measure_pair(lambda: verify_update(trusted, update, now, config), hash_and_pair, 200)

    booted = measure_median(start, seconds)
    return [
        Figure("light client: finality update, 512 seats, cached committee", verified * 1e3, "ms"),
        Figure("light client: pairing alone", pairing * 1e3, "ms"),
        Figure("light client: update / pairing alone", ratio, "x", "<= 1.5", is_met=ratio <= 1.5),
        Figure("light client: hash to curve and pairing", hashed * 1e3, "ms"),
        Figure("light client: update / (hash to curve and pairing)", hashed_ratio, "x"),
        Figure("light client: bootstrap with 512 distinct keys", booted * 1e3, "ms", "< 60", is_met=booted < 0.06),
    ]


if __name__ == "__main__":
    print_figures(run(float(sys.argv[1])))
