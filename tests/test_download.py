"""The real kaggle client against a server on 127.0.0.1 that sends, breaks off, stalls, lies and refuses."""

import contextlib
import importlib.metadata
import signal
import socket
import subprocess
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
from limits import gate, nobody, public_folder, small_disk, start, together

from unet_helpers.download import DownloadError, archives, download_dataset, kaggle_client
from unet_helpers.download import dataset as download

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


# --- success ---


def test_a_download_is_whole_and_never_repeated(server, dest, capfd):
    dest.mkdir(parents=True)  # an empty folder may be replaced
    assert download_dataset(dest, SLUG) == dest
    assert_whole(dest)
    shown = capfd.readouterr()
    assert "someone/road-scenes: 4.2 MB to download; " in shown.out
    assert " are free on the disk of " in shown.out
    assert "3 files, 4.2 MB to unpack" in shown.out
    assert "B/s]" in shown.err  # the progress bar, with size and speed
    assert "4.00M" in shown.err
    assert not any("Authorization" in headers for _, _, headers in server.requests)  # there are no credentials
    n_requests = len(server.requests)
    assert download_dataset(dest, SLUG) == dest
    assert len(server.requests) == n_requests


def test_the_clients_own_habits_are_kept_from_the_user(server, dest):
    """Its import prints a help page, closes sys.stdin and exits, where there are no credentials."""
    result = run_child(server, f"{CALL}\nprint('stdin is closed:', sys.stdin.closed)", dest)
    assert result.returncode == 0, result.stderr
    assert "stdin is closed: False" in result.stdout
    assert "Authentication" not in result.stdout + result.stderr
    assert_whole(dest)


def test_credentials_are_used_from_environment_and_home(server, tmp_path, dest, monkeypatch):
    key = tmp_path / "home" / ".kaggle" / "kaggle.json"
    key.parent.mkdir()
    key.write_text('{"username": "someone", "key": "abc"}')
    key.chmod(0o600)
    download_dataset(dest, SLUG)
    assert server.requests[-2][2]["Authorization"].startswith("Basic ")
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    download_dataset(dest.with_name("again"), SLUG)
    assert server.requests[-2][2]["Authorization"] == f"Bearer {TOKEN}"
    assert "Authorization" not in server.requests[-1][2]  # the storage's own address needs none


@pytest.mark.parametrize("there", ["KAGGLE_KEY", "KAGGLE_API_TOKEN"])
def test_each_colab_secret_is_read_on_its_own(server, dest, monkeypatch, there):
    asked = []
    fake = types.ModuleType("google.colab.userdata")
    fake.get = lambda name: asked.append(name) or {there: TOKEN}[name]
    for name in ("google", "google.colab"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "google.colab.userdata", fake)
    download_dataset(dest, SLUG)
    assert asked == ["KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"]
    sent = server.requests[-2][2].get("Authorization")
    assert sent == (f"Bearer {TOKEN}" if there == "KAGGLE_API_TOKEN" else None)  # a key alone is no credential


def test_data_attached_to_a_kaggle_notebook_is_used_where_it_lies(server, dest, tmp_path, monkeypatch):
    attached = tmp_path / "input" / "datasets" / "someone" / "road-scenes" / "Deeper"
    (attached / "train").mkdir(parents=True)
    (tmp_path / "input" / "another").mkdir()
    monkeypatch.setattr(download, "KAGGLE_INPUT", tmp_path / "input")
    assert download_dataset(dest, SLUG, has_layout=lambda folder: (folder / "train").is_dir()) == attached
    assert server.requests == []
    assert_untouched(dest)


# --- refusals of the server ---


@pytest.mark.parametrize(
    ("status", "token", "message"),
    [
        (401, None, r"who you are \(401\)\.\nMake an API token.*KAGGLE_API_TOKEN"),
        (401, TOKEN, r"did not accept your credentials \(401\)\.\nMake a new API token"),
        (403, TOKEN, r"someone/road-scenes \(403\)\.\nLog in at https.*accept the terms"),
        (404, None, r"knows no data set someone/road-scenes \(404\)"),
        (429, None, r"Too many requests.*\(429\)\.\nWait some minutes"),
        (503, None, r"\(503\)\.\nRun the cell again later"),
    ],
)
def test_each_status_says_what_to_do(server, dest, monkeypatch, status, token, message):
    server.status = status
    if token:
        monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with pytest.raises(DownloadError, match=f"{message}(.|\n)*Nothing was lost or changed") as caught:
        download_dataset(dest, SLUG)
    assert len(str(caught.value).splitlines()) == 3
    assert status == 404 or "with a browser and give its path as ARCHIVE." in str(caught.value)
    assert_untouched(dest)


