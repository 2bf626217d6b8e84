"""The embedded data set: its files, its classes, its repeatability and its refusals."""

import contextlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from kaggle_server import files_below
from limits import meet, needs_sigkill, needs_users, nobody, public_folder, small_disk, start
from PIL import Image

from unet_helpers.datasets import load_dataset
from unet_helpers.drawing import raycast, scenes
from unet_helpers.drawing.street import WEATHER_OF_DRIVE
from unet_helpers.labels import CARLA

SMALL = {"size": (60, 80), "n_frames": 2}
QUICK = {"processes": 1, "drives": ("F1",), "progress": str, **SMALL}


@pytest.fixture(scope="module")
def one_frame_of_each_drive():
    """[(image, mask)] of the 32 drives, somewhere in the middle of each."""
    return [scenes.render_frame(drive, i % 20, size=(60, 80)) for i, drive in enumerate(scenes.DRIVES)]


def test_drives_have_the_real_names_and_each_split_every_weather():
    assert len(set(scenes.DRIVES)) == len(scenes.DRIVES) == 32
    assert [scenes.DRIVES[k] for k in (0, 2, 11, 12, 21, 22)] == ["02_00", "02_02", "10_00", "F1", "F10", "F61"]
    test = {"F1", "F3", "F62", "F63", "F64", "F69", "F8"}
    validation = {"09_00", "F2", "F6", "F66", "F68", "F70"}
    for drives in (test, validation, set(scenes.DRIVES) - test - validation):
        assert {WEATHER_OF_DRIVE[drive] for drive in drives} == set("NODRF")


def test_every_class_occurs_about_as_often_as_in_the_real_data(one_frame_of_each_drive):
    for image, mask in one_frame_of_each_drive:
        assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((60, 80, 3), np.uint8, (60, 80), np.uint8)
    assert all(one in name.split() for one, name in zip(raycast.CLASSES, CARLA.names, strict=True))
    masks = np.stack([mask for _, mask in one_frame_of_each_drive])
    share = np.bincount(masks.ravel(), minlength=13) / masks.size * 100
    assert len(share) == 13
    # per cent in the real data of the common classes, here within a factor of 2
    for class_id, real in {0: 30.8, 1: 8.4, 7: 19.4, 8: 7.9, 9: 12.3, 10: 16.6}.items():
        assert real / 2 < share[class_id] < real * 2, (class_id, share[class_id])
    for class_id in (2, 3, 5, 6, 11):  # fences, other, poles, road lines, walls
        assert 0.2 < share[class_id] < 2, (class_id, share[class_id])
    assert min(share[4], share[12]) > 0.05  # pedestrians and signs: rare, but enough to learn them
    assert max(share[4], share[12]) < 0.6


def test_bonnet_is_the_same_in_every_frame(one_frame_of_each_drive):
    masks = np.stack([mask for _, mask in one_frame_of_each_drive])
    always_vehicle = (masks == 10).all(axis=0)
    assert always_vehicle.mean() >= 0.15
    assert always_vehicle[-6:].all()
    assert not always_vehicle[:48].any()


def test_colour_does_not_give_the_class_away(one_frame_of_each_drive):
    for class_id in (1, 7, 8, 9):
        inside = [image[mask == class_id] for image, mask in one_frame_of_each_drive]
        means = [pixels.mean() for pixels in inside if len(pixels) > 30]
        assert max(means) - min(means) > 40  # light and paint vary between drives
        assert min(pixels.std() for pixels in inside if len(pixels) > 100) > 3  # texture


def test_frames_differ_between_drives_frames_and_seeds():
    frame = scenes.render_frame("02_00", 0, **SMALL)
    for other, changed in ((scenes.render_frame("02_01", 0, **SMALL), 0.2),
                           (scenes.render_frame("02_00", 1, **SMALL), 0.05),
                           (scenes.render_frame("02_00", 0, seed=1, **SMALL), 0.15)):
        assert (frame[0] != other[0]).mean() > 0.5
        assert (frame[1] != other[1]).mean() > changed


def test_other_sizes_show_the_same_scene():
    small = scenes.render_frame("F4", 3, size=(60, 80))[1]
    large = scenes.render_frame("F4", 3, size=(240, 320))[1][2::4, 2::4]
    assert (small == large).mean() > 0.9


