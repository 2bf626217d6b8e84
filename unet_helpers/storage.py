"""Files written whole or not at all, locks between processes, temporary folders."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

OLD = 60  # seconds: a file that is written is younger


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: whoever reads it, after a kill too, finds the old content or the new."""
    partial = partial_file(path)
    try:
        with open(partial, "xb") as file:  # never through a link, never over somebody's file
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def partial_file(path: Path, suffix: str = "") -> Path:
    """A name beside a file for what is not whole yet; random, so that nobody has put a link there."""
    return path.with_name(f".{secrets.token_hex(8)}.partial{suffix}")


def remove_partial_files(folder: Path) -> None:
    """Delete the `partial_file`s that killed processes left in a folder."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            is_partial = re.fullmatch(r"\.[0-9a-f]{16}\.partial(\.keras)?", path.name)
            if is_partial and time.time() - path.lstat().st_mtime > OLD:
                path.unlink()


def write_json(path: Path, content) -> None:
    """`write_whole` for what JSON can hold."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())


def read_regular(path: Path, most: int) -> bytes:
    """Content of a file of so many bytes at most. Raises OSError for others, also for a pipe or a device, which has no
    end: a link may lead to one."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file, but a folder, a pipe or a device", str(path))
    if path.stat().st_size > most:
        raise OSError(errno.EFBIG, f"it has {path.stat().st_size:,} bytes, at most {most:,} are read", str(path))
    return path.read_bytes()


def read_json(path: Path):
    """Content of a JSON file, None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def note_files(files: Mapping[str, Path]) -> dict[str, list]:
    """{name: [bytes, time of the last change in nanoseconds, SHA-256 of the content]}. Raises OSError."""
    stats = {name: _stat(path) for name, path in files.items()}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = pool.map(lambda name: _hash(files[name], *stats[name]), files)
        return {name: [*stats[name], each] for name, each in zip(files, hashes, strict=True)}


def find_changes(noted: Mapping[str, list], files: Mapping[str, Path]) -> Iterator[str]:
    """The names of the files whose content is not what `note_files` noted, those that are gone, and new ones.

    A file of another time is read, one of the same size and time is not. Raises OSError.
    """
    stats = {name: _stat(files[name]) for name in sorted(noted.keys() & files.keys())}
    yield from sorted(noted.keys() ^ files.keys())
    yield from (name for name, (size, _) in stats.items() if size != noted[name][0])
    unsure = [name for name, (size, at) in stats.items() if size == noted[name][0] and at != noted[name][1]]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        hashes = pool.map(lambda name: _hash(files[name], *stats[name]), unsure)
        # a note of an older version has no content
        yield from (name for name, each in zip(unsure, hashes, strict=True) if noted[name][2:] != [each])


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


@functools.cache
def _hash(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file as it was with this size and at this time: read once in a process."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


try:
    import fcntl
except ImportError:
    fcntl = None
    import msvcrt  # Windows

NEW = 60  # seconds: a temporary folder that is younger may not be locked yet
BUSY, NO_LOCK = -1, -2  # in place of a descriptor: another process holds the lock; none can be had


@contextlib.contextmanager
def hold_lock(folder: Path, busy: Callable[[], object] | None = None) -> Iterator[bool]:
    """Hold the lock of `folder` while the block runs, so that of all processes only this one does.

    It is a lock of the system on the hidden, empty file `.NAME.lock` beside the folder: whoever may write there meets
    it, whatever his TMPDIR is. It ends with its process, however that ends, and the file is deleted at its end; that of
    a killed process stays, locks nothing and goes with the next one. On a network disk it holds between the processes
    of one machine, and between machines only if the disk passes locks on, as NFS does.
    busy: called once if another process holds the lock, which is then waited for; None: don't wait.
    Yields whether it is held. It is not if busy is None and another process holds it, and where no lock can be had:
    one may not write beside the folder, or the disk knows no locks. Then the block runs as if it were alone.
    """
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
            _release(held, path)


def _try_lock(path: Path) -> int:
    """A descriptor of the file, which is made and locked, or BUSY, or NO_LOCK."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = None
        while held is None:  # else its last holder has deleted it before it was locked here
            held = _lock_once(path)
        return held
    return NO_LOCK


def _lock_once(path: Path) -> int | None:
    no_link = getattr(os, "O_NOFOLLOW", 0)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | no_link, 0o666)
    except PermissionError:  # another user's: reading is enough
        file = os.open(path, os.O_RDONLY | no_link)
    kept = False
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        kept = os.path.samestat(os.fstat(file), os.stat(path))
        return file if kept else None
    except (BlockingIOError, PermissionError):
        return BUSY
    except FileNotFoundError:
        return None
    finally:
        if not kept:
            os.close(file)


def _release(held: int, path: Path) -> None:
    """Deleted while it is locked, so that nobody else's is; Windows deletes no open file, and none that others have."""
    if not fcntl:
        os.close(held)
    with contextlib.suppress(OSError):
        path.unlink()
    if fcntl:
        os.close(held)


def make_temporary_folder(prefix: str) -> tuple[Path, Callable[[], None]]:
    """A new temporary folder of this process, and what deletes it; those of dead processes are deleted on the way.

    Raises OSError where there is no place for it.
    """
    temporary = Path(tempfile.gettempdir())
    for other in temporary.glob(f"{prefix}*/lock"):
        with contextlib.suppress(OSError):
            if time.time() - other.parent.stat().st_mtime > NEW and (held := _try_lock(other)) >= 0:
                shutil.rmtree(other.parent, ignore_errors=True)  # its process would hold it
                os.close(held)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    held = _try_lock(folder / "lock")

    def delete():
        if held >= 0:
            _release(held, folder / "lock")
        shutil.rmtree(folder, ignore_errors=True)

    return folder, delete


def remove_partial_folders(folder: Path) -> None:
    """Delete what killed runs left beside `folder`: `NAME.partial-PID`. Call it only while its lock is held."""
    name = re.compile(re.escape(folder.name) + r"\.partial-\d+")
    with contextlib.suppress(OSError):  # the folder above may be written to, but not listed
        for path in folder.parent.iterdir():
            if name.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)  # a link is left alone