def test_offline(server, dest, monkeypatch):
    send_client_to("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(DownloadError, match=r"The connection to Kaggle failed or stopped\.\nCheck the network"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)


def test_a_server_that_never_answers(server, dest, monkeypatch):
    """Also while the client asks about its token, which it does without a timeout."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        send_client_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
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
    assert sum(server.sent) - len(ZIP) <= MIB  # bytes sent twice: at most one chunk


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
    # the client opens the whole zip, looks at its size and asks again for what is missing
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


def test_a_body_of_untold_length_that_breaks_off(server, dest, capsys):
    server.announce_length = False
    server.steps = [("cut", 3 * MIB)]
    try:
        download_dataset(dest, SLUG)
    except DownloadError:
        # clients such as Colab's 2.0.2 can't do without the length: refused whole, which is the other good end
        assert importlib.metadata.version("kaggle").split(".") < ["2", "2"]
        assert not dest.exists()
    else:
        assert_whole(dest)
        assert "someone/road-scenes: unknown size to download; " in capsys.readouterr().out


# --- damaged archives ---


def test_a_damaged_zip_from_an_earlier_run_heals_itself(server, dest):
    """As the client leaves it after an error page: the right size, never asked for again."""
    staged_zip(dest).parent.mkdir(parents=True)
    staged_zip(dest).write_bytes(CORRUPT)
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert len(server.sent) == 2  # the client looked at it and left it; then all of it came once


PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html>Please log in to this WLAN</html>"


@pytest.mark.parametrize(
    ("content", "message", "times"),
    [
        (CORRUPT, r"is damaged: a/two\.bin: Bad CRC-32.*again later, or", 2),
        (ZIP[: 3 * MIB], r"is damaged: road-scenes\.zip: File is not a zip file", 2),
        (PAGE, "is a web page.*Sign in.*KAGGLE_API_TOKEN", 1),  # the next one would be the same
    ],
    ids=["corrupt", "truncated", "web page"],
)
def test_what_is_no_good_zip_is_an_error_and_leaves_nothing(server, dest, content, message, times):
    server.content = content
    with pytest.raises(DownloadError, match=rf"(?s)someone/road-scenes {message}.*as ARCHIVE\.\n.*deleted") as caught:
        download_dataset(dest, SLUG)
    assert len(str(caught.value).splitlines()) == 3
    assert server.sent == [len(content)] * times
    assert_untouched(dest)


# --- killed at any moment ---

CALL = "download.download_dataset(dest, slug)"


def run_child(server, code, dest, wait=True):
    """Another process that runs code; it ends by itself or is killed."""
    code = f"""
import os, signal, sys, zipfile
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


def start_and_stall(server, dest):
    """A process that has 2 MiB and waits for more."""
    server.steps = [("stall", 5 * MIB // 2)]
    child = run_child(server, CALL, dest, wait=False)
    until = time.perf_counter() + 120
    while not (staged_zip(dest).is_file() and staged_zip(dest).stat().st_size >= 2 * MIB):
        assert time.perf_counter() < until, child.kill()
        server.ended.wait(0.02)
    return child


def end(child):
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL


def test_killed_in_the_middle_of_the_download(server, dest):
    end(start_and_stall(server, dest))
    assert not dest.exists()
    server.sent.clear()
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert server.requests[-1][2]["Range"] == f"bytes={2 * MIB}-"
    assert server.sent[-1] == len(ZIP) - 2 * MIB


@pytest.mark.parametrize(
    ("fatal", "n_requests"),
    [
        (
            "opened = zipfile.ZipFile.open\n"
            "zipfile.ZipFile.open = lambda self, m, *a: die() if 'three' in str(m) else opened(self, m, *a)",
            2,
        ),
        ("Path.write_text = die", 2),  # the note
        ("download.os.replace = die", 0),  # all is checked: nothing is asked for
        ("download._remove_empty = die", 0),
    ],
    ids=["in the middle of unpacking", "before the note", "before it is put in place", "before the last cleaning"],
)
def test_killed_later(server, dest, fatal, n_requests):
    result = run_child(server, f"{fatal}\n{CALL}", dest)
    assert result.returncode == -signal.SIGKILL, result.stderr
    if dest.exists():
        assert on_disk(dest) == FILES
    server.requests.clear()
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert len(server.requests) == n_requests


# --- two at once ---

WAITS = "another process is downloading to {}: waiting for it\n"


def test_two_downloads_at_once_are_one(server, dest, tmp_path):
    code = (
        f"{gate(tmp_path)}\nfetch = download.fetch_zip\n"
        "download.fetch_zip = lambda *a: (until_met(), fetch(*a))\n"
        "print(sum(path.is_file() for path in download.download_dataset(dest, slug).rglob('*')))"
    )
    ends = together(tmp_path, *(run_child(server, code, dest, wait=False) for _ in range(2)))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert [out.splitlines()[-1] for _, out, _ in ends] == ["4", "4"]  # with the note
    assert sorted(out.count(WAITS.format(dest)) for _, out, _ in ends) == [0, 1]
    assert server.sent == [len(ZIP)]
    assert_whole(dest)


def test_one_that_waits_continues_when_the_other_is_killed(server, dest):
    first = start_and_stall(server, dest)
    second = run_child(server, CALL, dest, wait=False)
    assert second.stdout.readline() == WAITS.format(dest)
    end(first)
    shown = second.communicate(timeout=120)
    assert second.returncode == 0, shown
    assert_whole(dest)


# --- the disk ---


def test_a_disk_that_is_too_small_is_seen_before_anything_is_downloaded(server, dest, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: Usage(0, 0, 3 * MIB))
    with pytest.raises(DownloadError, match=r"4\.2 MB to download, but only 3\.1 MB are free(.|\n)*Make room"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)


def test_a_disk_that_would_get_nearly_full_is_asked_about(server, dest, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: Usage(0, 0, 2 * 10**9))
    with pytest.raises(DownloadError, match="stopped, because it would nearly fill the disk"):
        download_dataset(dest, SLUG)  # there is no keyboard
    questions = []
    monkeypatch.setattr("builtins.input", lambda text: questions.append(text) or "n")
    with pytest.raises(DownloadError, match="stopped, because"):
        download_dataset(dest, SLUG)
    assert_untouched(dest)
    monkeypatch.setattr("builtins.input", lambda text: "y")
    download_dataset(dest, SLUG)
    assert_whole(dest)
    assert len(questions) == 1
    assert questions[0].startswith("It needs about 8.4 MB")  # to download, and to unpack


@pytest.mark.parametrize(("size", "kept"), [(3 * MIB, "3.1 MB"), (6 * MIB, "4.2 MB")])
def test_a_disk_that_gets_full_keeps_what_was_downloaded(server, tmp_path, monkeypatch, size, kept):
    """3 MiB: in the download; 6 MiB: when it is unpacked."""
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: Usage(0, 0, 10**12))  # it fills up while we work
    with small_disk(tmp_path / "disk", size) as disk:
        (disk / "mine.txt").write_text("mine")
        with pytest.raises(DownloadError) as caught:
            download_dataset(disk / "roads", SLUG)
        lines = str(caught.value).splitlines()
        assert lines[0] == f"The disk of {disk / 'roads'} is full."
        assert lines[1].startswith("Make room, or give another folder as DATA_DIR")
        assert lines[2].startswith(f"Nothing was lost: {kept} are in ")
        names = {path.name for path in disk.rglob("*")} - {"road-scenes.zip.kaggle-partial"}
        assert names == {"mine.txt", "road-scenes.zip", "roads.partial"}


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_folders_of_other_users(server, mode):
    """One may not write into them, or not look into them; a finished set is used all the same."""
    with public_folder() as folder:
        dest = download_dataset(folder / "data" / "roads", SLUG)  # and imports what is imported where it is used
        (folder / "data").chmod(mode)
        n_requests = len(server.requests)
        with nobody():
            if mode:
                assert download_dataset(dest, SLUG) == dest
            other = dest.with_name("roads of others")
            with pytest.raises(DownloadError, match=r"Permission denied: .*data/roads.*\.\nRepair that, or") as caught:
                download_dataset(other, SLUG)
        assert len(str(caught.value).splitlines()) == 3
        assert len(server.requests) == n_requests


# --- what the user sees ---


@pytest.mark.parametrize("how", ["success", "401", "cut for good"])
def test_no_credential_is_shown_or_written(server, dest, tmp_path, monkeypatch, capfd, how):
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", "TopSecretKey")
    server.status = 401 if how == "401" else 302
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
