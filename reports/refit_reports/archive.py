# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""A folder of records, one or more a night: reading it, adding to it, and its index.

The folder needs no index: `index.csv` is a convenience for people, made anew from the records whenever
one is added or the history is drawn. A record, and the index, appear under their names only when they
are whole (temporary name, synced, renamed). Writers take turns by a lock (flock on `.lock`, which the
system releases when a process dies); readers need none. Temporary names start with a dot and are never
read, so what a crash leaves behind does no harm.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import errno
import fcntl
import os
import shutil
import time
from typing import Iterator, Sequence

from refit_reports.record import Record, RecordError, load

_LOCK_WAIT_S = 60.0
_INDEX = "index.csv"
_SINCE = "since"
# Records that lie closer together were made in the same night.
_NIGHT_GAP = datetime.timedelta(hours=6)


class ArchiveError(Exception):
    """The archive cannot be read or written; the message names it, the reason and the remedy."""


def read(folder: str, known: Sequence[Record] = ()) -> tuple[list[Record], list[str]]:
    """The records of the folder in the order of created_utc, and a line for each that is left out.

    Without their tables of buckets and findings, which say nothing about other nights. Records of the folder
    that are in `known` are not read again: a record never changes once it has its name.
    Raises ArchiveError where the folder itself cannot be read.
    """
    records, skipped = [], []
    by_path = {record.path: record for record in known}
    for name in _names(folder):
        path = os.path.join(folder, name)
        try:
            records.append(by_path[path] if path in by_path else load(path, tables=("tensors",)))
        except RecordError as error:
            skipped.append(f"left out: {error}")
    records.sort(key=lambda r: (created(r), r.path))
    return records, skipped


def created(record: Record) -> datetime.datetime:
    """The time of the run; the earliest time there is where the record has none that can be read."""
    try:
        time_of_run = datetime.datetime.fromisoformat(record.created_utc.replace("Z", "+00:00"))
    except ValueError:
        return datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)
    if time_of_run.tzinfo is None:
        time_of_run = time_of_run.replace(tzinfo=datetime.timezone.utc)
    return time_of_run


def since(folder: str) -> datetime.datetime | None:
    """The time in the file `since`: nights before are not compared, after a change that was accepted."""
    path = os.path.join(folder, _SINCE)
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArchiveError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_time(text, path)


def parse_time(text: str, where: str) -> datetime.datetime:
    """ISO 8601, UTC where it names no zone. Raises ArchiveError that names `where`."""
    try:
        result = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ArchiveError(
            f"{where}: {text!r} is no time; expected ISO 8601, such as 2026-03-01T00:00:00Z"
        ) from None
    return result if result.tzinfo else result.replace(tzinfo=datetime.timezone.utc)


def by_night(times: list[datetime.datetime]) -> list[int]:
    """The number of the night of each time; `times` ascends. A pause of six hours starts a new one."""
    numbers: list[int] = []
    for position, when in enumerate(times):
        new = position > 0 and when - times[position - 1] >= _NIGHT_GAP
        numbers.append(numbers[-1] + int(new) if numbers else 0)
    return numbers


def add(folder: str, path: str) -> str:
    """Copies the record at `path` into the archive, which is made if missing; returns the copy's path.

    A record of the same name is never overwritten: the same bytes are left as they are, others get a
    counter. Raises RecordError for what is no record, ArchiveError where the folder cannot be written.
    """
    load(path)
    try:
        os.makedirs(folder, exist_ok=True)
        with _lock(folder):
            return _place(folder, path)
    except OSError as error:
        raise ArchiveError(
            f"{folder}: cannot add {path}: {error.strerror or error}; free some space or choose "
            f"another folder"
        ) from None


def write_index(folder: str, known: Sequence[Record] = ()) -> str:
    """Makes index.csv anew: file, created_utc, verdict, commit, machine, cases. Returns its path. `known` as
    in read."""
    target = os.path.join(folder, _INDEX)
    try:
        with _lock(folder):
            records, _ = read(folder, known)
            temporary = os.path.join(folder, f".{_INDEX}.{os.getpid()}.tmp")
            try:
                with open(temporary, "w", newline="", encoding="utf-8") as stream:
                    writer = csv.writer(stream)
                    writer.writerow(["file", "created_utc", "verdict", "commit", "dirty", "cpu",
                                     "hostname", "cases"])
                    for r in records:
                        writer.writerow([
                            os.path.basename(r.path), r.created_utc, r.verdict,
                            r.tool.get("commit", ""), r.tool.get("dirty", ""),
                            r.environment.get("cpu", ""), r.environment.get("hostname", ""),
                            len(r.cases)])
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
    except OSError as error:
        raise ArchiveError(f"{target}: cannot be written: {error.strerror or error}") from None
    return target


def _names(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise ArchiveError(
            f"{folder}: the archive cannot be read: {error.strerror}; name a folder of records"
        ) from None
    return sorted(n for n in names if n.endswith(".h5") and not n.startswith("."))


def _place(folder: str, path: str) -> str:
    stem = os.path.splitext(os.path.basename(path))[0]
    temporary = os.path.join(folder, f".{stem}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(path, temporary)
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        counter = 0
        while True:
            name = f"{stem}.h5" if counter == 0 else f"{stem}-{counter}.h5"
            target = os.path.join(folder, name)
            try:
                # A link, unlike a rename, refuses to overwrite.
                os.link(temporary, target)
                return target
            except FileExistsError:
                if _same_bytes(temporary, target):
                    return target
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                    raise
                # A file system without hard links; the lock keeps other writers away.
                if not os.path.exists(target):
                    os.rename(temporary, target)
                    return target
                if _same_bytes(temporary, target):
                    return target
            counter += 1
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _same_bytes(a: str, b: str) -> bool:
    with open(a, "rb") as first, open(b, "rb") as second:
        return first.read() == second.read()


@contextlib.contextmanager
def _lock(folder: str) -> Iterator[None]:
    descriptor = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ArchiveError(
                        f"{folder}: another process has held the archive's lock for "
                        f"{_LOCK_WAIT_S:.0f} s; wait for it or end it"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)
