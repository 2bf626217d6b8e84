"""Kaggle -> a folder, whole or not at all. What can't be done ends in one DownloadError that says what to do next."""

import contextlib
import errno
import io
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from .naming import named
from .storage import hold_lock, replace

KAGGLE_INPUT = Path("/kaggle/input")  # where a Kaggle notebook finds the data sets that are attached to it
PAGE = "https://www.kaggle.com/datasets/"  # and the slug
TIMEOUT = (15, 60)  # seconds: to connect, and without a single byte afterwards
SECRETS = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY")
MAX_RATIO, FREE_SIZE = 20, 100 * 1000**2  # images hardly shrink in a zip; text may, up to so many bytes
MARKER = ".download_complete"  # the note in a finished folder; no archive may bring its own


class DownloadError(Exception):
    """What happened, what to do next, and what is still there: a line each."""

    def __init__(self, what: str, todo: str, kept: str = "Nothing was changed"):
        super().__init__(f"{what}.\n{todo}.\n{kept}.")

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of the traceback."""
        return f"\x1b[31mDownloadError\x1b[0m: {self}".splitlines()


def download_dataset(
    dest: str | Path, slug: str, *, archive: str | Path | None = None,
    keep: Callable[[str], bool] = lambda member: True, has_layout: Callable[[Path], bool] | None = None,
) -> Path:  # fmt: skip
    """Get Kaggle's data set `slug` ("owner/name") and return the folder that holds it.
    dest: folder to make; until everything in it is checked, all files are in `<dest>.partial`, where the next call
        resumes. A finished dest is returned without a request, and one that another process makes is waited for.
    archive: zip that you downloaded with a browser, used in place of the network; it stays where it is.
    keep: whether the member of this name is unpacked.
    has_layout: whether a folder is the data set's top one; the first such folder in dest is returned, or the one below
        /kaggle/input where the data set is attached to a Kaggle notebook. None: dest is returned.
    Credentials are taken from the environment, ~/.kaggle or Colab's secrets, if there are any. Raises DownloadError."""
    dest = Path(dest).expanduser().resolve()
    staging = dest.with_name(f"{dest.name}.partial")
    archive = archive and Path(archive).expanduser().resolve()
    try:
        if _read_note(dest)[:1] != [slug]:
            if has_layout and not archive and (mounted := find_layout(KAGGLE_INPUT, has_layout, depth=5)):
                return mounted
            busy = f"another process is downloading to {dest}: waiting for it"
            with hold_lock(dest, lambda: print(busy, flush=True)):
                if _read_note(dest)[:1] != [slug]:  # the other process may have made it
                    _make(dest, staging, slug, archive, keep, has_layout)
    except OSError as error:
        what, todo = f"{error.strerror}: {error.filename or dest}", f"Make it writable, make room, {elsewhere()}"
        raise DownloadError(what, todo, what_is_kept(staging)) from None
    return (has_layout and find_layout(dest, has_layout)) or dest


def check_whole(folder: Path) -> None:
    """Raise DownloadError if a finished download has fewer files than its note says, if it says how many."""
    found = re.search(r"(\d+) files", "".join(_read_note(folder)[1:]))
    if found and (there := _count(folder)) < (listed := int(found[1])):
        what = f"{folder}: it holds only {there} of the {listed} files of its finished download"
        again = f"Move it away or delete it, and {named('run the cell again')}"
        raise DownloadError(what, f"{again}, or delete {MARKER} in it, to use what is there")


def _count(folder: Path) -> int:
    return sum(name != MARKER for _, _, names in os.walk(folder) for name in names)


def find_layout(folder: Path, has_layout: Callable[[Path], bool], depth: int = 2) -> Path | None:
    """First folder for which has_layout is true: `folder` itself, else one at most `depth` levels below it."""
    for level in range(depth + 1):
        for candidate in sorted(folder.glob("*/" * level)) if level else [folder]:
            with contextlib.suppress(PermissionError):  # an unreadable folder is skipped
                if has_layout(candidate):
                    return candidate
    return None


def _read_note(folder: Path) -> list[str]:
    """The lines of the note that a download writes last: the slug and how many files there are. [] if there is none."""
    return (folder / MARKER).read_text(encoding="utf-8").splitlines() if os.path.isfile(folder / MARKER) else []


