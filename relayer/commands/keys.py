"""`relayer keys`: encrypted key files and the first journal of a fresh key. A private key is never shown, logged or taken in the clear.

Keys enter as keystore v3 files only; passwords by a prompt, `file:PATH` (mode 0600) or `fd:NUMBER`. Nothing is ever overwritten.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from messages.digests import get_address
from messages.errors import Rejected
from relayer.config import load_config, read_password
from relayer.keys import (
    MAX_KEY_FILE_BYTES,
    MIN_SCRYPT_N,
    Journal,
    Secret,
    create_key_file,
    generate_private_key,
    load_key_file,
)
from relayer.render import Answer, hex_of

MIN_PASSWORD_BYTES = 12
MAX_FOREIGN_SCRYPT_N = 2**20
MAX_FOREIGN_SCRYPT_R = 8
MAX_FOREIGN_SCRYPT_P = 16
MAX_FOREIGN_ITERATIONS = 10_000_000

FIRST_JOURNAL_TEXT = """\
The journal is the memory of a key: everything it ever signed, so that it never says two different things. A node whose
journal is missing signs nothing until every packet it might have signed is dead. Only you can know that a key is fresh: if it
has signed anything anywhere, even on another machine, say no, start the node as it is and wait. To say yes, repeat the
address of the key: --never-signed {address}"""


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()


def ask_password(what: str, *, is_new: bool) -> Secret:
    """Ask a person, twice for a new password; nothing is shown.

    Raises:
        Rejected: nobody is there to ask, or a new password is too short; reason ``usage``.
    """
    import typer

    if not is_terminal():
        raise Rejected(
            f"{what} is needed: --password file:PATH (mode 0600) or fd:NUMBER, or run this on a terminal",
            reason="usage",
        )
    text = typer.prompt(what, hide_input=True, confirmation_prompt=is_new, err=True)
    return Secret(str(text).encode())


def get_password(reference: str | None, what: str, *, is_new: bool) -> Secret:
    """A password from its reference (relative to the working folder), or from a person.

    Raises:
        Rejected: ``usage``, ``bad_reference``, ``file_mode``, ``short_password`` (new ones need 12 bytes).
    """
    if reference is not None and not reference.startswith(("file:", "fd:")):
        raise Rejected(
            "a password is referred to by file:PATH or fd:NUMBER, never written into a command", reason="usage"
        )
    found = ask_password(what, is_new=is_new) if reference is None else read_password(reference, Path.cwd() / "x")
    if is_new and len(found.reveal()) < MIN_PASSWORD_BYTES:
        raise Rejected(f"a new password needs at least {MIN_PASSWORD_BYTES} bytes", reason="short_password")
    return found


def make_password_file(path: Path) -> Secret:
    """Write 32 random bytes as text to a new file of mode 0600, for a node that starts without a person.

    Raises:
        Rejected: the file is there; reason ``file_exists``.
    """
    text = secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Rejected(f"there is a file {path} already: nothing was written", reason="file_exists") from None
    with os.fdopen(handle, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return Secret(text.encode())


def make_key(
    path: Path,
    password: str | None,
    new_password_file: Path | None,
    *,
    is_throwaway: bool,
    get_key: Callable[[], Secret],
) -> Answer:
    """Write a key that ``get_key`` makes or opens, encrypted, to a new file."""
    if password is not None and new_password_file is not None:
        raise Rejected("--password and --new-password-file exclude each other", reason="usage")
    if path.exists():
        raise Rejected(f"there is a key file at {path} already: nothing was written", reason="key_file")
    private_key = get_key()
    if new_password_file is not None:
        secret = make_password_file(new_password_file)
    else:
        secret = get_password(password, f"Password for {path.name}", is_new=True)
    address = create_key_file(path, private_key, secret, is_throwaway=is_throwaway)
    data = {
        "schema": "relayer/keys/1",
        "file": str(path),
        "address": hex_of(address),
        "password_file": "" if new_password_file is None else str(new_password_file),
        "is_throwaway": is_throwaway,
    }
    parts = [
        f"{hex_of(address)}",
        f"is in {path} (keystore v3, mode 0600). Keep a copy of it and of its password apart.",
    ]
    if is_throwaway:
        parts.append("A throw-away key: its password guards nothing. Never give it anything of worth.")
    return Answer(data, parts)


def new_key(path: Path, password: str | None, new_password_file: Path | None, *, is_throwaway: bool) -> Answer:
    """A fresh key from the operating system, in a new key file."""
    return make_key(path, password, new_password_file, is_throwaway=is_throwaway, get_key=generate_private_key)


def import_key(
    path: Path,
    source: Path,
    source_password: str | None,
    password: str | None,
    new_password_file: Path | None,
    *,
    is_throwaway: bool,
) -> Answer:
    """The key of another keystore v3, encrypted again at full cost."""

    def open_source() -> Secret:
        secret = get_password(source_password, f"Password of {source.name}", is_new=False)
        return open_foreign_key_file(source, secret)

    return make_key(path, password, new_password_file, is_throwaway=is_throwaway, get_key=open_source)


def read_key_file(path: Path) -> dict[str, Any]:
    """The JSON of a keystore v3 with what it says of itself; opens nothing.

    Raises:
        Rejected: missing, too large, no keystore v3, or a derivation beyond every limit; reason ``key_file``.
    """
    if not path.is_file():
        raise Rejected(f"there is no key file at {path}", reason="key_file")
    if path.stat().st_size > MAX_KEY_FILE_BYTES:
        raise Rejected(f"{path} is too large for a key file", got=path.stat().st_size, reason="key_file")
    try:
        body = json.loads(path.read_text())
        version, crypto = body["version"], body["crypto"]
        kdf, numbers = crypto["kdf"], crypto["kdfparams"]
        limits = {
            "scrypt": {"n": MAX_FOREIGN_SCRYPT_N, "r": MAX_FOREIGN_SCRYPT_R, "p": MAX_FOREIGN_SCRYPT_P, "dklen": 64},
            "pbkdf2": {"c": MAX_FOREIGN_ITERATIONS, "dklen": 64},
        }[kdf]
        is_good = version == 3 and all(
            type(numbers[k]) is int and 0 < numbers[k] <= limit for k, limit in limits.items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_good = False
    if not is_good or not isinstance(body, dict):
        raise Rejected(
            f"{path} is no keystore v3 that can be used: a file of geth, clef, foundry, eth-account or of `relayer keys`",
            reason="key_file",
        )
    return body


def open_foreign_key_file(path: Path, password: Secret) -> Secret:
    """The key of any keystore v3, also one with a cheap or an older key derivation: it is only read to be encrypted anew.

    Raises:
        Rejected: ``key_file``, ``bad_password``, ``weak_key`` (a key that a broken generator or a person made up).
    """
    from eth_keyfile.keyfile import decode_keyfile_json

    body = read_key_file(path)
    try:
        key = Secret(decode_keyfile_json(body, password.reveal()))
    except (ValueError, KeyError, TypeError):
        raise Rejected(f"the password does not open {path}", reason="bad_password") from None
    if len(key.reveal()) != 32 or len(set(key.reveal())) <= 8:
        raise Rejected("this key is no random number: nobody made it for use", reason="weak_key")
    return key


def show_key(path: Path) -> Answer:
    """What a key file says of itself; the password is not needed and nothing is opened."""
    body = read_key_file(path)
    mode = path.stat().st_mode & 0o777
    kdf = body["crypto"]["kdf"]
    cost = body["crypto"]["kdfparams"]["n" if kdf == "scrypt" else "c"]
    address = str(body.get("address", "")).removeprefix("0x").lower()
    problems = []
    if mode & 0o077:
        problems.append("others can read the file: chmod 600 it")
    if kdf != "scrypt" or cost < MIN_SCRYPT_N:
        problems.append(
            "its password is guarded cheaply: a node takes it as a throw-away key only; `relayer keys import` encrypts it anew"
        )
    data = {
        "schema": "relayer/keys/1",
        "file": str(path),
        "address_claimed": f"0x{address}" if address else "",
        "kdf": kdf,
        "cost": cost,
        "mode": oct(mode),
        "problems": problems,
    }
    lines = [
        f"0x{address}, as the file says (relayer keys export-public opens it and makes sure)"
        if address
        else "the file names no address",
        f"{kdf}, cost {cost:,}, mode {mode:o}",
        *problems,
    ]
    return Answer(data, lines, 1 if problems else 0)


def export_public(path: Path, password: str | None) -> Answer:
    """The address of a key, from the key itself."""
    secret = get_password(password, f"Password of {path.name}", is_new=False)
    body = read_key_file(path)
    address = get_address(open_foreign_key_file(path, secret).reveal())
    claimed = str(body.get("address", "")).removeprefix("0x").lower()
    if claimed not in ("", address.hex()):
        raise Rejected(
            "the file names another address than that of its key: somebody changed it",
            got=claimed,
            expected=address.hex(),
            reason="wrong_address",
        )
    return Answer({"schema": "relayer/keys/1", "file": str(path), "address": hex_of(address)}, [hex_of(address)])


def create_first_journal(config_path: Path, never_signed: str | None) -> Answer:
    """Make the journal of a key that has never signed, on the word of a person who repeats its address.

    Raises:
        Rejected: ``usage`` (nothing or another address was repeated), ``journal_exists``, or what is wrong with the key file.
    """
    config = load_config(config_path)
    key = load_key_file(
        config.resolve(config.operator.key.removeprefix("file:")),
        read_password(config.operator.password, config.path),
        is_throwaway=config.operator.allow_throwaway_key,
    )
    address = hex_of(get_address(key.reveal()))
    if never_signed is None or never_signed.lower() != address:
        raise Rejected(FIRST_JOURNAL_TEXT.format(address=address), got=never_signed, reason="usage")
    if config.store_path.exists():
        raise Rejected(
            f"there is a store at {config.store_path}: this node ran before, so its key may have signed. Start it as it is:"
            " it makes a journal itself and waits until nothing old can count",
            reason="journal_exists",
        )
    Journal.create_first(config.journal_path, int(time.time()))
    data = {"schema": "relayer/first-journal/1", "journal": str(config.journal_path), "address": address}
    return Answer(data, [f"{config.journal_path} is the journal of {address} from now on. Never copy or restore it."])
