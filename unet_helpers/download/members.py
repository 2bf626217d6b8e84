"""Names in a zip that nobody has looked into. An annex: nobody needs it to follow the lesson.

A name that can't be a file's on every system is refused, not changed: a set must be the same everywhere.
"""

import re
import stat
import unicodedata
import zipfile

MARKER = ".download_complete"  # this program's note in a whole folder; no archive may bring its own
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"}
DEVICES |= {f"{port}{number}" for port in ("com", "lpt") for number in "123456789¹²³"}


def parts_of(name: str) -> list[str]:
    """The parts of a member's path. Windows writes some with backslashes, and takes all so."""
    return [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]


def fold(name: str) -> str:
    """The same for names that are one file where upper and lower case are the same."""
    return unicodedata.normalize("NFC", name).casefold()


def find_fault(member: zipfile.ZipInfo) -> str:
    """Why a member must not be unpacked, beginning with its name; "" if it may be."""
    name, parts = member.filename, parts_of(member.filename)
    odd = re.search(r'[:*?"<>|\x00-\x1f]', member.orig_filename)  # filename ends at \0
    if ".." in parts or name[:1] in ("/", "\\") or re.match("[A-Za-z]:", name):
        return f"{name!r} points out of its folder"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"{name!r} is a link or a device"
    if odd:
        return f"{member.orig_filename!r} holds {odd[0]!r}, which Windows allows in no name"
    for part in parts:
        if part.endswith((".", " ")):
            return f"{name!r} holds a name that ends in a dot or a space, which Windows would leave out"
        if part.split(".")[0].rstrip(" ").lower() in DEVICES:
            return f"{name!r} holds the name {part!r}, which is a device on Windows"
        if fold(part) == MARKER:
            return f"{name!r} has the name of the note that marks a finished download"
    return ""


def find_twin(name: str, parts: list[str], other: str) -> str:
    """What two names of one archive have to do with each other that are one file where case does not count."""
    if name == other:
        return f"{name!r} is in it twice"
    if parts == parts_of(other):
        return f"{name!r} and {other!r} are the same file"
    return f"{name!r} and {other!r} are one file where upper and lower case are the same"
