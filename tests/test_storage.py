import contextlib
import os
import threading

import pytest
from limits import needs_links, needs_users, nobody, public_folder, start

from unet_helpers import storage
from unet_helpers.storage import hold_lock, read_json, write_folder, write_json

HOLD = """
from pathlib import Path
from unet_helpers.storage import hold_lock
folder = Path({folder!r})
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- whole or not at all ----


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"n": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            storage.write_whole(tmp_path / "a.json", b"new")
    assert read_json(tmp_path / "a.json") == {"n": 1}
    assert names(tmp_path) == ["a.json"]
    (tmp_path / "file").touch()
    assert (tmp_path / "a.json").stat().st_mode == (tmp_path / "file").stat().st_mode  # others may read it
    for content in ("{", 100_000 * "["):
        (tmp_path / "a.json").write_text(content)
        assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "b.json") is None


@needs_links
def test_a_file_is_never_written_through_a_link(tmp_path, monkeypatch):
    """Not even one with the random name of the unfinished file."""
    monkeypatch.setattr(storage.secrets, "token_hex", lambda n: "0" * 2 * n)
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    storage.partial_file(tmp_path / "a.json").symlink_to(mine)
    with pytest.raises(FileExistsError):
        write_json(tmp_path / "a.json", {"n": 1})
    assert mine.read_text() == "mine"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "above" / "set"
    left = folder.with_name(f"set.partial-{os.getpid()}")
    left.mkdir(parents=True)
    (left / "old").touch()  # of a killed process that had this number
    with pytest.raises(FileNotFoundError), write_folder(folder) as new:
        (new / "b" / "a").touch()
    assert names(folder.parent) == []
    with write_folder(folder) as new:
        (new / "a").touch()
        assert not folder.exists()
    assert (names(folder.parent), names(folder)) == (["set"], ["a"])


def test_a_folder_is_complete_from_the_moment_it_is_there(tmp_path):
    seen = []

    def watch():
        while not seen:
            with contextlib.suppress(FileNotFoundError):
                seen.append(len(os.listdir(tmp_path / "new")))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with write_folder(tmp_path / "new") as partial:
        for n in range(3000):
            (partial / str(n)).touch()
    watcher.join(60)
    assert seen == [3000]


@needs_links
def test_partial_folders_are_deleted_by_their_exact_name(tmp_path):
    kept = ["set.partial", "set.partial-mine", "set.partial-12-x", "myset.partial-12", "other.partial-12", "set"]
    for name in (*kept, "set.partial-12", f"set.partial-{os.getpid()}"):
        (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / "set.partial-13").symlink_to(tmp_path / "set")
    storage.remove_partial_folders(tmp_path / "set")
    assert names(tmp_path) == sorted([*kept, "set.partial-13"])
    assert (tmp_path / "set" / "deep").is_dir()


def test_a_file_changes_by_its_content_not_by_its_age(tmp_path):
    files = {name: tmp_path / name for name in "abc"}
    for name, path in files.items():
        path.write_text(name)
    noted = storage.note_files(files)
    assert noted["a"][0] == 1
    files["b"].write_text("x")  # as many bytes
    files["c"].write_text("longer")
    for name in "ab":
        os.utime(files[name], (1, 1))
    assert list(storage.find_changes(noted, files)) == ["b", "c"]
    assert list(storage.find_changes(noted, files | {"d": files["a"]})) == ["d", "b", "c"]
    assert list(storage.find_changes({"a": noted["a"][:2]}, {"a": files["a"]})) == ["a"]  # an old note without content


# ---- locks: one process at a time, never longer than its process lives ----


def test_the_lock_is_held_by_one_at_a_time(tmp_path):
    folder, said, first = tmp_path / "new" / "set", [], contextlib.ExitStack()
    assert first.enter_context(hold_lock(folder))
    with hold_lock(folder) as second, hold_lock(folder.with_name("other")) as other:
        assert (second, other) == (False, True)

    def busy():
        said.append("busy")
        threading.Timer(0.3, first.close).start()

    with hold_lock(folder, busy) as held:
        assert held
    assert said == ["busy"]  # once, however long it takes
    with pytest.raises(KeyboardInterrupt), hold_lock(folder):
        raise KeyboardInterrupt
    with hold_lock(folder) as held:
        assert held


def test_no_two_processes_are_ever_inside_and_a_killed_one_holds_nothing(tmp_path):
    """Each adds 1 to a number in a file, which loses some if two are inside; then one is killed while it waits."""
    folder, number = tmp_path / "set", tmp_path / "number"
    children = [start(HOLD.format(folder=str(folder)) + (
        "number = folder.with_name('number')\n"
        "print('ready', flush=True)\n"
        "while not number.exists(): pass\n"
        "for _ in range(50):\n"
        "    with hold_lock(folder, lambda: None) as held:\n"
        "        assert held\n"
        "        number.write_text(str(int(number.read_text()) + 1))\n"
    )) for _ in range(3)]  # fmt: skip
    assert [child.stdout.readline() for child in children] == ["ready\n"] * 3
    storage.write_whole(number, b"0")
    assert [child.communicate(timeout=120)[1] for child in children] == [""] * 3
    assert number.read_text() == "150"
    child = start(HOLD.format(folder=str(folder)) + (
        "with hold_lock(folder) as held:\n    print(held, flush=True)\n    import time; time.sleep(60)"
    ))  # fmt: skip
    assert child.stdout.readline() == "True\n"
    with hold_lock(folder) as held:
        assert not held
    child.kill()
    child.communicate(timeout=120)
    with hold_lock(folder) as held:
        assert held
    assert names(tmp_path) == ["number"]


@needs_users
def test_where_no_lock_is_available_the_block_runs_unlocked_and_another_users_is_respected():
    with public_folder() as folder, hold_lock(folder / "set"):
        (folder / "file").write_text("no folder")
        (folder / ".taken.lock").mkdir()
        (folder / "data").mkdir(mode=0o555)
        (folder / ".set.lock").chmod(0o644)
        with nobody():
            for name in ("file/set", "taken", "data/set"):
                with hold_lock(folder / name, lambda: pytest.fail("it waits")) as held:
                    assert not held
            with hold_lock(folder / "set") as second, hold_lock(folder / "other") as other:
                assert (second, other) == (False, True)
        assert names(folder / "data") == []


@needs_links
def test_the_lock_leaves_nothing_beside_the_folder_and_follows_links_to_it_but_is_none(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with hold_lock(tmp_path / "set") as held:
        assert held
        assert names(tmp_path) == [".set.lock", "link"]
        with hold_lock(tmp_path / "link" / "set") as second:
            assert not second
    assert names(tmp_path) == ["link"]
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / ".set.lock").symlink_to(mine)
    with hold_lock(tmp_path / "set") as held:
        assert not held
    assert (tmp_path / ".set.lock").is_symlink()
    assert mine.read_text() == "mine"
