"""Files and folders written whole or not at all, and locks between processes."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

RECENT = 60  # seconds: younger partial files may belong to a live process and are not deleted
BUSY, NO_LOCK = -1, -2  # in place of a descriptor: another process holds the lock; no lock is available here


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a reader, even after a kill, finds the old content or the new."""
    partial = partial_file(path)
    try:
        with open(partial, "xb") as file:  # "x": never through a link, never over an existing file
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace(source: Path, target: Path) -> None:
    """`os.replace`. Windows refuses it while a file there is open, as a virus scanner opens new ones: it then waits."""
    for _ in range(0 if fcntl else 50):
        with contextlib.suppress(PermissionError):
            return os.replace(source, target)
        time.sleep(0.1)
    os.replace(source, target)


def partial_file(path: Path, suffix: str = "") -> Path:
    """A name beside a file for its unfinished content; random, so that no link can wait there."""
    return path.with_name(f".{secrets.token_hex(8)}.partial{suffix}")


def remove_partial_files(folder: Path) -> None:
    """Delete the `partial_file`s that killed processes left in a folder."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            is_partial = re.fullmatch(r"\.[0-9a-f]{16}\.partial(\.keras)?", path.name)
            if is_partial and time.time() - path.lstat().st_mtime > RECENT:
                path.unlink()


@contextlib.contextmanager
def write_folder(folder: Path) -> Iterator[Path]:
    """`write_whole` for a folder: yields a new one, `NAME.partial-PID`, which is renamed when the block succeeds."""
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_partial_folders(folder: Path) -> None:
    """Delete what killed runs of `write_folder` left beside `folder`. Call it only while its lock is held."""
    name = re.compile(re.escape(folder.name) + r"\.partial-\d+")
    with contextlib.suppress(OSError):  # the parent folder may be writable, but not listable
        for path in folder.parent.iterdir():
            if name.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)  # leaves links alone


def write_json(path: Path, content) -> None:
    """`write_whole` for what JSON can hold."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def read_json(path: Path):
    """Content of a JSON file, None if it is missing or cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_regular(path: Path, most: int) -> bytes:
    """Content of a regular file of at most so many bytes. Raises OSError for others: a pipe or a device has no end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file, but a folder, a pipe or a device", str(path))
    if (size := path.stat().st_size) > most:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, at most {most:,} are read", str(path))
    return path.read_bytes()


def note_files(files: Mapping[str, Path]) -> dict[str, list]:
    """{name: [bytes, modification time in nanoseconds, SHA-256 of the content]}. Raises OSError."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(files, pool.map(_note, files.values()), strict=True))


def find_changes(noted: Mapping[str, list], files: Mapping[str, Path]) -> Iterator[str]:
    """The names of the files that are missing, new, or have another content than `note_files` noted.
    A file of the same size and time counts as unchanged without being read. Raises OSError."""
    yield from sorted(noted.keys() ^ files.keys())
    for name in sorted(noted.keys() & files.keys()):
        stat = files[name].stat()
        if [stat.st_size, stat.st_mtime_ns] != noted[name][:2] and _note(files[name])[::2] != noted[name][::2]:
            yield name


def _note(path: Path) -> list:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, _hash(path, stat.st_size, stat.st_mtime_ns)]


@functools.cache
def _hash(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file; while its size and time stay, a process reads it only once."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def hold_lock(folder: Path, busy: Callable[[], object] | None = None) -> Iterator[bool]:
    """Hold the lock of `folder` during the block, so that only one process runs it. Yields whether it is held.
    It is a system lock on the hidden, empty file `.NAME.lock` beside the folder. It ends with its process; the file of
    a killed one locks nothing, and the next holder deletes it. Where no lock is available, the block runs unlocked.
    busy: called once before waiting for another process; without it, a busy lock is not waited for."""
    real = Path(os.path.realpath(folder))
    path = real.with_name(f".{real.name}.lock")
    held = _try_lock(path)
    if held == BUSY and busy is not None:
        busy()
        while (held := _try_lock(path)) == BUSY:
            time.sleep(0.05)
    try:
        yield held >= 0
    finally:
        if held >= 0:
            if not fcntl:
                os.close(held)  # Windows deletes closed files only
            with contextlib.suppress(OSError):
                path.unlink()
            if fcntl:
                os.close(held)  # only now, so that the deleted file was no other process's


def _try_lock(path: Path) -> int:
    """A descriptor of the lock file, created and locked here, or BUSY, or NO_LOCK."""
    no_link = getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | no_link, 0o666)
        except PermissionError:  # another user's: reading is enough
            file = os.open(path, os.O_RDONLY | no_link)
        opened.callback(os.close, file)
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except (BlockingIOError, PermissionError):
            return BUSY
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                opened.pop_all()  # stays open
                return file
        return _try_lock(path)  # the last holder deleted the file before it was locked here
    return NO_LOCK