def _make(dest: Path, staging: Path, slug: str, archive: Path | None, keep, has_layout) -> None:
    """All that is done while the lock of dest is held."""
    tree, zip_path = staging / "tree", staging / f"{slug.split('/')[1]}.zip"  # the name that the client gives it
    _protect_users_files(dest, (staging, tree, zip_path), slug, archive)
    try:
        staging.mkdir(parents=True, exist_ok=True)
        if not archive:
            fetch_zip(slug, zip_path)
        unpack(archive or zip_path, tree, keep)
        if has_layout and not find_layout(tree, has_layout):
            what = f"{archive or zip_path} does not hold the folders of {slug}"
            raise DownloadError(what, f"If it is another file, {browser_advice(slug)}")
        (tree / MARKER).write_text(f"{slug}\n{_count(tree)} files\n", encoding="utf-8", newline="\n")
        if dest.exists():
            dest.rmdir()  # it is empty; Windows replaces no folder
        replace(tree, dest)
        _delete_zip(zip_path)
    except zipfile.BadZipFile as damage:
        todo, kept = "Download it again later", "It was not changed"
        if not archive:
            todo, kept = f"{named('run the cell again').capitalize()} to download it anew", "It is deleted"
            _delete_zip(zip_path)
        what, kept = f"{archive or zip_path} is damaged: {damage}", f"{kept}; no folder was changed"
        raise DownloadError(what, f"{todo}, or {browser_advice(slug)}", kept) from None
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        with contextlib.suppress(OSError):  # a half zip is kept
            staging.rmdir()


def _delete_zip(zip_path: Path) -> None:
    """With the client's note on a half one."""
    for path in (zip_path, zip_path.with_name(f"{zip_path.name}.kaggle-partial")):
        path.unlink(missing_ok=True)


def _protect_users_files(dest: Path, ours: tuple[Path, ...], slug: str, archive: Path | None) -> None:
    """Refuse, before any change, what would touch files that this download did not make. ours: what it writes to."""
    if links := [path for path in ours if path.is_symlink()]:  # writing would follow it
        raise DownloadError(f"{links[0]} is a link", f"Delete the link, {elsewhere()}")
    if archive and not archive.is_file():
        todo = f"Give the path of the zip from {PAGE}{slug}. If the browser unpacked it, move the folder to {dest}"
        raise DownloadError(f"ARCHIVE: there is no file {archive}", todo)
    if archive and (archive.is_relative_to(dest) or archive.is_relative_to(ours[0])):
        todo = "Move it elsewhere and give its new path"
        raise DownloadError(f"ARCHIVE: {archive} is in a folder that is made anew", todo)
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):  # without the note of this download
        what = f"{dest} exists and was not made by this download of {slug}"
        raise DownloadError(what, f"Move it away or delete it, {elsewhere()}")


def size_text(size: int) -> str:
    """1_230_000 -> "1.2 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"


def what_is_kept(staging: Path) -> str:
    """The last line of a DownloadError: what an earlier download left in the folder `staging`."""
    if size := sum(path.stat().st_size for path in staging.glob("*.zip")):
        return f"Nothing was lost: {size_text(size)} are in {staging}, and the next run resumes from there"
    return "Nothing was lost or changed"


def elsewhere() -> str:
    """The end of a remedy that begins with another way."""
    return f"or give another folder as {named('DATA_DIR')}, and {named('run the cell again')}"


def check_disk(folder: Path, what: str, needed: int) -> None:
    """Print what comes and what is free; refuse what does not fit."""
    free = shutil.disk_usage(folder).free
    what += f"; {size_text(free)} are free on the disk of {folder.parent}"
    print(what)
    if needed > free:
        raise DownloadError(what, f"Make room, {elsewhere()}", what_is_kept(folder))


def browser_advice(slug: str) -> str:
    return f"get the zip from {PAGE}{slug} with a browser and {named('give its path as ARCHIVE')}"


def fetch_zip(slug: str, zip_path: Path) -> None:
    """Download the data set `slug` ("owner/name") to zip_path, `name.zip` in any folder, with Kaggle's own client and
    what it lacks: timeouts, silence about secrets, errors that say what to do. Resumes where an earlier call stopped.
    Raises DownloadError, or BadZipFile if the file is not what was announced."""
    _copy_colab_secrets()
    try:
        import requests

        with mock.patch.object(requests.Session, "send", _bounded_send(requests)):
            api, screen = _quiet_client(), sys.stdout
            client_download_file = api.download_file

            def download_file(response, zip_path, *args):
                size = int(response.headers.get("Content-Length") or 0)
                missing = size - (os.path.getsize(zip_path) if os.path.exists(zip_path) else 0)
                what = f"{slug}: {size_text(size) if size else 'unknown size'} to download"
                with contextlib.redirect_stdout(screen):
                    check_disk(Path(zip_path).parent, what, missing)
                return client_download_file(response, zip_path, *args)

            api.download_file = download_file
            with contextlib.redirect_stdout(io.StringIO()):  # its lines quote addresses that hold a signature
                api.dataset_download_files(slug, path=str(zip_path.parent), unzip=False, quiet=False)
    except ImportError:
        todo = f"Run `pip install kaggle` (in a notebook: `%pip install kaggle`) and {named('run the cell again')}"
        raise DownloadError("Python finds no package 'kaggle'", todo) from None
    except requests.RequestException as error:  # first: it is an OSError, and some of its kinds are ValueErrors
        raise DownloadError(*_explain(error, slug), what_is_kept(zip_path.parent)) from None
    except (ValueError, KeyError) as error:  # another size than announced; none at all, which older clients need
        raise zipfile.BadZipFile(str(error)) from None


def _copy_colab_secrets() -> None:
    """Colab's secrets, which Kaggle's client does not read, to this process's environment; each may be missing."""
    with contextlib.suppress(ImportError):
        from google.colab import userdata
        for name in SECRETS:
            with contextlib.suppress(Exception):  # not there, or this notebook may not read it
                if name not in os.environ:
                    os.environ[name] = userdata.get(name)


