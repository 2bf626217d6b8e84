"""One process at a time makes a folder, and what killed processes left goes away."""

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
