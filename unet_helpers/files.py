"""Files that are whole at every moment, with the old content or the new; and whether files still are what they were."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
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
