"""The real kaggle client against a server on 127.0.0.1 that sends, breaks off, stalls, lies and refuses."""

import contextlib
import re
import signal
import socket
import sys
import threading
import time
import traceback
import types
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from kaggle_server import SIGNATURE, KaggleServer, files_below, isolate, make_zip
from limits import meet, needs_sigkill, small_disk, start

from unet_helpers import download
from unet_helpers.download import DownloadError, download_dataset

MIB = 1 << 20
SLUG = "someone/road-scenes"
BULK = np.random.default_rng(0).bytes(4 * MIB)
FILES = {"a/one.bin": BULK[:MIB], "a/two.bin": BULK[MIB:], "b/three.txt": b"three"}
ZIP = make_zip(FILES)
CORRUPT = ZIP[: 2 * MIB] + bytes([ZIP[2 * MIB] ^ 255]) + ZIP[2 * MIB + 1 :]
TOKEN = "KGAT_TopSecretToken"
Usage = namedtuple("Usage", "total used free")


def send_client_to(url, monkeypatch):
    import kagglesdk.kaggle_env as kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, url)


@pytest.fixture
def server(tmp_path, monkeypatch):
    isolate(tmp_path / "home", monkeypatch)
    with KaggleServer(ZIP) as server:
        send_client_to(server.url, monkeypatch)
        monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between its retries
        yield server


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "data" / "roads"


def on_disk(folder: Path) -> dict[str, bytes]:
    files = files_below(folder)
    assert files.pop(download.MARKER).decode() == f"{SLUG}\n{len(files)} files\n"
    return files


def assert_whole(dest: Path, files=FILES):
    assert on_disk(dest) == files
    assert [path.name for path in dest.parent.iterdir()] == [dest.name]  # no zip, no partial folder


def assert_untouched(dest: Path):
    assert not dest.exists()
    assert not dest.with_name("roads.partial").exists()


def staged_zip(dest: Path) -> Path:
    return dest.with_name("roads.partial") / "road-scenes.zip"


def test_a_download_is_whole_and_never_repeated(server, dest, capfd):
    dest.mkdir(parents=True)  # an empty folder may be replaced
    assert download_dataset(dest, SLUG) == dest
    assert_whole(dest)
    shown = capfd.readouterr()
    assert "someone/road-scenes: 4.2 MB to download; " in shown.out
    assert "3 files, 4.2 MB to unpack" in shown.out
    assert "B/s]" in shown.err  # the progress bar
    assert not any("Authorization" in headers for _, _, headers in server.requests)  # there are no credentials
    n_requests = len(server.requests)
    assert download_dataset(dest, SLUG) == dest
    assert len(server.requests) == n_requests


def test_credentials_are_used_from_home_and_from_a_secret_of_colab(server, tmp_path, dest, monkeypatch):
    key = tmp_path / "home" / ".kaggle" / "kaggle.json"
    key.parent.mkdir()
    key.write_text('{"username": "someone", "key": "abc"}')
    key.chmod(0o600)
    download_dataset(dest, SLUG)
    assert server.requests[-2][2]["Authorization"].startswith("Basic ")
    fake = types.ModuleType("google.colab.userdata")
    fake.get = lambda name: {"KAGGLE_API_TOKEN": TOKEN}[name]  # the others are missing
    for name in ("google", "google.colab"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "google.colab.userdata", fake)
    download_dataset(dest.with_name("again"), SLUG)
    assert server.requests[-2][2]["Authorization"] == f"Bearer {TOKEN}"
    assert "Authorization" not in server.requests[-1][2]  # the storage's own address needs none


def test_data_attached_to_a_kaggle_notebook_is_used_where_it_lies(server, dest, tmp_path, monkeypatch):
    attached = tmp_path / "input" / "datasets" / "someone" / "road-scenes" / "Deeper"
    (attached / "train").mkdir(parents=True)
    (tmp_path / "input" / "another").mkdir()
    monkeypatch.setattr(download, "KAGGLE_INPUT", tmp_path / "input")
    assert download_dataset(dest, SLUG, has_layout=lambda folder: (folder / "train").is_dir()) == attached
    assert server.requests == []
    assert_untouched(dest)


STATUSES = [
    (401, None, r"\(401\)\.\nMake a new API token.*KAGGLE_API_TOKEN"),
    (403, TOKEN, r"someone/road-scenes \(403\)\.\n.*accept the terms"),
    (503, None, r"\(503\)\.\nRun the cell again later"),
]


@pytest.mark.parametrize(("status", "token", "message"), STATUSES)
def test_each_status_says_what_to_do(server, dest, monkeypatch, status, token, message):
    server.status = status
    if token:
        monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with pytest.raises(DownloadError, match=f"{message}(.|\n)*Nothing was lost or changed"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)


