"""The lock between processes: one at a time, never for longer than its process lives."""

import contextlib
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import at_once
import pytest
from limits import gate, nobody, public_folder, start, together

from unet_helpers import storage as locking
from unet_helpers.storage import hold_lock, make_temporary_folder, remove_partial_folders

HOLD = """
from pathlib import Path
from unet_helpers.storage import hold_lock
folder = Path({folder!r})
"""


def test_the_lock_is_held_by_one_at_a_time(tmp_path):
    folder, said = tmp_path / "new" / "set", []
    with hold_lock(folder) as held:
        assert held
        with hold_lock(folder) as second:
            assert not second
        with hold_lock(folder.with_name("other")) as other:
            assert other
        waiter = threading.Thread(target=lambda: hold_and(said.append, folder))
        waiter.start()
        while not said:
            time.sleep(0.01)
        time.sleep(0.3)
        assert said == ["busy"]  # once, however long it takes
    waiter.join(60)
    assert said == ["busy", True]


def hold_and(note, folder):
    with hold_lock(folder, lambda: note("busy")) as held:
        note(held)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_ends_the_lock(tmp_path, error):
    with pytest.raises(error), hold_lock(tmp_path / "set"):
        raise error
    with hold_lock(tmp_path / "set") as held:
        assert held


def test_no_two_processes_are_ever_inside(tmp_path):
    """Each adds 1 to a number in a file, which loses some if two are inside."""
    (tmp_path / "number").write_text("0")
    code = HOLD.format(folder=str(tmp_path / "set")) + gate(tmp_path) + (
        "number = folder.with_name('number')\n"
        "for _ in range(50):\n"
        "    with hold_lock(folder, lambda: None) as held:\n"
        "        assert held\n"
        "        number.write_text(str(int(number.read_text()) + 1))\n"
    )  # fmt: skip
    ends = together(tmp_path, *(start(code) for _ in range(4)))
    assert [end[0] for end in ends] == [0] * 4, ends
    assert (tmp_path / "number").read_text() == "200"


def test_a_killed_process_holds_nothing(tmp_path):
    folder = tmp_path / "set"
    child = start(HOLD.format(folder=str(folder)) + (
        "with hold_lock(folder) as held:\n    print(held, flush=True)\n    import time; time.sleep(60)"
    ))  # fmt: skip
    assert child.stdout.readline() == "True\n"
    with hold_lock(folder) as held:
        assert not held
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=120)
    with hold_lock(folder) as held:
        assert held
    assert list(tmp_path.iterdir()) == []


def test_where_no_lock_can_be_had_the_block_runs_all_the_same():
    with public_folder() as folder:
        (folder / "file").write_text("no folder")
        (folder / ".taken.lock").mkdir()
        (folder / "data").mkdir(mode=0o555)
        with nobody():
            for name in ("file/set", "taken", "data/set"):
                with hold_lock(folder / name, lambda: pytest.fail("it waits")) as held:
                    assert not held
        assert list((folder / "data").iterdir()) == []


def test_the_lock_leaves_nothing_beside_the_folder_and_is_that_of_the_real_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with hold_lock(tmp_path / "set") as held:
        assert held
        assert sorted(path.name for path in tmp_path.iterdir()) == [".set.lock", "link"]
        with hold_lock(tmp_path / "link" / "set") as second:
            assert not second
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_lock_is_never_a_link_to_somebodys_file(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / ".set.lock").symlink_to(mine)
    with hold_lock(tmp_path / "set") as held:
        assert not held
    assert (tmp_path / ".set.lock").is_symlink()
    assert mine.read_text() == "mine"


def test_a_lock_on_a_file_that_was_deleted_meanwhile_is_none(tmp_path, monkeypatch):
    """Its holder ends between opening and locking, and a third one comes."""
    flock = locking.fcntl.flock
    with contextlib.ExitStack() as third:

        def late(file, how):
            monkeypatch.undo()
            (tmp_path / ".set.lock").unlink()
            assert third.enter_context(hold_lock(tmp_path / "set"))
            flock(file, how)

        monkeypatch.setattr(locking.fcntl, "flock", late)
        with hold_lock(tmp_path / "set") as held:
            assert not held
    assert list(tmp_path.iterdir()) == []


def test_another_users_lock_is_respected():
    with public_folder() as folder, hold_lock(folder / "set") as held:
        assert held
        (folder / ".set.lock").chmod(0o644)
        with nobody(), hold_lock(folder / "set") as second:
            assert not second
        with nobody(), hold_lock(folder / "other") as other:
            assert other


@pytest.mark.parametrize("kind", at_once.KINDS)
def test_two_processes_with_temporary_folders_of_their_own_make_it_once(tmp_path, kind):
    assert at_once.KINDS[kind](tmp_path) == ""


def test_partial_folders_are_deleted_by_their_exact_name(tmp_path):
    kept = ["set.partial", "set.partial-mine", "set.partial-12-x", "myset.partial-12", "other.partial-12", "set"]
    for name in (*kept, "set.partial-12", f"set.partial-{os.getpid()}"):
        (tmp_path / name / "deep").mkdir(parents=True)
    (tmp_path / "set.partial-13").symlink_to(tmp_path / "set")
    remove_partial_folders(tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "set.partial-13"])
    assert (tmp_path / "set" / "deep").is_dir()


def test_temporary_folders_of_dead_processes_go_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = f"import tempfile, time\ntempfile.tempdir = {str(tmp_path)!r}\n"
    code += "from unet_helpers.storage import make_temporary_folder\n"
    code += "folder, delete = make_temporary_folder('unet_cache_')\nprint(folder, flush=True)\ntime.sleep(60)"
    children = [start(code) for _ in range(2)]
    dead, alive = (Path(child.stdout.readline().strip()) for child in children)
    (dead / "pixels").write_text("many")
    children[0].send_signal(signal.SIGKILL)
    children[0].communicate(timeout=120)
    (tmp_path / "unet_cache_not_ours").mkdir()
    new, delete = make_temporary_folder("unet_cache_")
    assert dead.exists()  # a folder that is so new may just not be locked yet
    monkeypatch.setattr(locking, "NEW", 0)
    time.sleep(0.01)
    newer, delete_newer = make_temporary_folder("unet_cache_")
    assert not dead.exists()
    assert alive.is_dir()
    assert new.is_dir()
    assert (tmp_path / "unet_cache_not_ours").is_dir()
    children[1].send_signal(signal.SIGKILL)
    children[1].communicate(timeout=120)
    delete()
    delete_newer()
    assert not new.exists()
    assert not newer.exists()
