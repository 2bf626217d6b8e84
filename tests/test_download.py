"""The real kaggle client against a server on 127.0.0.1 that sends, breaks off, stalls, lies and refuses."""

import contextlib
import errno
import importlib.metadata
import io
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from kaggle_server import SIGNATURE, KaggleServer, make_zip
from limits import gate, nobody, public_folder, small_disk, start, together
from PIL import Image

from unet_helpers import custom_data as masks
from unet_helpers.datasets import SLUGS, _is_no_copy, check_pairs, load_dataset
from unet_helpers.download import DownloadError, download_dataset, kaggle_client, unpack
from unet_helpers.download import dataset as download

MIB = 1 << 20
SLUG = "someone/road-scenes"
BULK = np.random.default_rng(0).bytes(4 * MIB)
FILES = {"a/one.bin": BULK[:MIB], "a/two.bin": BULK[MIB:], "b/three.txt": b"three"}
ZIP = make_zip(FILES)
TOKEN = "KGAT_TopSecretToken"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home without credentials, from which only 127.0.0.1 can be reached."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("KAGGLE_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in kaggle_client.SECRETS:  # what a test's Colab secrets set is taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(download, "KAGGLE_INPUT", tmp_path / "no_kaggle_input")
    return home


@pytest.fixture
def server(home, monkeypatch):
    import kagglesdk.kaggle_env as kaggle_env

    with KaggleServer(ZIP) as server:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between its retries
        yield server


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "data" / "roads"


def on_disk(folder: Path) -> dict[str, bytes]:
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert files.pop(download.MARKER).decode() == f"{SLUG}\n{len(files)} files\n"
    return files


def assert_whole(dest: Path, files=FILES):
    assert on_disk(dest) == files
    assert [path.name for path in dest.parent.iterdir()] == [dest.name]  # no zip, no staging


def assert_untouched(dest: Path):
    assert not dest.exists()
    assert not dest.with_name("roads.partial").exists()


def staged_zip(dest: Path) -> Path:
    return dest.with_name("roads.partial") / "road-scenes.zip"


# --- success ---


def test_a_download_is_whole_and_never_repeated(server, dest, capfd):
    assert download_dataset(dest, SLUG) == dest
    assert_whole(dest)
    shown = capfd.readouterr()
    assert "someone/road-scenes: 4.2 MB to download; " in shown.out
    assert " are free on the disk of " in shown.out
    assert "3 files, 4.2 MB to unpack" in shown.out
    assert "B/s]" in shown.err  # the progress bar, with size and speed
    assert "4.00M" in shown.err
    n_requests = len(server.requests)
    assert download_dataset(dest, SLUG) == dest
    assert len(server.requests) == n_requests
    server.content = make_zip({"new.txt": b"new"})
    assert download_dataset(dest, SLUG, force=True) == dest
    assert_whole(dest, {"new.txt": b"new"})


def test_the_clients_own_habits_are_kept_from_the_user(server, dest):
    """Its import prints a help page, closes sys.stdin and exits, where there are no credentials."""
    result = run_child(server, f"{CALL}\nprint('stdin is closed:', sys.stdin.closed)", dest)
    assert result.returncode == 0, result.stderr
    assert "stdin is closed: False" in result.stdout
    assert "Authentication" not in result.stdout + result.stderr
    assert_whole(dest)


def test_no_credentials_means_an_anonymous_request(server, dest):
    download_dataset(dest, SLUG)
    assert not any("Authorization" in headers for _, _, headers in server.requests)


def test_credentials_are_used_from_environment_and_home(server, home, dest, monkeypatch):
    (home / ".kaggle").mkdir()
    (home / ".kaggle" / "kaggle.json").write_text('{"username": "someone", "key": "abc"}')
    (home / ".kaggle" / "kaggle.json").chmod(0o600)
    download_dataset(dest, SLUG)
    assert server.requests[-2][2]["Authorization"].startswith("Basic ")
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    download_dataset(dest, SLUG, force=True)
    assert server.requests[-2][2]["Authorization"] == f"Bearer {TOKEN}"
    assert "Authorization" not in server.requests[-1][2]  # the storage's own address needs none


def test_each_colab_secret_is_read_on_its_own(server, dest, monkeypatch):
    asked = []

    def get(name):
        asked.append(name)
        if name != "KAGGLE_KEY":
            raise RuntimeError("SecretNotFoundError")
        return "abc"

    fake = types.ModuleType("google.colab.userdata")
    fake.get = get
    for name in ("google", "google.colab"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "google.colab.userdata", fake)
    download_dataset(dest, SLUG)
    assert asked == ["KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"]
    assert os.environ["KAGGLE_KEY"] == "abc"
    fake.get = {"KAGGLE_API_TOKEN": TOKEN}.__getitem__
    download_dataset(dest, SLUG, force=True)
    assert server.requests[-2][2]["Authorization"] == f"Bearer {TOKEN}"


def test_data_attached_to_a_kaggle_notebook_is_used_where_it_lies(server, dest, tmp_path, monkeypatch):
    attached = tmp_path / "input" / "datasets" / "someone" / "road-scenes"
    (attached / "Deeper" / "train").mkdir(parents=True)
    (tmp_path / "input" / "another").mkdir()
    monkeypatch.setattr(download, "KAGGLE_INPUT", tmp_path / "input")
    assert download_dataset(dest, SLUG) == attached
    assert download_dataset(dest, SLUG, has_layout=lambda f: (f / "train").is_dir()) == attached / "Deeper"
    assert server.requests == []
    assert_untouched(dest)


# --- refusals of the server ---


@pytest.mark.parametrize(
    ("status", "token", "message"),
    [
        (401, None, r"who you are, and there are no credentials here \(401\)\.\nMake an API token"),
        (401, TOKEN, r"did not accept your credentials \(401\)\.\nMake a new API token"),
        (403, TOKEN, r"does not let you have someone/road-scenes \(403\)\.\nLog in at https.*accept the terms"),
        (404, None, r"knows no data set someone/road-scenes \(404\)"),
        (429, None, r"Too many requests to Kaggle \(429\)\.\nWait some minutes"),
        (500, None, r"Kaggle has a problem of its own \(500\)\.\nRun the cell again later"),
        (503, None, r"Kaggle has a problem of its own \(503\)"),
    ],
)
def test_each_status_says_what_to_do(server, dest, monkeypatch, status, token, message):
    server.status = status
    if token:
        monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with pytest.raises(DownloadError, match=f"{message}(.|\n)*Nothing was lost or changed") as caught:
        download_dataset(dest, SLUG)
    assert len(str(caught.value).splitlines()) == 3
    assert "archive=" not in str(caught.value)
    assert status == 404 or "with a browser and give its path as ARCHIVE." in str(caught.value)
    assert_untouched(dest)