def test_a_server_that_never_answers(server, dest, monkeypatch):
    """Also while the client asks about its token, which it does without a timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        send_client_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        monkeypatch.setattr(download, "TIMEOUT", (2, 0.25))
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
        given_up = threading.Timer(60, silent.shutdown, [socket.SHUT_RDWR])
        given_up.start()
        with pytest.raises(DownloadError, match="connection to Kaggle failed or stopped"):
            download_dataset(dest, SLUG)
        assert given_up.is_alive()
        given_up.cancel()
    assert_untouched(dest)


def test_an_error_page_in_the_middle_of_a_resume_does_not_get_into_the_zip(server, dest):
    """403: the signed address is too old; the next run gets a fresh one."""
    server.steps = [("cut", 3 * MIB)] + [("status", 403)] * 5
    with pytest.raises(DownloadError, match=r"(?s)connection to Kaggle failed.*3\.1 MB"):
        download_dataset(dest, SLUG)
    assert staged_zip(dest).read_bytes() == ZIP[: 3 * MIB]
    server.steps = [("status", 403)]
    with contextlib.suppress(DownloadError):
        download_dataset(dest, SLUG)
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert server.sent[-1] == len(ZIP) - 3 * MIB


@pytest.mark.parametrize(
    ("content", "found"), [(CORRUPT, r"a/two\.bin: Bad CRC-32"), (b"<!DOCTYPE html>\n<html></html>", "not a zip file")]
)
def test_what_is_no_good_zip_is_an_error_and_the_next_run_begins_anew(server, dest, content, found):
    server.content = content
    message = rf"(?s)road-scenes\.zip is damaged: .*{found}.*\nRun the cell again.*as ARCHIVE\.\n.*deleted"
    with pytest.raises(DownloadError, match=message):
        download_dataset(dest, SLUG)
    assert_untouched(dest)
    server.content = ZIP
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert server.sent == [len(content), len(ZIP)]


CALL = "download.download_dataset(dest, slug)"


def child_code(server, dest) -> str:
    """The beginning of the code of another process."""
    return f"""
import os, signal, sys
from pathlib import Path
import kagglesdk.kaggle_env as kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = {server.url!r}
from unet_helpers import download
dest, slug = Path({str(dest)!r}), {SLUG!r}
download.KAGGLE_INPUT = Path("/nowhere")
"""


@needs_sigkill
def test_one_that_was_killed_while_it_unpacked_is_repeated(server, dest):
    die = "Path.write_text = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"  # the note, after all the rest
    child = start(child_code(server, dest) + die + CALL)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, errors
    assert not dest.exists()
    download_dataset(dest, SLUG)
    assert_whole(dest)


def test_two_downloads_at_once_are_one(server, dest, tmp_path):
    """And the client's import, which prints help, closes sys.stdin and exits without credentials, is not seen."""
    ends = meet(tmp_path, child_code(server, dest) + (
        "fetch = download.fetch_zip\n"
        "download.fetch_zip = lambda *a: (until_met(), fetch(*a))\n"
        "print(sum(path.is_file() for path in download.download_dataset(dest, slug).rglob('*')), sys.stdin.closed)"
    ))  # fmt: skip
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert [out.splitlines()[-1] for _, out, _ in ends] == ["4 False", "4 False"]  # files, with the note
    assert not any("Authentication" in out + err for _, out, err in ends)
    assert [out.count("waiting for it") for _, out, _ in ends] == [0, 1]
    assert server.sent == [len(ZIP)]
    assert_whole(dest)


@needs_sigkill
def test_one_that_waits_resumes_what_a_killed_one_has_downloaded(server, dest):
    server.steps = [("stall", 5 * MIB // 2)]
    first, until = start(child_code(server, dest) + CALL), time.perf_counter() + 120
    while not (staged_zip(dest).is_file() and staged_zip(dest).stat().st_size >= 2 * MIB):
        assert time.perf_counter() < until, first.kill()
        server.ended.wait(0.02)
    second = start(child_code(server, dest) + CALL)
    assert second.stdout.readline() == f"another process is downloading to {dest}: waiting for it\n"
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=120)
    shown = second.communicate(timeout=120)
    assert second.returncode == 0, shown
    assert_whole(dest)
    assert server.requests[-1][2]["Range"] == f"bytes={2 * MIB}-"  # what the killed one had is kept


def test_a_disk_that_is_too_small_is_seen_before_anything_is_downloaded(server, dest, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage(0, 0, 3 * MIB))
    with pytest.raises(DownloadError, match=r"4\.2 MB to download; 3\.1 MB are free.*\nMake room"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)


@pytest.mark.parametrize(("size", "kept"), [(3 * MIB, "3.1 MB"), (6 * MIB, "4.2 MB")])
def test_a_disk_that_gets_full_keeps_what_was_downloaded(server, tmp_path, monkeypatch, size, kept):
    """3 MiB: in the download; 6 MiB: when it is unpacked."""
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage(0, 0, 10**12))  # it fills up while we work
    with small_disk(tmp_path / "disk", size) as disk:
        (disk / "mine.txt").write_text("mine")
        with pytest.raises(DownloadError) as caught:
            download_dataset(disk / "roads", SLUG)
        assert re.search(rf"No space .*: {disk / 'roads'}.*\n.*make room(.|\n)*{kept} are in ", str(caught.value))
        names = {path.name for path in disk.rglob("*")} - {"road-scenes.zip.kaggle-partial"}
        assert names == {"mine.txt", "road-scenes.zip", "roads.partial"}


@pytest.mark.parametrize("how", ["401", "cut for good"])
def test_no_credential_is_shown_or_written(server, dest, tmp_path, monkeypatch, capfd, how):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setenv("KAGGLE_KEY", "TopSecretKey")
    server.status = 401 if how == "401" else 302
    if how == "cut for good":
        server.steps = [("cut", 2 * MIB)]
        monkeypatch.setattr(time, "sleep", lambda _: server.go_offline())  # now the client's errors quote the address
    with pytest.raises(DownloadError) as caught:
        download_dataset(dest, SLUG)
    shown = str(caught.value) + "".join(traceback.format_exception(caught.value)) + "".join(capfd.readouterr())
    shown += "".join(caught.value._render_traceback_())
    written = b"".join(files_below(tmp_path).values())
    for secret in (TOKEN, "TopSecretKey", SIGNATURE):
        assert secret not in shown
        assert secret.encode() not in written


def test_without_the_package_kaggle(server, dest, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "kaggle"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kaggle", None)
    with pytest.raises(DownloadError, match=r"no package 'kaggle'\.\nRun `pip install kaggle`"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)
