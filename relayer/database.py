"""How a durable file is opened and written: one discipline for the node's store and the signer's journal.

WAL with synchronous FULL, both read back; one writer per file, held by a lock for the life of the process; a file from the
future, a damaged file or a network file system is refused with words. SQLite 3.7.0 to 3.51.2 can corrupt a WAL database when
two connections write or checkpoint at one instant, so on those versions the single-writer lock is what makes WAL allowed
(incidents.md 3.2); readers open read-only and never checkpoint.

An error at COMMIT does not mean "not committed" (incidents.md 3.1). After any write error the process ends with code 75 and
reads from the file what happened; nothing is retried as new.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import struct
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from messages.errors import Rejected

EXIT_STORE = 75
"""Exit code of a process whose store failed (EX_TEMPFAIL): restart it, it reads what really happened."""

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.sshfs"}
_FIRST_AFFECTED, _FIRST_FIXED, _WITHDRAWN = (3, 7, 0), (3, 51, 3), (3, 52, 0)


class StoreFailure(Exception):
    """A write failed and nobody knows whether it is durable: leave with code 75, restart, read.

    No RelayerError on purpose: no task may catch it and go on.
    """

    exit_code = EXIT_STORE


def encode_u64(number: int) -> bytes:
    """8 bytes big-endian: keeps every bit and sorts like the number."""
    return number.to_bytes(8, "big")


def decode_u64(data: bytes) -> int:
    """Inverse of `encode_u64`."""
    return int.from_bytes(data, "big")


def compute_chain_hash(stream: bytes, i: int, previous: bytes, *parts: bytes) -> bytes:
    """H_i = SHA-256(domain, lengths, stream, i, H_{i-1}, record): the lengths first, so that nothing can shift.

    SHA-256 and not keccak: nobody outside ever sees these hashes, and it is about ten times faster here, so that the whole
    chain can be checked at every start (docs/decisions/0020).
    """
    fields = (stream, i.to_bytes(8, "big"), previous, *parts)
    lengths = struct.pack(f">{len(fields)}Q", *map(len, fields))
    return hashlib.sha256(b"".join((b"optsettle/store/1", lengths, *fields))).digest()


def verify_sqlite_version(version: tuple[int, ...], *, is_single_writer: bool) -> None:
    """Refuse versions with the WAL-reset bug unless there is a single writer (incidents.md 3.2).

    Raises:
        Rejected: reason ``sqlite_version``.
    """
    is_affected = _FIRST_AFFECTED <= version < _FIRST_FIXED or version[:3] == _WITHDRAWN
    if version < _FIRST_AFFECTED or (is_affected and not is_single_writer):
        raise Rejected(
            "this SQLite can lose or corrupt a write-ahead log: upgrade it, or keep the single-writer lock on",
            got=".".join(map(str, version)),
            expected=">= 3.51.3 (not 3.52.0), or one writer",
            reason="sqlite_version",
        )


def get_file_system(path: Path) -> str:
    """Type of the file system that holds ``path``; "" where the machine does not tell (not Linux)."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return ""
    best, kind = "", ""
    resolved = str(path.resolve())
    for line in mounts.read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        if (resolved == point or resolved.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def get_migration_names(migrations: Migrations) -> list[str]:
    """Names of a migration set in order."""
    return [m.name for m in migrations.pending(Database(memory=True))]


class DatabaseFile:
    """One SQLite file with its lock and its one writing connection.

    Raises (on opening):
        Rejected: reasons ``in_use``, ``too_new``, ``corrupt``, ``file_mode``, ``network_file_system``, ``sqlite_version``,
            ``pragma``.
    """

    def __init__(self, path: Path, migrations: Migrations, name: str) -> None:
        self.path = path
        self.name = name
        self.commits_s: deque[float] = deque(maxlen=1000)
        """How long the last commits took: a disk that gets slow stops a node before it fails."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if get_file_system(path.parent) in _NETWORK_FILE_SYSTEMS:
            raise Rejected(
                f"{name} {path} lies on a network file system, where locks and fsync cannot be relied on",
                got=get_file_system(path.parent),
                expected="a local file system",
                reason="network_file_system",
            )
        self._lock = _take_lock(path, name)
        try:
            verify_sqlite_version(sqlite3.sqlite_version_info, is_single_writer=True)
            _prepare_file(path, name)
            self.connection = self._open(migrations)
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, migrations: Migrations) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=0.5)
        try:
            # Read before anything is written: a damaged or foreign file must stay as it is.
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise self._corrupt(str(found))
            verify_migrations_known(connection, migrations, self.name)
            for pragma, value, expected in (
                ("journal_mode", "WAL", "wal"),
                ("synchronous", "FULL", 2),
                ("foreign_keys", "ON", 1),
                ("mmap_size", "0", 0),
                ("trusted_schema", "OFF", 0),
            ):
                connection.execute(f"PRAGMA {pragma} = {value}")
                got = connection.execute(f"PRAGMA {pragma}").fetchone()
                # A build without memory mapping answers nothing at all to mmap_size, which is as good as 0.
                if got is not None and got[0] != expected:
                    raise Rejected(
                        f"SQLite does not keep PRAGMA {pragma}", got=got[0], expected=expected, reason="pragma"
                    )
            migrations.apply(Database(connection))
        except sqlite3.DatabaseError as error:
            connection.close()
            raise self._corrupt(str(error)) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _corrupt(self, detail: str) -> Rejected:
        return Rejected(
            f"{self.name} {self.path} is damaged: keep it for analysis and restore or rebuild it from the chains",
            got=detail,
            expected="ok",
            reason="corrupt",
        )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is written or nothing; a failure to write is a `StoreFailure` because its end is unknown.

        Inside another one it is a part of that one. Nothing may be awaited inside: another task would write into it.
        """
        if self.connection.in_transaction:
            yield self.connection
            return
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise StoreFailure(f"{self.name}: cannot begin: {error}") from error
        try:
            yield self.connection
        except sqlite3.OperationalError as error:
            self._roll_back()
            raise StoreFailure(f"{self.name}: {error}") from error
        except BaseException:
            self._roll_back()
            raise
        began_s = time.perf_counter()
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreFailure(f"{self.name}: the end of a transaction is unknown: {error}") from error
        self.commits_s.append(time.perf_counter() - began_s)

    def _roll_back(self) -> None:
        # SQLite may have rolled back by itself; a second failure adds nothing to the first.
        if self.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection (which checkpoints) and give up the lock. Safe to call twice."""
        if self._lock >= 0:
            self.connection.close()
            os.close(self._lock)
            self._lock = -1


def open_reader(path: Path) -> sqlite3.Connection:
    """A read-only connection for people and reports, beside a running node.

    Raises:
        Rejected: there is no such file; reason ``no_store``.
    """
    if not path.exists():
        raise Rejected(f"there is no store at {path}: start the node once, or name another config", reason="no_store")
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)


def _take_lock(path: Path, name: str) -> int:
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(handle, 16, 0).decode("ascii", "replace").strip()
        os.close(handle)
        raise Rejected(
            f"{name} {path} is in use by another process{f' ({holder})' if holder.isdigit() else ''}: stop that one first, two writers"
            " would damage it",
            reason="in_use",
        ) from error
    # For people only: the lock itself is the kernel's and ends with the process, whatever stands in the file.
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
    return handle


def _prepare_file(path: Path, name: str) -> None:
    """Create with mode 0600, or refuse a file that others may read."""
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise Rejected(
            f"{name} {path} can be read or written by others: chmod 600 it",
            got=oct(mode),
            expected="0o600",
            reason="file_mode",
        )


def verify_migrations_known(connection: sqlite3.Connection, migrations: Migrations, name: str) -> None:
    """Refuse a database of something else, or one that a newer version wrote; Rejected ``too_new``."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = '_sqlite_migrations'").fetchone() is None:
        if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None:
            raise Rejected(f"{name} is a database of something else", reason="too_new")
        return
    known = get_migration_names(migrations)
    rows = connection.execute("SELECT migration_set, name FROM _sqlite_migrations").fetchall()
    unknown = sorted(f"{of}/{what}" for of, what in rows if of != migrations.name or what not in known)
    if unknown:
        raise Rejected(
            f"{name} was written by a newer version of this program, or is another file: use the version that wrote it",
            got=", ".join(unknown),
            expected=", ".join(known),
            reason="too_new",
        )
