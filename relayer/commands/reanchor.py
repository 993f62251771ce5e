"""`relayer reanchor`: let an expired light client begin anew from another checkpoint, without losing or contradicting a recorded fact.

What is on record stays. The new checkpoint is believed because people say so, and even then only if the chain it leads to goes on from
the recorded facts: the vault's outbox head proven there has to fold from the recorded one, packet by packet.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chains.base import FAR, advance, bootstrap, collect, trace
from chains.registry import ChainConfig, build_chain
from messages.canonical import decode_canonical, encode_canonical
from messages.errors import Rejected, Unavailable
from relayer.anchors import TakenCheckpoint, get_checkpoints, record_checkpoints
from relayer.render import Answer, format_age, format_time, hex_of
from relayer.store import HeaderRecord, Store

if TYPE_CHECKING:
    from chains.base import Chain
    from messages.outbox import Cursor
    from relayer.config import Config

PEOPLE = 2
MAX_NAME, MAX_NOTE = 64, 1000
MAX_SETTINGS_BYTES = 8192


def reanchor(
    config: Config,
    chain: str,
    checkpoint: str,
    people: Sequence[str],
    note: str,
    now: int,
    *,
    height: int | None = None,
    sims: Mapping[str, Any] | None = None,
) -> Answer:
    """Begin anew from ``checkpoint``; nothing is written unless everything holds.

    Args:
        config: of a node that is stopped.
        chain: CAIP-2 name, or the part after the colon.
        checkpoint: 0x and 64 hex digits; of an Ethereum chain a finalized beacon block root, of a Cosmos chain a header's hash.
        people: who confirmed it, two different ones at least.
        note: where it is from; stays on record.
        now: unix seconds.
        height: of the checkpoint's header, where the chain's settings name it (``checkpoint_height``).
        sims: simulated networks by chain id, for "sim:" endpoints.

    Raises:
        Rejected: ``usage``, ``no_chain``, ``no_store``, ``in_use``, ``no_trusted`` (the client has not begun), ``still_fresh`` (it goes on by itself),
            ``behind`` (the checkpoint lies before what is recorded), ``wrong_checkpoint`` (the configured one is not that of the records).
        Unavailable: no endpoint gives a bootstrap that verifies, or one whose chain goes on from the recorded facts.
    """
    names = _verify_people(people)
    if not note.strip() or len(note) > MAX_NOTE:
        raise Rejected("say in --note where the checkpoint is from: it stays on record", reason="usage")
    if not re.fullmatch(r"0x[0-9a-f]{64}", checkpoint) or not int(checkpoint, 16):
        raise Rejected("a checkpoint is a block root: 0x and 64 lower-case hex digits", got=checkpoint, reason="usage")
    found = _find_chain(config, chain)
    if not config.store_path.is_file():
        raise Rejected(
            f"there is no store at {config.store_path}: write the checkpoint into relayer.toml and start the node",
            reason="no_store",
        )
    store = Store(config.store_path)
    try:
        wanted = _move(found, bytes.fromhex(checkpoint[2:]), height)
        return asyncio.run(_reanchor(store, found, wanted, names, note.strip(), now, sims))
    finally:
        store.close()


def _verify_people(people: Sequence[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(p.strip().casefold() for p in people if p.strip()))
    if len(names) < PEOPLE or any(len(n) > MAX_NAME for n in names):
        raise Rejected(
            "a checkpoint is believed on people's word alone: --person names two different ones who compared it",
            got=list(names),
            reason="usage",
        )
    return names


def _find_chain(config: Config, name: str) -> ChainConfig:
    for chain in config.chains:
        if name in (chain.chain_id, chain.chain_id.partition(":")[2]):
            return chain
    raise Rejected(
        "the configuration has no such chain",
        got=name,
        expected=", ".join(c.chain_id for c in config.chains),
        reason="no_chain",
    )


def _move(config: ChainConfig, checkpoint: bytes, height: int | None) -> ChainConfig:
    """The chain as it is to be configured from now on; Rejected (``usage``): the height is missing, or means nothing here."""
    settings = decode_canonical(config.settings.encode(), max_bytes=MAX_SETTINGS_BYTES)
    names_height = isinstance(settings, dict) and "checkpoint_height" in settings
    if names_height != (height is not None):
        raise Rejected(
            "this chain is asked for a header by its height: say with --height which one the checkpoint is of"
            if names_height
            else "a checkpoint of this chain is found by its root: --height means nothing here",
            got=height,
            reason="usage",
        )
    if isinstance(settings, dict) and names_height:
        settings = {**settings, "checkpoint_height": height}
    return dataclasses.replace(config, checkpoint=checkpoint, settings=encode_canonical(settings).decode())


async def _reanchor(
    store: Store,
    config: ChainConfig,
    wanted: ChainConfig,
    people: tuple[str, ...],
    note: str,
    now: int,
    sims: Mapping[str, Any] | None,
) -> Answer:
    present = build_chain(config, None, sims)
    chain = build_chain(wanted, None, sims)
    try:
        taken = _get_taken(store, present, config)
        old = _get_expired(store, present, now)
        claim, trusted, blames = await bootstrap(chain, now)
        store.record_blames(blames, now)
        began = chain.verifier.get_point(trusted)
        head = store.get_head(chain.vault_id)
        recorded = max(old.height, 0 if head is None else head.point.height)
        if began.height <= recorded:
            raise Rejected(
                "this checkpoint lies before what is recorded: a newer one is needed",
                got=f"block {began.height} of {format_time(began.time)}",
                expected=f"after block {recorded}",
                reason="behind",
            )
        headers = [
            HeaderRecord(began, "bootstrap", chain.codec.encode_bootstrap(claim), chain.codec.encode_trusted(trusted))
        ]
        # Endpoints prove recent blocks only: go on to the newest before asking for the vault.
        advanced = await advance(chain, trusted, now)
        for update, after in advanced.steps:
            trusted = after
            headers.append(
                HeaderRecord(
                    chain.verifier.get_point(after),
                    "update",
                    chain.codec.encode_update(update),
                    chain.codec.encode_trusted(after),
                )
            )
        cursor = store.get_cursor(chain.vault_id)
        from_height = config.start_height if head is None else head.point.height
        try:
            waiting = await _count_waiting(chain, trusted, cursor, from_height)
        except Unavailable as error:
            raise Unavailable(
                "the chain of this checkpoint does not prove what is recorded: either it is another chain than the node followed, or no"
                f" endpoint serves the packets since then; nothing was written ({error})",
                reason="not_continued",
            ) from error
    finally:
        for opened in (present, chain):
            close = getattr(opened.reader, "close", None)
            if close is not None:
                await close()
    entry = TakenCheckpoint(wanted.checkpoint, wanted.settings, began.height, now, people, note)
    with store.together():
        store.record_headers(chain.chain_id, headers)
        record_checkpoints(store, chain.chain_id, (*taken, entry))
    data = {
        "schema": "relayer/reanchor/1",
        "chain": chain.chain_id,
        "checkpoint": hex_of(wanted.checkpoint),
        "height": began.height,
        "time": began.time,
        "former_height": old.height,
        "newest_height": headers[-1].point.height,
        "facts_recorded": cursor.sequence,
        "facts_to_come": waiting,
        "people": list(people),
    }
    what = "this checkpoint" if config.settings == wanted.settings else "this checkpoint and its checkpoint_height"
    return Answer(
        data,
        [
            (
                f"The light client of {chain.chain_id} begins anew at block {began.height:,} of {format_time(began.time)} and is at block"
                f" {headers[-1].point.height:,} now; before it stood at {old.height:,}, {format_age(now - old.time)} ago."
            ),
            f"The chain goes on from the {cursor.sequence:,} facts on record; {waiting:,} wait there.",
            f"Next: write {what} into relayer.toml in place of the former one, and start the node.",
        ],
    )


async def _count_waiting(chain: Chain[Any, Any, Any, Any], trusted: Any, cursor: Cursor, from_height: int) -> int:
    """How many packets follow what is recorded, up to the proven head: all of them were folded, however many."""
    try:
        return len((await collect(chain, trusted, cursor, from_height)).facts)
    except Unavailable as error:
        if error.reason != FAR:
            raise
    traced = await trace(chain, trusted, cursor, from_height, lambda *_: None)
    return traced.head.sequence - cursor.sequence


def _get_taken(store: Store, chain: Chain[Any, Any, Any, Any], config: ChainConfig) -> tuple[TakenCheckpoint, ...]:
    """All beginnings until now. The first one is not written down before there is a second; the records themselves say whether it is ours.

    Raises:
        Rejected: ``no_trusted``; ``wrong_checkpoint``: relayer.toml names the new one already, so the former is unknown.
    """
    taken = get_checkpoints(store, chain.chain_id)
    if taken:
        return taken
    first = next(iter(store.iterate_headers(chain.chain_id)), None)
    if first is None:
        raise Rejected(
            "this light client has not begun: write the checkpoint into relayer.toml and start the node",
            reason="no_trusted",
        )
    try:
        chain.verifier.verify_bootstrap(chain.codec.decode_bootstrap(first.claim), first.point.time)
    except Rejected as error:
        raise Rejected(
            "the configured checkpoint is not the one that the records began from: leave the former one in relayer.toml until this"
            f" command has succeeded ({error})",
            got=hex_of(config.checkpoint),
            reason="wrong_checkpoint",
        ) from error
    return (TakenCheckpoint(config.checkpoint, config.settings, first.point.height, 0, (), ""),)


def _get_expired(store: Store, chain: Chain[Any, Any, Any, Any], now: int) -> Any:
    """Where the light client stands.

    Raises:
        Rejected: it has not expired; reason ``still_fresh``.
    """
    known = store.get_trusted(chain.chain_id)
    if known is None:
        raise Rejected("no light-client state is on record: the store is damaged", reason="chain_broken")
    point, data = known
    if chain.verifier.is_fresh(chain.codec.decode_trusted(data), now):
        raise Rejected(
            "this light client is not too old: it goes on by itself, and by its own proofs. A checkpoint in its place would be"
            " people's word where none is needed",
            got=f"block {point.height} of {format_time(point.time)}",
            reason="still_fresh",
        )
    return point