def _bounded_send(requests):
    """`Session.send` with a timeout, which Kaggle's client forgets, and without error pages in a resumed file."""
    send = requests.Session.send

    def bounded_send(session, request, **options):
        response = send(session, request, **{**options, "timeout": TIMEOUT})
        if "Range" in request.headers and response.status_code >= 400 and response.status_code != 416:
            response.close()  # the client would write this page into the zip; on this error it tries again
            raise requests.ConnectionError(f"status {response.status_code}")
        return response

    return bounded_send


def _quiet_client():
    """Kaggle's client. Without credentials its import prints a help page, closes sys.stdin and wants to exit."""
    aside = mock.patch.object(sys, "stdin", io.StringIO())
    with aside, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            from kaggle.api.kaggle_api_extended import KaggleApi
        except (SystemExit, NameError):  # older clients, Colab's 2.0.2 too: the import gives up, but it is loaded
            KaggleApi = sys.modules["kaggle.api.kaggle_api_extended"].KaggleApi
        api = KaggleApi()
        with contextlib.suppress(Exception, SystemExit):  # then the request is anonymous, and the server decides
            api.authenticate()
    return api


def _explain(error, slug: str) -> tuple[str, str]:
    again, status = named("run the cell again"), getattr(error.response, "status_code", 0)
    what, todo = {
        0: ("The connection to Kaggle failed or stopped", f"Check the network and {again}"),
        401: ("Kaggle wants to know who you are, and got no valid credentials",
              "Make a new API token at https://www.kaggle.com/settings (an account is free) and put it into the "
              "environment variable or Colab secret KAGGLE_API_TOKEN"),
        403: (f"Kaggle does not let you have {slug}", f"Log in at {PAGE}{slug}, accept the terms, and {again}"),
    }.get(status, (f"Kaggle does not send {slug}", f"{again.capitalize()} later"))  # fmt: skip
    return f"{what} ({status})" if status else what, f"{todo}, or {browser_advice(slug)}"


def unpack(archive: Path, tree: Path, keep: Callable[[str], bool]) -> None:
    """Unpack the members whose names are kept to the new folder `tree`. Raises BadZipFile or DownloadError.
    zipfile keeps every name inside the folder (it drops "..", drives and absolute paths), writes a link as a plain
    file, never writes more bytes than declared, and checks the CRC."""
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    current = archive.name
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if keep(m.filename) and MARKER not in m.filename.split("/")]
            total, n_files = sum(member.file_size for member in members), sum(not member.is_dir() for member in members)
            if total > max(FREE_SIZE, MAX_RATIO * archive.stat().st_size):
                what = f"{archive} was not unpacked: it would become {size_text(total)}, {MAX_RATIO} times its size"
                raise DownloadError(what, "Get the data set from its own page", "Nothing of it was written")
            check_disk(tree.parent, f"{n_files} files, {size_text(total)} to unpack", total)
            for member in members:
                current = member.filename
                opened.extract(member, tree)
    except (DownloadError, MemoryError):
        raise
    except Exception as error:  # zipfile raises BadZipFile, EOFError, zlib.error, RuntimeError and more
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise zipfile.BadZipFile(f"{current}: {error}") from None
