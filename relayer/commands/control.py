"""What operators decide together: a next set of parameters with control changes in it, read, signed and verified (protocol.md 8.5).

A control change is a body of kind 35, 36 or 37 in the parameters; once m operators signed a set and it took effect, the plans
carry the change to the vaults until the facts show it. Nothing here sends anything; only `relayer pause` does.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from messages.bodies import WIDEST_LIMITS, InboxBody, RotateOperators, SetCaps, Unpause, decode_inbox_body, encode_body
from messages.digests import recover_signer, verify_operators
from messages.documents import ControlParameters, Parameters, compute_digest, decode_document, encode_document
from messages.errors import Rejected
from messages.ids import encode_name
from relayer.commands.view import open_view
from relayer.commands.words import get_text
from relayer.config import Config, get_key_path, load_config, load_parameters, read_password
from relayer.render import Answer, Table, format_age, format_amount, format_time, hex_of
from relayer.rules.margin.tiers import verify_tiers
from relayer.rules.quorum import Committee, compute_parameters_statement
from relayer.rules.statements import SignedParameters
from relayer.rules.vault_state import Caps, VaultState, get_initial_state, get_state_at, get_vault_id
from relayer.toml_writer import encode_parameters

MAX_SIGNATURES_BYTES = 65_536
MAX_TARGET_BYTES = 65_536
COMFORT_S = 7200
"""Less than this between the earliest and the latest moment at which a rotation can be accepted: a warning."""


# ---- where things stand -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """What a node knows when something is decided: its parameters in force, every vault by its facts, the set in force."""

    parameters: Parameters
    states: Mapping[bytes, VaultState]
    committee: Committee
    is_recorded: bool

    def get_chain(self, vault_id: bytes) -> str:
        """The CAIP-2 name of a vault's chain."""
        return next(v.chain for v in self.parameters.vaults if get_vault_id(v) == vault_id)

    def find_vaults(self, chain: str | None) -> tuple[bytes, ...]:
        """The vault of a chain (name or number), or all of them.

        Raises:
            Rejected: no such chain; reason ``no_chain``.
        """
        found = [v for v in self.parameters.vaults if chain in (None, v.chain, v.chain.partition(":")[2])]
        if not found:
            names = ", ".join(v.chain for v in self.parameters.vaults)
            raise Rejected("there is no vault on this chain", got=chain, expected=names, reason="no_chain")
        return tuple(get_vault_id(v) for v in sorted(found, key=lambda v: v.chain))


def get_standing(parameters: Parameters, states: Mapping[bytes, VaultState], now: int) -> Standing:
    """Standing at ``now`` from folded states; where there are none, the vaults as they were created."""
    from messages.digests import compute_committee_id

    known = {v: states[v] if v in states else get_initial_state(p) for v, p in _by_id(parameters).items()}
    present = {v: get_state_at(s, max(now, s.last_stamp)) for v, s in known.items()}
    newest = max(present.values(), key=lambda s: s.operator_epoch)
    committee = Committee(
        compute_committee_id(sorted(present)), newest.operator_epoch, newest.operators, newest.threshold
    )
    return Standing(parameters, present, committee, bool(states))


def _by_id(parameters: Parameters) -> dict[bytes, Any]:
    return {get_vault_id(v): v for v in parameters.vaults}


def read_standing(config: Config, now: int) -> Standing:
    """From a node's records; the vaults as created where it has none yet."""
    from relayer.commands.view import Loaded

    if not config.store_path.is_file():
        return get_standing(config.parameters, {}, now)
    with open_view(Loaded(config.name, config.store_path, config.parameters, {})) as view:
        return get_standing(config.parameters, view.newest_states, now)


# ---- the next set -------------------------------------------------------------------------------------------------------