def test_the_layout_of_kaggle_with_the_same_bytes_whatever_the_number_of_processes(tmp_path):
    lines, options = [], {"size": (48, 64), "n_frames": 9, "drives": ("02_00", "F61")}
    one = scenes.draw_scenes(tmp_path / "one", processes=1, progress=lines.append, **options)
    two = scenes.draw_scenes(tmp_path / "two", processes=2, progress=str, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    files = files_below(one)
    assert len(files) == 36
    assert files == files_below(two)
    assert (lines[0], lines[-1]) == ("drawing 18 road scenes, once", "drawing 18 road scenes: 18 done, 0 s left")
    assert files.keys() > {
        "dataA/dataA/CameraRGB/02_00_000.png", "dataB/dataB/CameraSeg/02_00_002.png",
        "dataE/dataE/CameraSeg/02_00_008.png", "dataE/dataE/CameraRGB/F61-9.png"}  # fmt: skip
    image, mask = scenes.render_frame("F61", 1, size=(48, 64), n_frames=9)
    stored = np.array(Image.open(one / "dataB/dataB/CameraSeg/F61-2.png"))
    assert (stored[..., 0] == mask).all()
    assert not stored[..., 1:].any()
    assert (np.array(Image.open(one / "dataB/dataB/CameraRGB/F61-2.png")) == image).all()


def test_an_existing_folder_is_used_only_when_it_is_whole_and_never_changed(tmp_path):
    folder = scenes.draw_scenes(tmp_path / "demo", **QUICK)
    before = files_below(tmp_path)
    assert scenes.draw_scenes(folder, **{**QUICK, "progress": pytest.fail}) == folder
    with pytest.raises(ValueError, match="2 of its 6 files"):
        scenes.draw_scenes(folder, **{**QUICK, "n_frames": 3})
    (mask,) = folder.rglob("CameraSeg/F1-1.png")
    mask.unlink()
    with pytest.raises(ValueError, match=r"1 of its 4 files, such as F1-1\.png.*move it away"):
        scenes.draw_scenes(folder, **QUICK)
    del before[mask.relative_to(tmp_path).as_posix()]
    assert files_below(tmp_path) == before


DRAW = """
import multiprocessing
from pathlib import Path
from unet_helpers.drawing import draw_scenes
folder = Path({folder!r})
def progress(line):
    print(line, *(child.pid for child in multiprocessing.active_children()), flush=True)
"""


def test_two_that_draw_to_one_folder_draw_it_once(tmp_path):
    """Each with a TMPDIR of its own, as the README advises."""
    ends = meet(tmp_path, DRAW.format(folder=str(tmp_path / "sets" / "demo")) + (
        "draw_scenes(folder, size=(48, 64), n_frames=2, drives=('F1', 'F2'), processes=2,"
        " progress=lambda line: ('once' in line and until_met(), progress(line)))\n"
        "print(sum(path.is_file() for path in folder.rglob('*')))"), TMPDIR=str(tmp_path))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert [out.splitlines()[-1] for _, out, _ in ends] == ["8", "8"]
    assert [out.count("waiting for it") for _, out, _ in ends] == [0, 1]
    assert [out.count("drawing 4 road scenes, once") for _, out, _ in ends] == [1, 0]
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["demo"]


@needs_sigkill
def test_a_killed_drawing_leaves_no_worker_and_the_next_one_no_rest(tmp_path):
    folder = tmp_path / "demo"
    child = start(DRAW.format(folder=str(folder)) + (
        "draw_scenes(folder, n_frames=100, drives=('F1', 'F2', '02_00', '02_01'), processes=2, progress=progress)"))
    child.stdout.readline()
    *_, first, second = child.stdout.readline().split()  # workers, named with the first tenth
    assert first.isdigit(), second
    child.kill()
    try:
        child.communicate(timeout=60)  # not before the last of them has closed it
    finally:
        for worker in (first, second):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)
    rest = tmp_path / f"demo.partial-{child.pid}"
    assert list(rest.rglob("*.png"))
    scenes.draw_scenes(folder, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert len(files_below(folder)) == 4


def test_a_script_without_a_guard_draws_and_runs_once(tmp_path):
    """Processes that are started by *spawn* run the main module once more."""
    (tmp_path / "script.py").write_text(
        "print('begun')\nfrom unet_helpers.drawing import draw_scenes\n"
        "draw_scenes('data', drives=('F1', 'F2'), n_frames=1, size=(48, 64), processes=2)\nprint('ended')\n")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=environment, timeout=240, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begun") == 1
    assert done.stdout.splitlines()[-1] == "ended"
    assert len(files_below(tmp_path / "data")) == 4


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path):
    with small_disk(tmp_path / "disk", 200_000) as disk:
        (disk / "mine.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"demo can't be drawn \(No space left on device\).* DATA_DIR .*again$"):
            scenes.draw_scenes(disk / "demo", processes=2, drives=("F1", "F2"), progress=str)
        assert [path.name for path in disk.iterdir()] == ["mine.txt"]


@needs_users
def test_a_folder_that_may_not_be_written_is_one_sentence():
    with public_folder() as folder:
        scenes.draw_scenes(folder / "warm", **QUICK)  # imports what is imported only when it is used
        (folder / "data").mkdir(0o555)
        with nobody(), pytest.raises(ValueError, match=r"demo.* \(Permission denied\); make it writable"):
            load_dataset("demo", folder / "data")
        assert list((folder / "data").iterdir()) == []


def test_a_negative_seed_is_named(tmp_path):
    with pytest.raises(ValueError, match="^seed: found -1, expected "):
        scenes.draw_scenes(tmp_path / "demo", seed=-1, **QUICK)
    assert list(tmp_path.iterdir()) == []
