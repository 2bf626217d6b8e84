"""One run at a time makes a folder, and what killed runs left goes away."""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

NEW = 60  # seconds: a temporary folder that is younger may not be locked yet


@contextlib.contextmanager
def hold_lock(folder: Path, busy: Callable[[], object] | None = None) -> Iterator[bool]:
    """Hold the lock of `folder` while the block runs, among the processes of one user on one machine.

    It is a lock of the system on a file among the temporary ones, so that nothing is left beside the folder. It ends
    with its process, however that ends; the file stays, and alone blocks nobody.
    busy: called once if another process holds the lock, which is then waited for; None: don't wait.
    Yields whether it is held. It is not if busy is None and another process holds it, and where no lock can be had:
    there is no place for temporary files, or the system knows no locks. Then the block runs as if it were alone.
    """
    lock = None
    try:
        lock = FileLock(_file_of(folder))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if busy is not None:
                busy()
                lock.acquire()
    except (OSError, NotImplementedError):
        lock = None
    try:
        yield lock is not None and lock.is_locked
    finally:
        if lock is not None:
            lock.release()


def _file_of(folder: Path) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "me"  # other users' files can't be written
    locks = Path(tempfile.gettempdir()) / f"unet_locks_{user}"
    locks.mkdir(exist_ok=True)
    return locks / f"{hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()}.lock"


def make_temporary_folder(prefix: str) -> tuple[Path, Callable[[], None]]:
    """A new temporary folder of this process, and what deletes it; those of dead processes are deleted on the way.

    Raises OSError where there is no place for it.
    """
    temporary = Path(tempfile.gettempdir())
    for other in temporary.glob(f"{prefix}*/lock"):
        with contextlib.suppress(OSError, NotImplementedError, Timeout):
            if time.time() - other.parent.stat().st_mtime > NEW:
                FileLock(other, timeout=0).acquire()  # its process would hold it
                shutil.rmtree(other.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    lock = FileLock(folder / "lock")
    with contextlib.suppress(OSError, NotImplementedError):
        lock.acquire()

    def delete():
        lock.release()
        shutil.rmtree(folder, ignore_errors=True)

    return folder, delete


def remove_partial_folders(folder: Path) -> None:
    """Delete what killed runs left beside `folder`: `NAME.partial-PID`. Call it only while its lock is held."""
    name = re.compile(re.escape(folder.name) + r"\.partial-\d+")
    with contextlib.suppress(OSError):  # the folder above may be written to, but not listed
        for path in folder.parent.iterdir():
            if name.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)  # a link is left alone