def make_next(standing: Standing, controls: Sequence[tuple[bytes, InboxBody]], effective: int, now: int) -> Parameters:
    """The next version: the present one, its control changes that still have to happen, and new ones in place of like ones.

    Args:
        standing: now.
        controls: (vault id, body), each replaces one of its kind (and asset) at its vault.
        effective: unix seconds from which nodes use it.
        now: unix seconds.

    Raises:
        Rejected: ``too_early`` (not after now and after the present version's instant).
    """
    present = standing.parameters
    if effective <= max(now, present.effective):
        raise Rejected(
            "the next parameters take effect in the future: every operator has to sign and install them first",
            got=format_time(effective),
            expected=f"after {format_time(max(now, present.effective))}",
            reason="too_early",
        )
    replaced = {_get_slot(vault_id, body) for vault_id, body in controls}
    kept = [
        c
        for c in present.controls
        if _get_slot(c.vault_id, _decode(c)) not in replaced
        and is_still_to_do(standing.states[c.vault_id], _decode(c), now, present.effective)
    ]
    added = [ControlParameters(vault_id, encode_body(body)) for vault_id, body in controls]
    return dataclasses.replace(present, version=present.version + 1, effective=effective, controls=(*kept, *added))


def is_still_to_do(state: VaultState, body: InboxBody, now: int, effective: int) -> bool:
    """Whether the facts do not show a control change of a set from ``effective`` yet, neither in force nor pending.

    What is done leaves the next version: there an old Unpause would end every pause of before the new instant.
    """
    if isinstance(body, RotateOperators):
        return body.epoch == state.operator_epoch + 1 and state.pending_operators is None and body.effective > now
    if isinstance(body, SetCaps):
        pending = state.pending_caps.get(body.asset)
        target = pending.caps if pending is not None else state.caps.get(body.asset)
        return target != Caps(body.per_packet, body.per_hour, body.per_day)
    return isinstance(body, Unpause) and state.paused and state.paused_at < effective and state.pending_unpause is None


def _decode(control: ControlParameters) -> InboxBody:
    return decode_inbox_body(control.value, WIDEST_LIMITS)


def _get_slot(vault_id: bytes, body: InboxBody) -> tuple[bytes, int, bytes]:
    return vault_id, body.KIND, body.asset if isinstance(body, SetCaps) else b""


@dataclass(frozen=True)
class Target:
    """A future operator set; treasurers by chain where they change (32 bytes)."""

    operators: tuple[bytes, ...]
    threshold: int
    treasurers: Mapping[str, bytes]


