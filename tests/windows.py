"""Windows' rules for files, as Microsoft documents them, for real files and processes of Linux.

The sources, all below https://learn.microsoft.com: windows/win32/fileio/naming-a-file;
windows/win32/api/fileapi/nf-fileapi-deletefilew; windows/win32/api/winbase/nf-winbase-movefileexw;
cpp/c-runtime-library/reference/locking; of text files: Python's own documentation of `open`.
"""

import contextlib
import errno
import os
import re
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

try:
    import fcntl
except ImportError:  # on Windows itself, where nothing has to be simulated
    fcntl = None

USED = "The process cannot access the file because it is being used by another process"
FORBIDDEN = re.compile(r'[<>:"/\\|?*\0-\x1f]')
RESERVED = re.compile(r"(CON|PRN|AUX|NUL|(COM|LPT)[0-9¹²³])(\..*)?", re.IGNORECASE | re.DOTALL)
MAX_PATH, HOME = 260, 100  # characters of a path with its drive; what is left for the folder that a user chooses
system = SimpleNamespace(**{name: getattr(os, name) for name in ("open", "replace", "unlink")})
read_text, write_text = Path.read_text, Path.write_text


def is_valid(name: str) -> bool:
    """Whether a file or folder may have this name: "NUL.txt is equivalent to NUL", no space or period at the end."""
    return not (FORBIDDEN.search(name) or RESERVED.fullmatch(name) or name.endswith((" ", ".")))


def open_files() -> set[str]:
    """The files that any process has open, and those that this one has mapped."""
    with open("/proc/self/maps") as maps:
        found = {line.split(maxsplit=5)[-1].rstrip("\n") for line in maps if "/" in line}
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            for number in os.listdir(f"/proc/{process}/fd"):
                with contextlib.suppress(OSError):
                    if os.path.isfile(link := f"/proc/{process}/fd/{number}"):
                        found.add(os.readlink(link))
    return found


@contextlib.contextmanager
def one_step():
    """No process opens a file between the question whether any has it open and what is done then."""
    with open(__file__) as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def open_in_one_step(*arguments, **options) -> int:
    with one_step():
        return system.open(*arguments, **options)


def refuse_open(*paths) -> None:
    """Python opens no file with FILE_SHARE_DELETE, so that it can be neither deleted nor renamed until it is closed,
    nor can a folder above it be renamed."""
    there = open_files()
    for path in paths:
        real = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
        if any(each == real or each.startswith(real + os.sep) for each in there):
            raise PermissionError(errno.EACCES, USED, str(path))


def replace(source, target) -> None:
    """MoveFileEx replaces a file, never a folder."""
    if not is_valid(name := os.path.basename(target)):
        raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", name)
    if os.path.isdir(target) or os.path.isdir(source) and os.path.lexists(target):
        raise PermissionError(errno.EACCES, "Access is denied", str(target))
    with one_step():
        refuse_open(source, target)
        system.replace(source, target)


def rename(source, target) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", str(target))
    replace(source, target)


def unlink(path, *, dir_fd=None) -> None:
    with one_step():
        refuse_open(path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path))
        system.unlink(path, dir_fd=dir_fd)


def locking(descriptor: int, mode: int, n_bytes: int) -> None:
    """_locking: so many bytes from the current position on, also beyond the end of the file, for this handle alone.

    "If the bytes can't be locked", LK_NBLCK fails with EACCES. The system unlocks what a process that ends had locked.
    """
    kind = fcntl.F_UNLCK if mode == msvcrt.LK_UNLCK else fcntl.F_WRLCK
    region = struct.pack("hhqqi4x", kind, os.SEEK_CUR, 0, n_bytes, 0)  # struct flock
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, region)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None


msvcrt = SimpleNamespace(locking=locking, LK_UNLCK=0, LK_LOCK=1, LK_NBLCK=2, LK_RLCK=3, LK_NBRLCK=4)


def install(patch=setattr) -> None:
    """The rules for files, and those for text: cp1252 where no encoding is given, and lines that end in CR LF."""
    for rule in (replace, rename, unlink):
        patch(os, rule.__name__, rule)
    patch(os, "remove", unlink)
    patch(Path, "read_text", lambda path, encoding="cp1252", errors=None: read_text(path, encoding, errors))
    patch(
        Path, "write_text",
        lambda path, text, encoding="cp1252", errors=None, newline="\r\n": write_text(
            path, text, encoding, errors, newline
        ),
    )  # fmt: skip


def install_before_imports() -> None:
    """For a process of its own, which then has msvcrt in place of fcntl."""
    install()
    os.open = open_in_one_step
    sys.modules.update(fcntl=None, msvcrt=msvcrt)
