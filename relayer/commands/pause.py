"""`relayer pause`: one operator's signature stops a vault's deposits, trades and settlements, now.

It works beside a running node and needs no journal: a pause of an epoch is one statement that never contradicts another. The epoch
is asked from the chain, because facts are a quarter of an hour old and a pause has no time; the vault checks it anyhow.
"""

from __future__ import annotations

import asyncio
from typing import Any

from chains.base import Probe, VaultControl
from chains.registry import ChainConfig, build_probe
from messages.digests import compute_vault_id, get_address
from messages.errors import Rejected, RelayerError, Unavailable
from relayer.config import Config, get_key_path, read_password
from relayer.keys import Secret, load_key_file, sign_pause
from relayer.render import Answer, Table, hex_of


def pause(config: Config, chains: tuple[str, ...], *, is_confirmed: bool) -> Answer:
    """Sign a pause for the vaults of these chains and send it; exit code 1 where one was not handed over.

    Raises:
        Rejected: ``usage`` (not confirmed), ``no_chain``, or what is wrong with a key file.
    """
    chosen = [c for c in config.chains if not chains or {c.chain_id, c.chain_id.partition(":")[2]} & set(chains)]
    if not chosen or len(chosen) < len(chains):
        known = ", ".join(c.chain_id for c in config.chains)
        raise Rejected("there is no vault on such a chain", got=list(chains), expected=known, reason="no_chain")
    names = ", ".join(c.chain_id for c in chosen)
    if not is_confirmed:
        raise Rejected(
            f"this stops deposits, trades and settlement on {names} until a quorum unpauses and the delay is over; an operator"
            " has one pause per vault and epoch. Say --yes",
            reason="usage",
        )
    key = load_key_file(
        get_key_path(config.operator.key, config.path),
        read_password(config.operator.password, config.path),
        is_throwaway=config.operator.allow_throwaway_key,
    )
    results = asyncio.run(_pause_all(config, chosen, key))
    rows = [[r["chain"], r["state"], r["detail"]] for r in results]
    data = {
        "schema": "relayer/pause/1",
        "operator": hex_of(get_address(key.reveal())),
        "vaults": results,
    }
    is_good = all(r["state"] in ("sent", "paused_already") for r in results)
    lines: list[Table | str] = [Table("Pause", ("chain", "state", "detail"), rows)]
    lines.append("Sent is not done: `relayer status` shows a vault as paused once that is proven (about 15 minutes).")
    return Answer(data, lines, 0 if is_good else 1)


async def _pause_all(config: Config, chains: list[ChainConfig], key: Secret) -> list[dict[str, Any]]:
    return list(await asyncio.gather(*(_pause_one(config, chain, key) for chain in chains)))


async def _pause_one(config: Config, chain: ChainConfig, key: Secret) -> dict[str, Any]:
    result = {"chain": chain.chain_id, "state": "failed", "detail": "", "transaction": ""}
    submit: bytes | None = None
    try:
        reference = config.submit_keys.get(chain.chain_id)
        if reference is not None:
            submit = load_key_file(
                get_key_path(reference.key, config.path),
                read_password(reference.password, config.path),
                is_throwaway=config.operator.allow_throwaway_key,
            ).reveal()
        probe = build_probe(chain, submit)
        try:
            control = await _get_control(probe)
            if control.paused:
                return result | {"state": "paused_already", "detail": f"epoch {control.epoch}"}
            vault_id = compute_vault_id(chain.chain_id, chain.vault_account)
            transaction = await probe.prepare_pause(sign_pause(key, vault_id, control.epoch))
            assert probe.submitter is not None  # the transaction is its work
            identifier = await probe.submitter.send(transaction)
        finally:
            await probe.close()
    except RelayerError as error:
        return result | {"detail": f"{error} [{error.reason}]"}
    return result | {"state": "sent", "detail": f"epoch {control.epoch}, {identifier}", "transaction": identifier}


async def _get_control(probe: Probe) -> VaultControl:
    """The first answer of an endpoint on the right chain."""
    last: RelayerError | None = None
    for source in probe.sources:
        try:
            await probe.verify_chain_id(source)
            return await probe.get_control(source)
        except RelayerError as error:
            last = error
    raise Unavailable(f"no endpoint tells the epoch of the vault: {last}", reason="no_endpoint")