def read_target(path: Path) -> Target:
    """A file with ``operators`` (0x addresses, any order), ``threshold`` and, if they change, ``[treasurers]`` by chain.

    Raises:
        Rejected: ``no_file``, ``bad_target``, ``bad_operators``.
    """
    if not path.is_file() or path.stat().st_size > MAX_TARGET_BYTES:
        raise Rejected(f"there is no usable file {path}", reason="no_file")
    try:
        raw = tomllib.loads(path.read_text())
        operators = tuple(sorted(_read_address(text) for text in raw.pop("operators")))
        threshold = raw.pop("threshold")
        treasurers = {str(c): bytes(12) + _read_address(t) for c, t in raw.pop("treasurers", {}).items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise Rejected(
            f"{path.name} names the new set with operators = [addresses], threshold = m and, if they change, [treasurers]",
            got=str(error),
            reason="bad_target",
        ) from None
    if raw or type(threshold) is not int:
        raise Rejected(f"{path.name} has keys or values that mean nothing", got=sorted(raw), reason="bad_target")
    verify_operators(operators, threshold)
    return Target(operators, threshold, treasurers)


def _read_address(text: object) -> bytes:
    if not isinstance(text, str) or not text.startswith("0x") or len(text) != 42:
        raise ValueError(f"{text!r} is no address: 0x and 40 hex digits")
    return bytes.fromhex(text[2:])


def make_rotation(standing: Standing, target: Target, instant: int, effective: int, now: int) -> Parameters:
    """The next version with one rotation for every vault, all at one instant (protocol.md 8.5).

    Raises:
        Rejected: ``pending_rotation`` (one is under way), ``epochs`` (vaults do not have one epoch), ``no_chain``,
            ``too_soon`` (some vault could not accept it in time), or as `make_next`.
    """
    epochs = {s.operator_epoch for s in standing.states.values()}
    if len(epochs) > 1:
        raise Rejected("the vaults do not have one epoch: settle that first", got=sorted(epochs), reason="epochs")
    busy = [standing.get_chain(v) for v, s in standing.states.items() if s.pending_operators is not None]
    if busy:
        raise Rejected("a rotation is pending already: wait for its instant", got=busy, reason="pending_rotation")
    unknown = set(target.treasurers) - {v.chain for v in standing.parameters.vaults}
    if unknown:
        raise Rejected("the file names treasurers of chains without a vault", got=sorted(unknown), reason="no_chain")
    earliest = get_earliest_rotation(standing, effective)
    if instant < earliest:
        raise Rejected(
            "no vault would accept a rotation so soon: it needs the delay and a packet's lifetime after the parameters take effect",
            got=format_time(instant),
            expected=f">= {format_time(earliest)}, better some hours more",
            reason="too_soon",
        )
    controls: list[tuple[bytes, InboxBody]] = []
    for vault_id, state in sorted(standing.states.items()):
        treasurer = target.treasurers.get(standing.get_chain(vault_id), state.treasurer)
        controls.append(
            (
                vault_id,
                RotateOperators(state.operator_epoch + 1, target.threshold, instant, treasurer, target.operators),
            )
        )
    return make_next(standing, controls, effective, now)


def get_earliest_rotation(standing: Standing, effective: int) -> int:
    """The first instant that a packet planned when the parameters take effect could still name at every vault."""
    lifetimes = {f.family: f.timeout_s for f in standing.parameters.families}
    return max(effective + v.delay_s + lifetimes.get(v.family, 0) for v in standing.parameters.vaults)


def make_caps(standing: Standing, chain: str, asset: bytes, caps: Caps, effective: int, now: int) -> Parameters:
    """The next version with new caps of one asset at one vault.

    Raises:
        Rejected: ``no_chain``, ``caps`` (not 0 < packet <= hour <= day < 2^96), or as `make_next`.
    """
    if not 0 < caps.per_packet <= caps.per_hour <= caps.per_day < 2**96:
        raise Rejected("caps rise from packet to hour to day and are more than 0", got=caps, reason="caps")
    (vault_id,) = standing.find_vaults(chain)
    body = SetCaps(asset, caps.per_packet, caps.per_hour, caps.per_day)
    return make_next(standing, [(vault_id, body)], effective, now)


def make_unpause(standing: Standing, chain: str | None, effective: int, now: int) -> Parameters:
    """The next version with an Unpause for the paused vaults.

    Raises:
        Rejected: ``not_paused`` (none of them is, as far as facts on record say), or as `make_next`.
    """
    paused = [v for v in standing.find_vaults(chain) if standing.states[v].paused]
    if not paused:
        raise Rejected("no vault here is paused, as far as the facts on record say", reason="not_paused")
    return make_next(standing, [(v, Unpause()) for v in paused], effective, now)


# ---- files --------------------------------------------------------------------------------------------------------------


def write_next(standing: Standing, parameters: Parameters, out: Path, config: Config, now: int) -> Answer:
    """Write the next version to a new file, read it back, and say what has to be done with it."""
    try:
        handle = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise Rejected(f"there is a file {out} already: nothing was written", reason="file_exists") from None
    with os.fdopen(handle, "w") as file:
        file.write(encode_parameters(parameters))
    if load_parameters(out) != parameters:
        raise RuntimeError("the written parameters are read back differently")
    data = {"schema": "relayer/parameters/1", "file": str(out)} | describe(standing, parameters, now)
    digest = hex_of(compute_digest(parameters))
    lines = [
        f"{out}: version {parameters.version}, in force from {format_time(parameters.effective)}, digest {digest}",
        *data["controls"],
        *data["warnings"],
        "",
        "Next: give this file to every operator. Each reads it (relayer parameters show), compares the digest with the others",
        f"by voice, and signs: relayer parameters sign {out.name} --digest {digest} -c {config.path.name}",
        "With m signatures, name both files in relayer.toml (next_parameters, next_parameter_signatures) and restart before then.",
    ]
    return Answer(data, lines)


def describe(standing: Standing, parameters: Parameters, now: int) -> dict[str, Any]:
    """A set in words and numbers: digest, what its control changes do, how it differs from the present one."""
    controls = [f"{standing.get_chain(c.vault_id)}: {_say(_decode(c))}" for c in parameters.controls]
    changed = [
        f.name
        for f in dataclasses.fields(parameters)
        if getattr(parameters, f.name) != getattr(standing.parameters, f.name)
    ]
    return {
        "version": parameters.version,
        "effective": parameters.effective,
        "digest": hex_of(compute_digest(parameters)),
        "controls": controls,
        "tiers": _say_tiers(parameters),
        "changed": changed,
        "warnings": _get_warnings(standing, parameters, now),
    }


def _say_tiers(parameters: Parameters) -> dict[str, str]:
    """What facts of each trust tier count for under a set, defaults of the rules included; by level."""
    out: dict[str, str] = {}
    if not parameters.classes:
        return out
    currency = parameters.classes[0]
    for level, terms in verify_tiers(parameters.tiers, currency.decimals).items():
        limit = "any value"
        if terms.value_limit is not None:
            units = int(terms.value_limit * 10**currency.decimals)
            limit = f"at most {format_amount(units, currency.decimals, get_text(currency.quote_class))}"
        out[str(level)] = (
            f"lose {terms.haircut_ppm / 10_000:g} % and {terms.haircut_ppm_per_hour / 10_000:g} % per hour, weigh"
            f" {terms.weight_ppm / 10_000:g} % and {terms.weight_ppm_per_hour / 10_000:g} % per hour, carry {limit}"
        )
    return out


def _say(body: InboxBody) -> str:
    if isinstance(body, RotateOperators):
        operators = " ".join(hex_of(o) for o in body.operators)
        return (
            f"epoch {body.epoch} from {format_time(body.effective)}: {body.threshold} of {len(body.operators)}, treasurer"
            f" {hex_of(body.treasurer[12:])}, operators {operators}"
        )
    if isinstance(body, SetCaps):
        return f"caps of 0x{body.asset.hex()}: {body.per_packet} / {body.per_hour} / {body.per_day} base units per packet, hour, day"
    return "unpause" if isinstance(body, Unpause) else f"kind {body.KIND}, which is no control change"


def _get_warnings(standing: Standing, parameters: Parameters, now: int) -> list[str]:
    warnings = []
    bodies = [(c.vault_id, _decode(c)) for c in parameters.controls]
    instants = {b.effective for _, b in bodies if isinstance(b, RotateOperators)}
    rotated = {v for v, b in bodies if isinstance(b, RotateOperators)}
    if rotated and (rotated != set(standing.states) or len(instants) != 1):
        warnings.append("WARNING: the rotation does not name every vault with one instant: do not sign this")
    for instant in sorted(instants):
        room = instant - get_earliest_rotation(standing, max(parameters.effective, now))
        if room < COMFORT_S:
            warnings.append(
                f"WARNING: vaults have only {format_age(max(0, room))} to accept the rotation; better some hours"
            )
    for vault_id, body in bodies:
        if isinstance(body, Unpause):
            state = standing.states[vault_id]
            if not state.paused:
                warnings.append(
                    f"Mind: {standing.get_chain(vault_id)} is not paused; this would end a pause of before its instant"
                )
        elif not isinstance(body, RotateOperators | SetCaps):
            warnings.append("WARNING: a control change that is none: no node would use this set")
    if not standing.is_recorded:
        warnings.append("Mind: this node has no records yet; the vaults are taken as they were created")
    return warnings


def show_parameters(config_path: Path, file: Path | None, now: int) -> Answer:
    """A parameters file in words: what a person reads before signing. Without a file the present one."""
    config = load_config(config_path).at(now)
    standing = read_standing(config, now)
    path = config.parameters_path if file is None else file
    parameters = load_parameters(path)
    data = {"schema": "relayer/parameters/1", "file": str(path)} | describe(standing, parameters, now)
    signed = read_signatures(get_signatures_path(path))
    signers = get_signers(signed, parameters, standing.committee)
    data["signed_by"] = [hex_of(s) for s in signers]
    rows = [["version", str(parameters.version)]]
    rows.append(["in force from", format_time(parameters.effective)])
    rows.append(["digest", data["digest"]])
    rows.append(["differs from the present ones in", ", ".join(data["changed"]) or "nothing"])
    rows.append(["price signers", f"{parameters.price_threshold} of {len(parameters.price_signers)}"])
    for tier, text in data["tiers"].items():
        rows.append([f"facts of tier {tier}", text])
    rows.append(["signed by", f"{len(signers)} of {standing.committee.threshold} needed"])
    rows += [["control change", c] for c in data["controls"]]
    return Answer(data, [Table(str(path), ("what", "is"), rows), *data["warnings"]])


# ---- signatures ---------------------------------------------------------------------------------------------------------


def get_signatures_path(path: Path) -> Path:
    """Where signatures of a parameters file stand by default: beside it."""
    return path.with_name(path.stem + ".signed.json")


def read_signatures(path: Path) -> SignedParameters | None:
    """A signatures file; None where there is none.

    Raises:
        Rejected: ``malformed`` or ``size``.
    """
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_SIGNATURES_BYTES:
        raise Rejected(f"{path} is too large", got=path.stat().st_size, reason="size")
    return decode_document(SignedParameters, path.read_bytes().strip(), max_bytes=MAX_SIGNATURES_BYTES)


def get_signers(signed: SignedParameters | None, parameters: Parameters, committee: Committee) -> tuple[bytes, ...]:
    """Operators of the set whose signatures over these parameters are in a file; signatures of others are passed over."""
    digest = compute_digest(parameters)
    if signed is None or signed.digest != digest:
        return ()
    statement = compute_parameters_statement(committee, digest)
    found = set()
    for signature in signed.signatures[: len(committee.operators)]:
        try:
            found.add(recover_signer(statement, signature))
        except Rejected:
            continue
    return tuple(sorted(found & set(committee.operators)))


def write_signatures(path: Path, parameters: Parameters, committee: Committee, signatures: Sequence[bytes]) -> int:
    """Write the good ones of these signatures, one per operator by address, in one step; how many there are.

    Raises:
        Rejected: ``not_operator`` where none is good.
    """
    digest = compute_digest(parameters)
    statement = compute_parameters_statement(committee, digest)
    by_signer: dict[bytes, bytes] = {}
    for signature in signatures:
        try:
            signer = recover_signer(statement, signature)
        except Rejected:
            continue
        if signer in committee.operators:
            by_signer.setdefault(signer, signature)
    if not by_signer:
        raise Rejected("no signature here is of an operator of the set in force", reason="not_operator")
    document = SignedParameters(digest, tuple(by_signer[s] for s in sorted(by_signer)))
    half = path.with_name(path.name + ".new")
    half.write_bytes(encode_document(document) + b"\n")
    half.replace(path)
    return len(by_signer)


def sign_parameters(config_path: Path, file: Path, digest_text: str | None, out: Path | None, now: int) -> Answer:
    """Add this operator's signature over a set, once per version (its journal remembers).

    Raises:
        Rejected: ``usage`` (the digest was not repeated), ``no_journal``, ``in_use`` (the node runs: stop it for this moment),
            ``other_digest`` (the signatures beside it are of another set), ``vaults``, ``not_operator``, ``quarantine``,
            ``wrong_rotation``. Conflict: this key has signed another set under this version; reason ``signed_otherwise``.
    """
    from relayer.keys import Journal, Signer, load_key_file
    from relayer.service import QUARANTINE_MARGIN_S

    config = load_config(config_path).at(now)
    standing = read_standing(config, now)
    parameters = load_parameters(file)
    digest = hex_of(compute_digest(parameters))
    if digest_text is None or digest_text.lower() != digest:
        raise Rejected(
            f"read it first (relayer parameters show {file}), compare its digest with the other operators, and repeat it here:"
            f" --digest {digest}",
            got=digest_text,
            reason="usage",
        )
    verify_signable(standing, parameters)
    if not config.journal_path.is_file():
        raise Rejected(
            f"there is no journal at {config.journal_path}: relayer keys first-journal makes that of a fresh key",
            reason="no_journal",
        )
    key = load_key_file(
        get_key_path(config.operator.key, config.path),
        read_password(config.operator.password, config.path),
        is_throwaway=config.operator.allow_throwaway_key,
    )
    path = out or get_signatures_path(file)
    known = read_signatures(path)
    if known is not None and hex_of(known.digest) != digest:
        raise Rejected(
            f"{path} holds signatures of another set: move it away",
            got=hex_of(known.digest),
            expected=digest,
            reason="other_digest",
        )
    longest_s = max(f.timeout_s for f in parameters.families)
    journal = Journal(config.journal_path, now, longest_s + QUARANTINE_MARGIN_S)
    try:
        signer = Signer(key, journal, standing.committee.id)
        if signer.operator not in standing.committee.operators:
            raise Rejected(
                "this key is no operator of the set in force: its signature would count for nothing",
                got=hex_of(signer.operator),
                reason="not_operator",
            )
        signature = signer.sign_parameters(parameters, standing.committee)
    finally:
        journal.close()
    earlier = () if known is None else known.signatures
    count = write_signatures(path, parameters, standing.committee, (*earlier, signature))
    return _answer_signed(path, parameters, count, standing.committee)


def verify_signable(standing: Standing, parameters: Parameters) -> None:
    """Refuse to sign what no honest operator wants: other vaults, a version that is none, a rotation that is not one for all.

    Raises:
        Rejected: ``vaults``, ``old_version``, ``wrong_rotation``, ``bad_parameters``.
    """
    if set(_by_id(parameters)) != set(standing.states):
        raise Rejected("this set is about other vaults than this node's", reason="vaults")
    present = standing.parameters
    is_same = parameters.version == present.version and compute_digest(parameters) == compute_digest(present)
    if parameters.version <= present.version and not is_same:
        raise Rejected(
            "this version is over", got=parameters.version, expected=f"> {present.version}", reason="old_version"
        )
    bodies = [(c.vault_id, _decode(c)) for c in parameters.controls]
    if any(not isinstance(b, RotateOperators | SetCaps | Unpause) for _, b in bodies):
        raise Rejected("a control change that is none", reason="bad_parameters")
    rotations = [(v, b) for v, b in bodies if isinstance(b, RotateOperators)]
    wanted = {(b.epoch, b.threshold, b.effective, b.operators) for _, b in rotations}
    if rotations and (len(wanted) != 1 or sorted(v for v, _ in rotations) != sorted(standing.states)):
        raise Rejected("a rotation is one set at one instant for every vault", reason="wrong_rotation")
    for _, body in rotations:
        verify_operators(body.operators, body.threshold)


def merge_signatures(config_path: Path, file: Path, sources: Sequence[Path], out: Path | None, now: int) -> Answer:
    """Put the signatures of several files over one set together.

    Raises:
        Rejected: ``no_file``, ``other_digest``, ``not_operator``, ``malformed``.
    """
    config = load_config(config_path).at(now)
    standing = read_standing(config, now)
    parameters = load_parameters(file)
    digest = compute_digest(parameters)
    path = out or get_signatures_path(file)
    signatures: list[bytes] = []
    for source in dict.fromkeys((*sources, *([path] if path.is_file() else []))):
        found = read_signatures(source)
        if found is None:
            raise Rejected(f"there is no file {source}", reason="no_file")
        if found.digest != digest:
            raise Rejected(
                f"{source} holds signatures of another set", got=found.digest, expected=digest, reason="other_digest"
            )
        signatures += found.signatures
    count = write_signatures(path, parameters, standing.committee, signatures)
    return _answer_signed(path, parameters, count, standing.committee)


def _answer_signed(path: Path, parameters: Parameters, count: int, committee: Committee) -> Answer:
    is_enough = count >= committee.threshold
    data = {
        "schema": "relayer/signed-parameters/1",
        "file": str(path),
        "version": parameters.version,
        "digest": hex_of(compute_digest(parameters)),
        "signatures": count,
        "needed": committee.threshold,
        "is_enough": is_enough,
    }
    line = f"{path}: {count} of {committee.threshold} signatures over version {parameters.version}"
    return Answer(data, [line + (": enough." if is_enough else "; give it to the next operator.")])


def verify_signed(config_path: Path, file: Path, signatures: Path | None, now: int) -> Answer:
    """Who signed a set, and whether a node would use it; exit code 1 where it would not. Version 1 may be in use by its digest alone."""
    config = load_config(config_path).at(now)
    standing = read_standing(config, now)
    parameters = load_parameters(file)
    path = signatures or get_signatures_path(file)
    signed = read_signatures(path)
    if signed is not None and signed.digest != compute_digest(parameters):
        raise Rejected(
            f"{path} holds signatures of another set",
            got=signed.digest,
            expected=compute_digest(parameters),
            reason="other_digest",
        )
    signers = get_signers(signed, parameters, standing.committee)
    missing = [o for o in standing.committee.operators if o not in signers]
    is_genesis = parameters.version == 1 and config.genesis_digest == compute_digest(parameters)
    is_enough = is_genesis or len(signers) >= standing.committee.threshold
    data = {
        "schema": "relayer/signed-parameters/1",
        "file": str(file),
        "version": parameters.version,
        "is_genesis": is_genesis,
        "digest": hex_of(compute_digest(parameters)),
        "effective": parameters.effective,
        "is_effective": now >= parameters.effective,
        "signed_by": [hex_of(s) for s in signers],
        "missing": [hex_of(o) for o in missing],
        "needed": standing.committee.threshold,
        "is_enough": is_enough,
    }
    rows = [[hex_of(o), "signed" if o in signers else "-"] for o in standing.committee.operators]
    words = "enough" if is_enough else "NOT enough: no node uses them"
    if is_genesis:
        words = "relayer.toml names this version by its digest (genesis_parameters), so none is"
    parts: list[Table | str] = [
        Table(f"Version {parameters.version}, {data['digest']}", ("operator", "signature"), rows),
        f"{len(signers)} of {standing.committee.threshold} needed: {words}. In force from {format_time(parameters.effective)}.",
    ]
    return Answer(data, parts, 0 if is_enough else 1)


# ---- arguments ----------------------------------------------------------------------------------------------------------


def read_time(text: str) -> int:
    """Unix seconds of "1790000000" or "2026-12-24T18:00Z" (also with a blank, with seconds, or with an offset).

    Raises:
        Rejected: neither; reason ``usage``.
    """
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Rejected(
            "a time is unix seconds, or a date and time with its zone",
            got=text,
            expected="2026-12-24T18:00Z",
            reason="usage",
        )
    return int(moment.astimezone(UTC).timestamp())


def read_amount(text: str, decimals: int) -> int:
    """Base units of a decimal amount in whole units of an asset; Rejected (``usage``) for anything inexact."""
    bare = text.replace("_", "")
    whole, _, fraction = bare.partition(".")
    if not re.fullmatch(r"[0-9]{1,40}(\.[0-9]+)?", bare) or len(fraction) > decimals:
        raise Rejected("an amount in units of the asset", got=text, expected=f"up to {decimals} places", reason="usage")
    return int(whole + fraction.ljust(decimals, "0"))


def find_asset(standing: Standing, vault_id: bytes, name: str) -> tuple[bytes, int]:
    """(asset id, decimals) of an asset at a vault, by its class name or its address; Rejected ``no_asset``."""
    at_vault = [a for a in standing.parameters.assets if a.vault_id == vault_id]
    for a in at_vault:
        if name.lower() in (hex_of(a.asset), hex_of(a.asset[12:])) or encode_name(name[:32]) == a.quote_class:
            return a.asset, a.decimals
    known = ", ".join(hex_of(a.asset[12:]) for a in at_vault)
    raise Rejected("the parameters name no such asset at this vault", got=name, expected=known, reason="no_asset")
