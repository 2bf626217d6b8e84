"""Small files, whole at every moment: whoever reads one, finds the old content or the new."""

import contextlib
import errno
import json
import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: whoever reads it, after a kill too, finds the old content or the new."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


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
    except (OSError, ValueError):
        return None
