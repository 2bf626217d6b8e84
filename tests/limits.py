"""What stops a program elsewhere, made real for a test: another user's folders, a full disk, a start at once."""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest


def _windows_lacks(what: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(sys.platform == "win32", reason=f"Windows has no {what}")


# Tests of what Windows lacks; what it does otherwise is in test_windows.py.
needs_getrusage = _windows_lacks("module resource")
needs_links = _windows_lacks("links without a privilege")
needs_pipes = _windows_lacks("named pipes in folders (os.mkfifo)")
needs_sigint = _windows_lacks("SIGINT for one process alone")
needs_sigkill = _windows_lacks("SIGKILL")
needs_users = _windows_lacks("os.seteuid, nor folders that permission bits protect")


@contextlib.contextmanager
def pipe(path: Path):
    """A named pipe. Reading it does not wait for ever, so that a test fails: it is empty and ends."""
    os.mkfifo(path)
    done = threading.Event()

    def end_each_reading():
        while not done.is_set():
            os.close(os.open(path, os.O_WRONLY))  # waits for a reader

    thread = threading.Thread(target=end_each_reading)
    thread.start()
    try:
        yield
    finally:
        done.set()
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        thread.join()


@contextlib.contextmanager
def nobody(*folders: Path):
    """Permissions do not stop root, so root becomes nobody for the block. The folders then belong to nobody."""
    user = os.geteuid()
    if user == 0:
        try:
            for folder in folders:
                os.chown(folder, 65534, -1)
            os.seteuid(65534)
        except OSError as error:
            pytest.skip(f"root can't become anybody else here: {error}")
    try:
        yield
    finally:
        os.seteuid(user)


@contextlib.contextmanager
def public_folder():
    """A folder that the user nobody may read, unlike root's tmp_path."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@contextlib.contextmanager
def small_disk(folder: Path, size: int):
    """A disk of `size` bytes, mounted at `folder`."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small disk, and not everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def start(code: str, **environment: str) -> subprocess.Popen:
    """A process that runs code in the repository, with these extra environment variables."""
    return subprocess.Popen(
        [sys.executable, "-c", code], text=True, cwd=Path(__file__).parents[1],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip


def meet(folder: Path, code: str, **environment: str) -> list[tuple[int, str, str]]:
    """Run code in two processes: the first one stops at `until_met()` until the second one has said its first line.

    Returns (exit code, output, errors) of each. The second one has these variables, too.
    """
    go = folder / "go"
    code = f"""
import pathlib, time
def until_met(*_):
    print("inside", flush=True)
    while not pathlib.Path({str(go)!r}).exists():
        time.sleep(.01)
{code}"""
    first = start(code)
    assert first.stdout.readline() == "inside\n", first.communicate(timeout=120)
    second = start(code, **environment)
    said = second.stdout.readline()
    go.touch()
    ends = [child.communicate(timeout=120) for child in (first, second)]
    return [(first.returncode, *ends[0]), (second.returncode, said + ends[1][0], ends[1][1])]