def test_offline(server, dest, monkeypatch):
    import kagglesdk.kaggle_env as kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match=r"The connection to Kaggle failed or stopped\.\nCheck the network"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)


def test_a_server_that_never_answers(home, dest, monkeypatch):
    """Also while the client asks about its token, which it does without a timeout."""
    import kagglesdk.kaggle_env as kaggle_env

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, address)
        monkeypatch.setattr(kaggle_client, "TIMEOUT", (2, 0.25))
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
        given_up = threading.Event()
        bound = threading.Timer(60, lambda: (given_up.set(), silent.shutdown(socket.SHUT_RDWR)))
        bound.start()
        with pytest.raises(DownloadError, match="The connection to Kaggle failed or stopped"):
            download_dataset(dest, SLUG)
        bound.cancel()
        assert not given_up.is_set()
    assert_untouched(dest)


# --- broken connections ---


def test_a_connection_cut_half_way_is_resumed(server, dest):
    server.steps = [("cut", 5 * MIB // 2)]
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert server.requests[-1][2]["Range"] == f"bytes={2 * MIB}-"
    assert len(server.sent) == 2
    assert sum(server.sent) - len(ZIP) <= MIB  # bytes sent twice: not more than one piece


def test_cut_for_good_and_run_again_later(server, dest):
    server.steps = [("cut", 5 * MIB // 2)] + [("cut", 100)] * 5
    with pytest.raises(DownloadError, match=r"run the cell again(.|\n)*Nothing was lost: 2\.1 MB are in .*partial"):
        download_dataset(dest, SLUG)
    assert not dest.exists()
    assert staged_zip(dest).read_bytes() == ZIP[: 2 * MIB]
    server.sent.clear()
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert server.requests[-1][2]["Range"] == f"bytes={2 * MIB}-"


@pytest.mark.parametrize("status", [503, 403])
def test_an_error_page_in_the_middle_of_a_resume_does_not_get_into_the_zip(server, dest, status):
    """503: Kaggle is busy. 403: the signed address is too old; the next run gets a fresh one."""
    server.steps = [("cut", 3 * MIB)] + [("status", status)] * 5
    with pytest.raises(DownloadError, match=r"(?s)The connection to Kaggle failed.*Nothing was lost: 3\.1 MB"):
        download_dataset(dest, SLUG)
    assert staged_zip(dest).read_bytes() == ZIP[: 3 * MIB]
    server.steps = [("status", status)]
    with contextlib.suppress(DownloadError):
        download_dataset(dest, SLUG)
    download_dataset(dest, SLUG)
    assert_whole(dest)
    # The client opens the whole zip, looks at its size and asks again for what is missing.
    assert server.requests[-1][2]["Range"] == f"bytes={3 * MIB}-"
    assert server.sent[-1] == len(ZIP) - 3 * MIB


def test_a_stalled_body_times_out_and_is_resumed(server, dest, monkeypatch):
    """Only here is the client impatient: a busy machine answers nothing for a second now and then."""
    monkeypatch.setattr(kaggle_client, "TIMEOUT", (60, 3))
    server.steps = [("stall", 5 * MIB // 2)]
    download_dataset(dest, SLUG)
    assert not server.gave_up
    assert_whole(dest)
    assert server.requests[-1][2]["Range"] == f"bytes={2 * MIB}-"


def test_a_new_version_is_not_glued_to_an_old_half(server, dest):
    server.steps = [("cut", 5 * MIB // 2)] + [("cut", 0)] * 5
    with pytest.raises(DownloadError):
        download_dataset(dest, SLUG)
    new = {"a/new.bin": BULK[::-1]}
    server.content, server.etag = make_zip(new), '"v2"'
    download_dataset(dest, SLUG)
    assert_whole(dest, new)


# --- damaged archives ---


def corrupt(content: bytes) -> bytes:
    return content[: 2 * MIB] + bytes([content[2 * MIB] ^ 255]) + content[2 * MIB + 1 :]


def test_a_damaged_zip_from_an_earlier_run_heals_itself(server, dest):
    """As the client leaves it after an error page: the right size, never asked for again."""
    staged_zip(dest).parent.mkdir(parents=True)
    staged_zip(dest).write_bytes(corrupt(ZIP))
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert len(server.sent) == 2  # the client looked at it and left it; then all of it came once


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (corrupt(ZIP), "a/two.bin: Bad CRC-32"),
        (ZIP[: 3 * MIB], "road-scenes.zip: File is not a zip file"),
    ],
    ids=["corrupt", "truncated"],
)
def test_a_zip_damaged_twice_is_an_error_and_leaves_nothing(server, dest, content, what):
    server.content = content
    todo = r"\nTry again later.*as ARCHIVE\.\n.*no folder was changed"
    with pytest.raises(DownloadError, match=rf"damaged twice: {what}.*{todo}"):
        download_dataset(dest, SLUG)
    assert server.sent == [len(content)] * 2
    assert_untouched(dest)


WEB_PAGES = [b"<html>Please log in to this WLAN</html>", b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html>Sign in</html>"]


@pytest.mark.parametrize("page", WEB_PAGES)
def test_a_web_page_in_place_of_the_zip_is_called_one(server, dest, page):
    server.content = page
    message = r"(?s)A web page came instead of the zip of someone/road-scenes.*KAGGLE_API_TOKEN.*as ARCHIVE\.\n"
    with pytest.raises(DownloadError, match=message) as caught:
        download_dataset(dest, SLUG)
    assert len(str(caught.value).splitlines()) == 3
    assert server.sent == [len(page)]  # the next one would be the same
    assert_untouched(dest)


def test_sizes_are_told_in_words():
    sizes = (None, 0, 7, 1234, 1_230_000, 8_400_000_000)
    assert [unpack.size_text(size) for size in sizes] == [
        "a size not told", "0 bytes", "7 bytes", "1,234 bytes", "1.2 MB", "8.4 GB",
    ]  # fmt: skip


def test_a_size_that_the_server_does_not_tell(server, dest, capsys):
    server.announce_length = False
    with contextlib.suppress(DownloadError):  # older clients need it
        download_dataset(dest, SLUG)
        assert "someone/road-scenes: a size not told to download; " in capsys.readouterr().out


def test_a_body_of_untold_length_that_breaks_off(server, dest):
    server.announce_length = False
    server.steps = [("cut", 3 * MIB)]
    try:
        download_dataset(dest, SLUG)
    except DownloadError:
        # Clients such as Colab's 2.0.2 can't do without the length: refused whole, which is the other good end.
        assert importlib.metadata.version("kaggle").split(".") < ["2", "2"]
        assert not dest.exists()
    else:
        assert_whole(dest)


# --- killed at any moment ---

CALL = "download.download_dataset(dest, slug)"


def run_child(server, code, dest, wait=True):
    """Another process that runs code; it ends by itself or is killed."""
    code = f"""
import os, shutil, signal, sys, zipfile
from pathlib import Path
import kagglesdk.kaggle_env as kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = {server.url!r}
from unet_helpers.download import dataset as download
dest, slug = Path({str(dest)!r}), {SLUG!r}
download.KAGGLE_INPUT = Path("/nowhere")
def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)
{code}"""
    child = start(code)
    if not wait:
        return child
    out, err = child.communicate(timeout=120)
    return subprocess.CompletedProcess([], child.returncode, out, err)


def test_killed_in_the_middle_of_the_download(server, dest):
    server.steps = [("stall", 5 * MIB // 2)]
    child = run_child(server, CALL, dest, wait=False)
    try:
        pause, until = server.ended.wait, time.perf_counter() + 120
        while time.perf_counter() < until:
            if staged_zip(dest).is_file() and staged_zip(dest).stat().st_size >= 2 * MIB:
                break
            pause(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    assert not dest.exists()
    server.sent.clear()
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert server.requests[-1][2]["Range"] == f"bytes={2 * MIB}-"
    assert server.sent[-1] == len(ZIP) - 2 * MIB


@pytest.mark.parametrize(
    "fatal",
    [
        "opened = zipfile.ZipFile.open\n"
        "zipfile.ZipFile.open = lambda self, m, *a: die() if 'three' in str(m) else opened(self, m, *a)",
        "Path.write_text = die",  # the marker
        "download.os.replace = die",
        "download._clean = die",
    ],
    ids=["in the middle of unpacking", "before the marker", "before it is put in place", "before the last cleaning"],
)
def test_killed_later(server, dest, fatal):
    result = run_child(server, f"{fatal}\n{CALL}", dest)
    assert result.returncode == -signal.SIGKILL, result.stderr
    if dest.exists():
        assert on_disk(dest) == FILES
    server.sent.clear()
    n_posts = len(server.requests)
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert len(server.requests) - n_posts in (0, 2)
    if dest.exists() and "replace" in fatal:
        assert len(server.requests) == n_posts  # it was whole: nothing is asked for


def test_killed_while_a_forced_download_replaces_the_old_one(server, dest):
    download_dataset(dest, SLUG)
    server.content = make_zip({"new.txt": b"new"})
    code = "replace = os.replace\ndownload.os.replace = lambda a, b: die() if a.name == 'tree' else replace(a, b)"
    result = run_child(server, f"{code}\ndownload.download_dataset(dest, slug, force=True)", dest)
    assert result.returncode == -signal.SIGKILL, result.stderr
    download_dataset(dest, SLUG)
    assert_whole(dest, {"new.txt": b"new"})


MARKED = {download.MARKER: SLUG.encode(), **FILES}
UNPACKS_A_PART = (
    "opened = zipfile.ZipFile.open\n"
    "zipfile.ZipFile.open = lambda self, m, *a: die() if 'three' in str(m) else opened(self, m, *a)"
)


def test_an_archive_cannot_say_that_it_is_unpacked(server, dest, tmp_path):
    """Its own note, written first, would make a tree whole that a kill left half."""
    server.content = make_zip(MARKED)
    result = run_child(server, f"{UNPACKS_A_PART}\n{CALL}", dest)
    assert result.returncode != 0
    with pytest.raises(DownloadError, match=r"'\.download_complete' has the name of the note that marks a finished"):
        download_dataset(dest, SLUG)
    assert not dest.exists()


@pytest.mark.parametrize("name", ["a/.download_complete", "a\\.Download_Complete", ".download_complete/x.txt"])
def test_the_name_of_our_note_is_refused_at_any_level(server, dest, name):
    server.content = make_zip({"good.txt": b"good", name: SLUG.encode()})
    with pytest.raises(DownloadError, match="has the name of the note that marks a finished download"):
        download_dataset(dest, SLUG)
    assert not dest.exists()


# --- two at once ---

WAITS = "another process is downloading to {}: waiting for it\n"
COUNT = "print(sum(path.is_file() for path in download.download_dataset(dest, slug).rglob('*')))"


@pytest.mark.parametrize("repeat", range(5))
def test_two_downloads_at_once_are_one(server, dest, tmp_path, repeat):
    slow = "fetch = download.fetch_zip\ndownload.fetch_zip = lambda *a: (until_met(), fetch(*a))"
    children = [run_child(server, f"{gate(tmp_path)}\n{slow}\n{COUNT}", dest, wait=False) for _ in range(2)]
    ends = together(tmp_path, *children)
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert [out.splitlines()[-1] for _, out, _ in ends] == ["4", "4"]  # with the note
    assert sorted(out.count(WAITS.format(dest)) for _, out, _ in ends) == [0, 1]
    assert server.sent == [len(ZIP)]
    assert_whole(dest)


@pytest.mark.parametrize("force", [False, True])
def test_one_that_waits_goes_on_when_the_other_is_killed(server, dest, tmp_path, force):
    server.steps = [("stall", 5 * MIB // 2)]
    first = run_child(server, CALL, dest, wait=False)
    until = time.perf_counter() + 120
    while time.perf_counter() < until and not (staged_zip(dest).is_file() and staged_zip(dest).stat().st_size > MIB):
        server.ended.wait(0.02)
    second = run_child(server, f"download.download_dataset(dest, slug, force={force})", dest, wait=False)
    assert second.stdout.readline() == WAITS.format(dest)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=120)
    shown = second.communicate(timeout=120)
    assert second.returncode == 0, shown
    assert_whole(dest)


def test_a_finished_set_is_returned_while_another_process_replaces_it(server, dest):
    download_dataset(dest, SLUG)
    code = UNPACKS_A_PART.replace("die()", "(print('half', flush=True), signal.pause())")
    other = run_child(server, f"{code}\ndownload.download_dataset(dest, slug, force=True)", dest, wait=False)
    while "half" not in other.stdout.readline():
        assert other.poll() is None
    tree = staged_zip(dest).with_name("tree")
    half = snapshot(tree)
    assert len(half) == 2
    n_requests = len(server.requests)
    assert download_dataset(dest, SLUG) == dest
    assert on_disk(dest) == FILES
    assert len(server.requests) == n_requests
    assert snapshot(tree) == half  # the other's work is left alone
    other.kill()
    other.communicate(timeout=120)
    download_dataset(dest, SLUG, force=True)
    assert_whole(dest)


def test_a_finished_set_that_may_only_be_read_is_returned(server):
    with public_folder() as folder:
        dest = download_dataset(folder / "roads", SLUG)
        folder.chmod(0o555)
        n_requests = len(server.requests)
        with nobody():
            assert download_dataset(dest, SLUG) == dest
        assert len(server.requests) == n_requests


# --- the disk ---

Usage = namedtuple("Usage", "total used free")


def test_a_disk_that_is_too_small_is_seen_before_anything_is_downloaded(server, dest, monkeypatch):
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: Usage(0, 0, 3 * MIB))
    with pytest.raises(DownloadError, match=r"4\.2 MB to download, but only 3\.1 MB are free(.|\n)*Make room"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)


def test_a_disk_that_would_get_nearly_full_is_asked_about(server, dest, monkeypatch):
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: Usage(0, 0, 2 * 10**9))
    with pytest.raises(DownloadError, match="stopped, because it would nearly fill the disk"):
        download_dataset(dest, SLUG)  # nobody is there to answer
    questions = []
    monkeypatch.setattr("builtins.input", lambda text: questions.append(text) or "n")
    with pytest.raises(DownloadError, match="stopped, because"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)
    monkeypatch.setattr("builtins.input", lambda text: "y")
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert questions == ["It needs about 8.4 MB and would nearly fill the disk. Go on? [y/N] "]


def test_the_disk_gets_full_while_unpacking(server, dest, monkeypatch):
    copy = unpack.shutil.copyfileobj

    def full(source, target, length):
        copy(io.BytesIO(source.read(10)), target, length)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpack.shutil, "copyfileobj", full)
    with pytest.raises(DownloadError, match=r"The disk of .*roads is full(.|\n)*Nothing was lost: 4\.2 MB"):
        download_dataset(dest, SLUG)
    assert not dest.exists()
    assert [path.name for path in staged_zip(dest).parent.iterdir()] == ["road-scenes.zip"]
    monkeypatch.undo()


def test_the_disk_gets_full_while_downloading(server, dest, monkeypatch):
    from kaggle.api.kaggle_api_extended import KaggleApi

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(KaggleApi, "download_file", full)
    with pytest.raises(DownloadError, match=r"The disk of .*roads is full"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)


def test_a_really_full_disk_keeps_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: Usage(0, 0, 10**12))  # it fills up while we work
    with small_disk(tmp_path / "disk", 6 * MIB) as disk:
        write(disk / "mine.txt", b"mine")
        with pytest.raises(DownloadError) as caught:
            download_dataset(disk / "roads", SLUG)
        lines = str(caught.value).splitlines()
        assert lines[0] == f"The disk of {disk / 'roads'} is full."
        assert lines[1].startswith("Make room, or give a folder on another disk as DATA_DIR")
        assert lines[2].startswith("Nothing was lost: 4.2 MB are in ")
        assert sorted(path.name for path in disk.rglob("*")) == ["mine.txt", "road-scenes.zip", "roads.partial"]


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_or_looked_into(server, mode):
    message = r"Permission denied: .*data/roads.*\.\nRepair that, or"
    with public_folder() as folder:
        download_dataset(folder / "warm", SLUG)  # nobody may be unable to import what is imported only when it is used
        (folder / "data").mkdir()
        (folder / "data").chmod(mode)
        with nobody(), pytest.raises(DownloadError, match=message) as caught:
            download_dataset(folder / "data" / "roads", SLUG)
        assert len(str(caught.value).splitlines()) == 3


def test_a_data_set_that_may_not_be_looked_into_is_named(server):
    with public_folder() as folder:
        put(lyft_files(), folder / "data" / "lyft")
        load_dataset("lyft", folder / "data")
        (folder / "data" / "lyft").chmod(0)
        with nobody(), pytest.raises(DownloadError, match=r"Permission denied: .*data/lyft.*\.\nRepair that"):
            load_dataset("lyft", folder / "data")
        assert server.requests == []
        (folder / "data" / "lyft").chmod(0o755)


def test_foreign_files_are_never_touched(server, dest):
    dest.mkdir(parents=True)
    download_dataset(dest, SLUG)  # an empty folder is nobody's
    (dest / download.MARKER).write_text("someone/another-set")
    before = sorted(dest.rglob("*"))
    n_requests = len(server.requests)
    for force in (False, True):
        with pytest.raises(DownloadError, match=r"exists and was not made by this(.|\n)*Nothing in it was touched"):
            download_dataset(dest, SLUG, force=force)
    assert sorted(dest.rglob("*")) == before
    assert len(server.requests) == n_requests


# --- the user's own zip, and hostile ones ---


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_the_users_own_zip_needs_no_network(server, dest, tmp_path):
    mine = write(tmp_path / "archive.zip", ZIP)
    assert download_dataset(dest, SLUG, archive=mine) == dest
    assert_whole(dest)
    assert mine.read_bytes() == ZIP
    assert server.requests == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (corrupt(ZIP), r"(?s)archive\.zip is no zip that can be unpacked: a/two\.bin: Bad CRC-32.*as ARCHIVE\.\n"),
        (ZIP[:MIB], r"archive\.zip is no zip that can be unpacked: archive\.zip: File is not a zip"),
        (make_zip({"holiday.jpg": b"beach"}), "does not hold the folders that someone/road-scenes is known for"),
        (WEB_PAGES[0], r"archive\.zip is a web page\.\nSign in at https.*, download it again and give its"),
        (None, r"ARCHIVE: there is no file .*archive\.zip"),
    ],
    ids=["corrupt", "truncated", "another zip", "a web page", "no file"],
)
def test_a_wrong_zip_of_the_users_is_named_and_kept(server, dest, tmp_path, content, message):
    mine = tmp_path / "archive.zip"
    if content:
        write(mine, content)
    with pytest.raises(DownloadError, match=message):
        download_dataset(dest, SLUG, archive=mine, has_layout=lambda folder: (folder / "one.bin").is_file())
    assert content is None or mine.read_bytes() == content
    assert_untouched(dest)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", ["road-scenes.zip", "mine.zip", "deeper/mine.zip", "mine.zip.kaggle-partial"])
@pytest.mark.parametrize("content", [ZIP, corrupt(ZIP)], ids=["whole", "corrupt"])
def test_the_users_zip_stays_even_where_the_work_lies(server, dest, content, name, force):
    mine = staged_zip(dest).parent / name
    mine.parent.mkdir(parents=True)
    write(mine, content)
    if content == ZIP:
        assert download_dataset(dest, SLUG, archive=mine, force=force) == dest
        assert on_disk(dest) == FILES
        assert download_dataset(dest, SLUG) == dest  # whose last step is to clean
    else:
        with pytest.raises(DownloadError, match="no zip that can be unpacked(.|\n)*It was not changed"):
            download_dataset(dest, SLUG, archive=mine, force=force)
        assert not dest.exists()
    assert mine.read_bytes() == content
    assert [path for path in staged_zip(dest).parent.rglob("*") if path.is_file()] == [mine]
    assert server.requests == []


@pytest.mark.parametrize("place", ["roads", "roads.partial/tree", "roads.partial/old"])
def test_the_users_zip_is_refused_where_it_would_be_replaced(server, dest, place):
    download_dataset(dest, SLUG)
    (dest.parent / place).mkdir(parents=True, exist_ok=True)
    mine = write(dest.parent / place / "mine.zip", ZIP)
    with pytest.raises(DownloadError, match=rf"ARCHIVE: .*mine\.zip lies in .*{place}, which this run replaces\."):
        download_dataset(dest, SLUG, archive=mine, force=True)
    assert mine.read_bytes() == ZIP


@pytest.mark.parametrize("name", ["", "road-scenes.zip", "road-scenes.zip.kaggle-partial", "tree", "old"])
def test_links_where_the_work_lies_are_refused(server, dest, tmp_path, name):
    mine = tmp_path / "mine"
    if ".zip" in name:
        write(mine, ZIP[:MIB])  # a client would go on with it
    else:
        put({"tree/photo.jpg": b"mine", "old/photo.jpg": b"mine", "photo.jpg": b"mine", "a.zip": ZIP}, mine)
        write(mine / download.MARKER, SLUG.encode())  # as if it were whole
    before = snapshot(mine)
    link = staged_zip(dest).parent / name
    link.parent.mkdir(parents=True)
    link.symlink_to(mine)
    for archive in (None, write(tmp_path / "archive.zip", ZIP)):
        with pytest.raises(DownloadError) as caught:
            download_dataset(dest, SLUG, archive=archive)
        assert f"{link} is a link, expected a " in str(caught.value)
        assert "Delete the link, or give another folder as DATA_DIR" in str(caught.value)
    assert snapshot(mine) == before
    assert link.is_symlink()
    assert not dest.exists()
    assert server.requests == []
    link.unlink()
    download_dataset(dest, SLUG)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(mine)
    assert download_dataset(dest, SLUG) == dest  # a finished one needs no work
    assert snapshot(mine) == before


def snapshot(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in (path, *path.rglob("*")) if file.is_file()}


def special(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, mode << 16
    return member


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "a/../../out.txt", "/out.txt", "C:/out.txt", "..\\out.txt", "\\\\host\\out.txt", "a/b\nc.txt"],
)
def test_members_that_point_outside(server, dest, tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    server.content = make_zip({"good.txt": b"good", name: b"bad"})
    with pytest.raises(DownloadError) as caught:
        download_dataset(dest, SLUG)
    assert repr(name) in str(caught.value)
    new = set(tmp_path.rglob("*")) - set(before)
    assert {path.name for path in new if path.is_file()} <= {"road-scenes.zip"}
    assert not dest.exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_members_that_are_no_files(server, dest, kind):
    server.content = make_zip({"good.txt": b"good", special("link", kind | 0o777): b"/etc"})
    with pytest.raises(DownloadError, match="'link' is a link or a device"):
        download_dataset(dest, SLUG)
    assert not dest.exists()


@pytest.mark.parametrize(
    "name",
    ["CON", "a/prn", "aux.txt", "NUL.png", "nul.tar.gz", "a/COM1", "lpt9.png", "Com².txt", "NUL .png", "con/a.png"]
    + ["a./b.png", "b.png.", "a /b.png", "b.png ", "..."]
    + [f"ab{character}c.png" for character in '?*<>|":\t'],
)
def test_names_that_windows_refuses(server, dest, name):
    server.content = make_zip({"good.txt": b"good", name: b"bad"})
    with pytest.raises(DownloadError) as caught:
        download_dataset(dest, SLUG)
    assert repr(name) in str(caught.value)
    assert "Windows" in str(caught.value).splitlines()[0]
    assert not dest.exists()


def test_names_that_only_look_like_refused_ones(server, dest):
    names = ["icon.png", "console/a.png", "com10.txt", "COM.txt", "aux_1.png", ".hidden", "a b/c.d e.png", "ü.png"]
    server.content = make_zip(dict.fromkeys(names, b"good"))
    download_dataset(dest, SLUG)
    assert sorted(on_disk(dest)) == sorted(names)


@pytest.mark.parametrize(
    ("twin", "what"),
    [
        ("A/One.bin", "'A/One.bin' and 'a/one.bin' are one file where upper and lower case are the same"),
        ("a/./one.bin", "'a/./one.bin' and 'a/one.bin' are the same file"),
        ("a\\one.bin", r"'a\\one.bin' and 'a/one.bin' are the same file"),
        ("a/one.bin", "'a/one.bin' is in it twice"),
    ],
)
def test_names_of_the_same_file(server, dest, twin, what):
    both, file = [("a/one.bin", b"1"), (twin, b"2")], io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings(action="ignore"):
        for name, content in both:
            archive.writestr(name, content)
    server.content = file.getvalue()
    with pytest.raises(DownloadError) as caught:
        download_dataset(dest, SLUG)
    assert f"was not unpacked: {what}." in str(caught.value)
    assert not dest.exists()


def test_a_zip_bomb_and_a_million_members(server, dest, monkeypatch):
    server.content = make_zip({"zeros.bin": bytes(64 * MIB)}, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: Usage(0, 0, 60 * MIB))
    monkeypatch.setattr(unpack, "RESERVE", 0)
    with pytest.raises(DownloadError, match=r"1 files, 67\.1 MB to unpack, but only 62\.9 MB are free"):
        download_dataset(dest, SLUG)
    assert not dest.exists()
    monkeypatch.setattr(unpack, "MAX_MEMBERS", 9)
    server.content, server.etag = make_zip({f"{n}.txt": b"" for n in range(10)}), '"v2"'
    with pytest.raises(DownloadError, match="it has 10 members, more than 9"):
        download_dataset(dest, SLUG, force=True)
    assert not dest.exists()


def test_what_inflates_far_more_than_pictures_is_refused(server, dest):
    server.content = make_zip({"zeros.bin": bytes(101 * 10**6)}, zipfile.ZIP_DEFLATED)
    said = r"was not unpacked: its \S+ (MB|bytes) would become 101\.0 MB, more than 20 times as many\.\nDon't use it"
    with pytest.raises(DownloadError, match=said):
        download_dataset(dest, SLUG)
    assert not dest.exists()
    assert not staged_zip(dest).with_name("tree").exists()


def test_a_bomb_that_lies_about_its_size(server, dest):
    """Declared: 1,000 bytes; packed: 8 MiB. Not a byte more than declared is written."""
    content = make_zip({"zeros.bin": bytes(8 * MIB)}, zipfile.ZIP_DEFLATED)
    server.content = content.replace((8 * MIB).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert server.content != content
    largest, opened = [], zipfile.ZipExtFile.read

    def read(self, n=-1):
        data = opened(self, n)
        largest.append(len(data))
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zipfile.ZipExtFile, "read", read)
        with pytest.raises(DownloadError, match="damaged twice: zeros.bin: Bad CRC-32"):
            download_dataset(dest, SLUG)
    assert max(largest, default=0) <= 1000
    assert_untouched(dest)


# --- what the user sees ---


@pytest.mark.parametrize("how", ["success", "401", "503", "cut for good"])
def test_no_credential_is_shown_or_written(server, dest, tmp_path, monkeypatch, capfd, how):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", "TopSecretKey")
    server.status = int(how) if how.isdigit() else 302
    if how == "cut for good":
        server.steps = [("cut", 2 * MIB)]
        monkeypatch.setattr(time, "sleep", lambda _: server.go_offline())  # now the client's errors quote the address
    shown = ""
    try:
        download_dataset(dest, SLUG)
    except DownloadError as error:
        shown = str(error) + "".join(traceback.format_exception(error)) + "".join(error._render_traceback_())
    captured = capfd.readouterr()
    shown += captured.out + captured.err
    if how == "cut for good":
        assert "Retrying in" in shown
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (TOKEN, "TopSecretKey", SIGNATURE):
        assert secret not in shown
        assert secret.encode() not in written


def test_a_notebook_shows_a_short_message():
    from IPython.core.interactiveshell import InteractiveShell

    shell, screen = InteractiveShell(), io.StringIO()
    with contextlib.redirect_stdout(screen):
        shell.run_cell(
            "from unet_helpers.download import DownloadError\n"
            "raise DownloadError('What.\\nDo this.\\nNothing was lost.')"
        )
    lines = screen.getvalue().strip().splitlines()
    assert [line.replace("\x1b[31m", "").replace("\x1b[0m", "") for line in lines] == [
        "DownloadError: What.", "Do this.", "Nothing was lost.",
    ]  # fmt: skip


def test_without_the_package_kaggle(home, dest, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "kaggle"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kaggle", None)
    with pytest.raises(DownloadError, match=r"Python finds no package 'kaggle'\.\nRun `pip install kaggle`"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)


def test_the_annex_says_that_it_is_one_and_has_a_small_door():
    for module in (download, kaggle_client, unpack):
        assert "An annex: nobody needs it to follow the lesson." in module.__doc__.splitlines()[0], module.__name__
    package = importlib.import_module("unet_helpers.download")
    assert "Annex" in package.__doc__.splitlines()[0]
    assert sorted(package.__all__) == ["DownloadError", "check_whole", "download_dataset", "find_layout"]


# --- the two data sets ---


def png(array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.uint8(array)).save(file, "PNG")
    return file.getvalue()


def lyft_files(n_drives: int = 1) -> dict[str, bytes]:
    picture, mask = png(np.full((6, 8, 3), 90)), png(np.full((6, 8, 3), (7, 0, 0)))
    files = {}
    for letter, stem in (("A", "02_00_010"), ("B", "09_00_012"), ("E", "F1-9")):
        for camera, content in (("CameraRGB", picture), ("CameraSeg", mask)):
            files[f"data{letter}/data{letter}/{camera}/{stem}.png"] = content
    return files | {name.replace("data", "\0").lower().replace("\0", "data"): files[name] for name in files}


def test_lyft_is_downloaded_once_and_its_lower_case_copy_not_unpacked(server, tmp_path):
    server.content = make_zip(lyft_files())
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    dataset = load_dataset("lyft", data_dir)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [1, 1, 1]
    assert check_pairs(dataset.train, dataset.labels)[7] == 48
    names = [path.relative_to(data_dir).as_posix() for path in data_dir.rglob("*.png")]
    assert len(names) == 6
    assert len({name.lower() for name in names}) == 6  # none is another one on a case-insensitive file system
    n_requests = len(server.requests)
    assert load_dataset("lyft", data_dir) == dataset
    assert len(server.requests) == n_requests


def test_a_finished_download_of_which_files_are_gone_is_not_used(server, tmp_path, capsys):
    server.content = make_zip(lyft_files())
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    dataset = load_dataset("lyft", data_dir)
    assert "pairs to train" not in capsys.readouterr().out  # however few they are
    (data_dir / "lyft" / "dataA" / "mine.txt").write_text("mine")
    (data_dir / "lyft" / "mine.txt").write_text("mine")
    assert load_dataset("lyft", data_dir) == dataset
    for path in (*dataset.test[0], data_dir / "lyft" / "mine.txt", data_dir / "lyft" / "dataA" / "mine.txt"):
        path.unlink()
    before, n_requests = look_at(data_dir), len(server.requests)
    said = r"(?s)lyft: 4 of the 6 files of this finished download are there\.\nMove the folder away.*Nothing was"
    for folder in (data_dir, data_dir / "lyft"):
        with pytest.raises(DownloadError, match=said):
            load_dataset("lyft", folder)
    with pytest.raises(DownloadError, match=said):
        download_dataset(data_dir / "lyft", SLUGS["lyft"])
    assert look_at(data_dir) == before
    assert len(server.requests) == n_requests
    (data_dir / "lyft" / download.MARKER).unlink()  # whoever wants to use the rest says so
    (data_dir / "lyft" / "dataE" / "dataE" / "CameraRGB").rmdir()
    (data_dir / "lyft" / "dataE" / "dataE" / "CameraSeg").rmdir()
    (data_dir / "lyft" / "dataE" / "dataE").rmdir()
    (data_dir / "lyft" / "dataE").rmdir()
    assert len(load_dataset("lyft", data_dir).train) == 1
    assert "1 + 1 + 0 pairs to train, validate and test, of 3550 + 750 + 700: is the whole" in capsys.readouterr().out


def test_a_set_that_somebody_put_there_and_is_not_whole_is_said(tmp_path, capsys):
    root = put(camvid_files(""), tmp_path / "camvid")
    assert len(load_dataset("camvid", root).train) == 3
    said = f"note: {root}: 3 + 1 + 2 pairs to train, validate and test, of 367 + 100 + 232: is the whole set there?"
    assert said in capsys.readouterr().out


def test_both_copies_have_names_that_differ_in_case_only():
    kept = [name for name in lyft_files() if _is_no_copy(name)]
    assert len(kept) == 6
    assert all(name.startswith(("dataA/", "dataB/", "dataE/")) for name in kept)
    assert not _is_no_copy("archive/dataa/dataa/CameraRGB/F1-9.png")


COLORS = {
    "Animal": (64, 128, 64), "Archway": (192, 0, 128), "Bicyclist": (0, 128, 192), "Bridge": (0, 128, 64),
    "Building": (128, 0, 0), "Car": (64, 0, 128), "CartLuggagePram": (64, 0, 192), "Child": (192, 128, 64),
    "Column_Pole": (192, 192, 128), "Fence": (64, 64, 128), "LaneMkgsDriv": (128, 0, 192),
    "LaneMkgsNonDriv": (192, 0, 64), "Misc_Text": (128, 128, 64), "MotorcycleScooter": (192, 0, 192),
    "OtherMoving": (128, 64, 64), "ParkingBlock": (64, 192, 128), "Pedestrian": (64, 64, 0), "Road": (128, 64, 128),
    "RoadShoulder": (128, 128, 192), "Sidewalk": (0, 0, 192), "SignSymbol": (192, 128, 128), "Sky": (128, 128, 128),
    "SUVPickupTruck": (64, 128, 192), "TrafficCone": (0, 0, 64), "TrafficLight": (0, 64, 64), "Train": (192, 64, 128),
    "Tree": (128, 128, 0), "Truck_Bus": (192, 128, 192), "Tunnel": (64, 0, 64), "VegetationMisc": (192, 192, 0),
    "Void": (0, 0, 0), "Wall": (64, 192, 0),
}  # fmt: skip
CSV = "name, r, g, b\n" + "".join(f"{name},{r}, {g} ,{b}\n" for name, (r, g, b) in COLORS.items())


def camvid_files(folder: str = "CamVid/") -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {f"{folder}class_dict.csv": CSV.encode()}
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for n in range(count):
            stem = f"0001TP_00{n}{len(split)}"
            # One column a class, in the order of the list, then a void one.
            values = np.array([*COLORS.values(), (0, 0, 0)])[None].repeat(8, 0)
            files[f"{folder}{split}/{stem}.png"] = png(rng.integers(0, 255, (8, 33, 3)))
            files[f"{folder}{split}_labels/{stem}_L.png"] = png(values)
    return files


@pytest.mark.parametrize("folder", ["", "CamVid/"])
def test_kaggles_camvid_loads_with_the_eleven_classes(server, tmp_path, folder):
    server.content = make_zip(camvid_files(folder))
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    dataset = load_dataset("camvid", data_dir)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [3, 1, 2]
    # 8 rows and 3 pictures: sky 1 class of the 32, building 5, pole 2, road 3, ...
    assert (check_pairs(dataset.train, dataset.labels) / 24).tolist() == [1, 5, 2, 3, 3, 2, 3, 1, 5, 4, 2]
    values = np.asarray(Image.open(dataset.test[0].mask))[0]
    names = dict(zip(COLORS, values, strict=False))
    expected = {"Sky": 0, "Wall": 1, "LaneMkgsDriv": 3, "Truck_Bus": 8, "Child": 9, "Void": 255}
    assert {name: names[name] for name in expected} == expected
    assert load_dataset("camvid", data_dir) == dataset
    assert sorted(path.name for path in data_dir.iterdir()) == ["camvid", "camvid.prepared"]
    assert {path.parents[1] for path in (dataset.train[0].mask, dataset.test[0].mask)} == {data_dir / "camvid.prepared"}


def put(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, content)
    return folder


def look_at(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def prepare_camvid(root: Path, *places: Path) -> masks.Prepared:
    names = {"train": "train", "validation": "val", "test": "test"}
    folders = {split: (root / name, root / f"{name}_labels") for split, name in names.items()}
    return masks.prepare_pairs(root, folders, masks.camvid_classes(root), *places)


def test_camvid_masks_with_other_colours(tmp_path):
    root = put(camvid_files(""), tmp_path / "data")
    mask = next((root / "val_labels").iterdir())
    values = np.array(Image.open(mask))
    values[0, 0] = (1, 2, 3)  # a single pixel of 264: noise, void
    write(mask, png(values))
    dataset = load_dataset("camvid", root)
    assert np.asarray(Image.open(dataset.validation[0].mask))[0, 0] == 255
    values[:, :9] = (1, 2, 3)
    write(mask, png(values))
    with pytest.raises(ValueError, match=r"_L\.png \(27% of it, such as 1,2,3\): .*class_dict\.csv does not list"):
        prepare_camvid(root, tmp_path / "again")
    assert not list(tmp_path.glob("again*"))
    (root / "class_dict.csv").write_text(CSV.replace("Sky,", "Heaven,"))
    with pytest.raises(ValueError, match=r"class_dict\.csv: the class 'sky' is not listed"):
        load_dataset("camvid", root)


def test_camvids_own_files_are_not_touched(tmp_path):
    root = put(camvid_files(""), tmp_path / "data")
    before = look_at(root)
    dataset = load_dataset("camvid", root)
    assert look_at(root) == before
    assert dataset.train[0].image.parent == root / "train"
    assert dataset.train[0].mask.is_relative_to(tmp_path / "data.prepared")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.prepared"]


def test_a_folder_that_is_not_the_written_masks_is_left_alone(tmp_path):
    root = put(camvid_files(""), tmp_path / "data")
    mine = tmp_path / "data.prepared" / "mine.png"
    mine.parent.mkdir()
    write(mine, b"the work of a week")
    with pytest.raises(ValueError, match=r"data\.prepared: its files are not those that are written here; move it"):
        load_dataset("camvid", root)
    assert look_at(mine.parent) == {"mine.png": b"the work of a week"}


def test_camvids_ids_of_an_earlier_version_are_ignored(tmp_path):
    root = put(camvid_files(""), tmp_path / "data")
    old = {f"train/{path.name}": png(np.zeros((8, 33))) for path in (root / "train").iterdir()}
    put(old, root / "camvid_ids")
    dataset = load_dataset("camvid", root)
    assert (check_pairs(dataset.train, dataset.labels) / 24).tolist() == [1, 5, 2, 3, 3, 2, 3, 1, 5, 4, 2]
    assert look_at(root / "camvid_ids") == old


@pytest.fixture
def read_only(monkeypatch):
    """A folder with Kaggle's CamVid that may be read only, and the working folder "here" beside it, for somebody who is
    not root: permissions do not stop root, so root becomes nobody until the test is over."""
    with tempfile.TemporaryDirectory() as folder:
        root, here = put(camvid_files(""), Path(folder) / "input"), Path(folder) / "here"
        here.mkdir()
        warm = load_dataset("camvid", put(camvid_files(""), Path(folder) / "warm"))
        check_pairs(warm.train, warm.labels)  # nobody may be unable to import what is imported only when it is used
        os.chmod(folder, 0o755)
        monkeypatch.chdir(here)
        root.chmod(0o555)
        try:
            with nobody(here):
                with pytest.raises(PermissionError):
                    (root / "probe").touch()
                yield root
        finally:
            for path in (root, here):
                path.chmod(0o755)
            monkeypatch.undo()  # a folder that is worked in can't be deleted everywhere


def test_camvid_in_a_read_only_folder_gets_its_ids_in_the_working_folder(read_only):
    before = look_at(read_only)
    dataset = load_dataset("camvid", read_only)
    assert dataset.train[0].image.parent == read_only / "train"
    assert (check_pairs(dataset.train, dataset.labels) / 24).tolist() == [1, 5, 2, 3, 3, 2, 3, 1, 5, 4, 2]
    (prepared,) = Path("data").iterdir()
    assert re.fullmatch(r"input-[0-9a-f]{8}\.prepared", prepared.name)
    assert dataset.train[0].mask.is_relative_to(prepared)
    written = dataset.train[0].mask.stat().st_mtime_ns
    assert load_dataset("camvid", read_only) == dataset
    assert dataset.train[0].mask.stat().st_mtime_ns == written
    assert look_at(read_only) == before


def test_nowhere_to_write_camvids_ids_names_both_folders(read_only):
    Path.cwd().chmod(0o555)
    denied = r"\.prepared \(Permission denied\)"
    places = rf"{read_only}{denied} or to data/input-[0-9a-f]+{denied}"
    with pytest.raises(ValueError, match=rf"can't be written anew to {places}; make one of these writable, or copy"):
        load_dataset("camvid", read_only)
    assert list(Path.cwd().iterdir()) == []


CAMVID_CODE = """
import os, signal
from pathlib import Path
from unet_helpers.datasets import load_dataset
from unet_helpers.custom_data import preparation as writing
folder = Path({folder!r})
"""


@pytest.mark.parametrize("repeat", range(3))
def test_two_at_once_write_camvids_ids_once(tmp_path, repeat):
    root = put(camvid_files(""), tmp_path / "data")
    code = CAMVID_CODE.format(folder=str(root)) + gate(tmp_path) + (
        "write = writing._write_whole\n"
        "writing._write_whole = lambda *a: (until_met(), write(*a))\n"
        "print(len(load_dataset('camvid', folder).train))"
    )  # fmt: skip
    ends = together(tmp_path, start(code), start(code))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert [out.splitlines()[-1] for _, out, _ in ends] == ["3", "3"]
    waits = f"another process is writing to {tmp_path / 'data.prepared'}: waiting for it\n"
    assert sorted(out.count(waits) for _, out, _ in ends) == [0, 1]
    assert sorted(out.count("writing 6 images and masks") for _, out, _ in ends) == [0, 1]
    assert not list(tmp_path.glob("*data.prepared?*"))


def test_what_a_killed_writing_of_camvids_ids_left_is_deleted(tmp_path):
    root = put(camvid_files(""), tmp_path / "data")
    child = start(CAMVID_CODE.format(folder=str(root)) + (
        "writing.os.replace = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\nload_dataset('camvid', folder)"
    ))  # fmt: skip
    child.communicate(timeout=120)
    assert [path.name for path in tmp_path.glob("data.*")] == [f"data.prepared.partial-{child.pid}"]
    assert len(load_dataset("camvid", root).train) == 3
    assert [path.name for path in tmp_path.glob("*data.*")] == ["data.prepared"]


def test_a_full_disk_under_camvids_ids_is_one_sentence(tmp_path):
    root = put(camvid_files(""), tmp_path / "data")
    message = r"^.*ids: its 6 images and masks can't be written \(No space left on device\); make room"
    with small_disk(tmp_path / "disk", 16_384) as disk:
        write(disk / "mine.txt", b"mine")
        with pytest.raises(ValueError, match=message) as caught:
            prepare_camvid(root, disk / "ids")
        assert "\n" not in str(caught.value)
        assert [path.name for path in disk.iterdir()] == ["mine.txt"]


def test_colours_of_camvid_that_may_not_be_read_are_named():
    with public_folder() as folder:
        root = put(camvid_files(""), folder / "data")
        (root / "class_dict.csv").chmod(0)
        with nobody(), pytest.raises(ValueError, match=r"class_dict\.csv: can't be read \(Permission denied\)"):
            load_dataset("camvid", root)
        assert [path.name for path in folder.iterdir()] == ["data"]


def test_a_place_that_is_no_folder_is_no_place_to_write(tmp_path):
    root = put(camvid_files(""), tmp_path / "CamVid")
    no_folder, ids = write(tmp_path / "file", b""), tmp_path / "data" / "ids"
    assert prepare_camvid(root, no_folder / "ids", ids).train[0].mask.is_relative_to(ids)
    with pytest.raises(ValueError, match=r"can't be written anew to .*/file/ids \(Not a directory\); make one of"):
        prepare_camvid(root, no_folder / "ids", no_folder / "ids")


def test_ids_of_other_masks_with_the_same_names_are_not_taken(tmp_path, monkeypatch):
    """Two data sets whose ids go to one folder: each gets those of its own masks and colours."""
    first, second = put(camvid_files(""), tmp_path / "a"), put(camvid_files(""), tmp_path / "b")
    ids = tmp_path / "here" / "ids"
    prepared = prepare_camvid(first, ids)
    mask = next(pair.mask for pair in prepared.train)
    before = mask.read_bytes()
    assert prepare_camvid(first.rename(tmp_path / "moved"), ids).train[0].mask.read_bytes() == before
    source = second / "train_labels" / f"{mask.stem}_L.png"
    write(source, png(np.asarray(Image.open(source))[:, ::-1]))
    expected = np.asarray(Image.open(mask))[:, ::-1]
    np.testing.assert_array_equal(Image.open(prepare_camvid(second, ids).train[0].mask), expected)
    swapped = CSV.replace("Sky,", "?,").replace("Fence,", "Sky,").replace("?,", "Fence,")
    write(second / "class_dict.csv", swapped.encode())
    swap = np.arange(256)
    swap[[0, 7]] = 7, 0  # the ids of sky and fence
    np.testing.assert_array_equal(Image.open(prepare_camvid(second, ids).train[0].mask), swap[expected])
    monkeypatch.chdir(tmp_path)
    (first, second) = (masks.places_for(folder / "CamVid", "data")[1] for folder in (tmp_path / "a", tmp_path / "b"))
    assert first != second  # in the working folder, which data sets share


def test_a_misspelt_folder_is_an_error_and_data_is_made(server, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="DATA_DIR: there is no folder .*dtaa"):
        load_dataset("lyft", tmp_path / "dtaa")
    assert server.requests == []
    monkeypatch.chdir(tmp_path)
    mine = write(tmp_path / "archive.zip", make_zip(lyft_files()))
    assert len(load_dataset("lyft", archive=mine).train) == 1
    assert (tmp_path / "data" / "lyft" / "dataA").is_dir()
    assert server.requests == []


def test_kaggles_data_is_read_where_it_is_attached(server, tmp_path, monkeypatch):
    put(camvid_files("input/camvid/CamVid/"), tmp_path)
    monkeypatch.setattr(download, "KAGGLE_INPUT", tmp_path / "input")
    before = sorted((tmp_path / "input").rglob("*"))
    monkeypatch.chdir(tmp_path)
    dataset = load_dataset("camvid")
    assert len(dataset.train) == 3
    assert tmp_path / "input" in dataset.train[0].image.parents
    assert sorted((tmp_path / "input").rglob("*")) == before
    assert dataset.train[0].mask.is_relative_to("data/camvid.prepared")
    assert server.requests == []
