"""The embedded data set: its files, its classes, its repeatability and its refusals."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from kaggle_server import files_below
from limits import gate, nobody, public_folder, small_disk, start, together
from PIL import Image

from unet_helpers.datasets import load_dataset
from unet_helpers.drawing import raycast, scenes, writing
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


def test_frame_has_documented_shapes_and_ids(one_frame_of_each_drive):
    for image, mask in one_frame_of_each_drive:
        assert (image.shape, image.dtype, mask.shape, mask.dtype) == ((60, 80, 3), np.uint8, (60, 80), np.uint8)
        assert image.std() > 10  # neither black nor white
    for name_here, name in zip(raycast.CLASSES, CARLA.names, strict=True):
        assert name_here in name.split()


def test_every_class_occurs_about_as_often_as_in_the_real_data(one_frame_of_each_drive):
    masks = np.stack([mask for _, mask in one_frame_of_each_drive])
    share = np.bincount(masks.ravel(), minlength=13) / masks.size * 100
    assert len(share) == 13
    # per cent in the real data of the common classes, here within a factor of 2
    for class_id, real in {0: 30.8, 1: 8.4, 7: 19.4, 8: 7.9, 9: 12.3, 10: 16.6}.items():
        assert real / 2 < share[class_id] < real * 2, (class_id, share[class_id])
    for class_id in (2, 3, 5, 6, 11):  # fences, other, poles, road lines, walls
        assert 0.2 < share[class_id] < 2, (class_id, share[class_id])
    for class_id in (4, 12):  # pedestrians and signs: rare, but enough to learn them
        assert 0.05 < share[class_id] < 0.6, (class_id, share[class_id])


def test_bonnet_is_the_same_in_every_frame(one_frame_of_each_drive):
    masks = np.stack([mask for _, mask in one_frame_of_each_drive])
    always_vehicle = (masks == 10).all(axis=0)
    assert always_vehicle.mean() >= 0.15
    assert always_vehicle[-6:].all()
    assert not always_vehicle[:48].any()
    images = np.stack([image for image, _ in one_frame_of_each_drive])
    assert images[:, always_vehicle].mean() < 0.6 * images[:, ~always_vehicle].mean()


@pytest.mark.parametrize("class_id", [1, 7, 8, 9])
def test_colour_does_not_give_the_class_away(one_frame_of_each_drive, class_id):
    inside = [image[mask == class_id] for image, mask in one_frame_of_each_drive]
    means = [pixels.mean() for pixels in inside if len(pixels) > 30]
    assert max(means) - min(means) > 40  # light and paint vary between drives
    assert min(pixels.std() for pixels in inside if len(pixels) > 100) > 3  # texture


def people_about_12_pixels_tall(image, mask):
    """Yields (pixels (h, w, 3), which of them are the person's (h, w) bool) for each person."""
    edges = np.flatnonzero(np.diff(np.pad((mask == 4).any(axis=0).astype(int), 1)))
    for left, right in edges.reshape(-1, 2):
        rows = np.flatnonzero((mask[:, left:right] == 4).any(axis=1))
        box = slice(rows[0], rows[-1] + 1), slice(left, right)
        if 10 <= len(rows) <= 15 and right - left >= 4:  # narrower: half behind something
            yield image[box].astype(float), mask[box] == 4


def test_people_have_a_head_a_jacket_and_two_legs_even_when_small():
    tones, torso_from_legs, two_legs = [], [], []
    for drive in [drive for drive in scenes.DRIVES if WEATHER_OF_DRIVE[drive] in "NOD"][::3]:  # clear sight
        for frame in range(1, 20, 4):
            for pixels, person in people_about_12_pixels_tall(*scenes.render_frame(drive, frame)):
                height = len(person)
                head, torso, legs = (np.median(pixels[rows][person[rows]], axis=0) for rows in (
                    slice(0, 2), slice(height // 3, height // 2), slice(height * 2 // 3, height - 1)))
                pairs = (torso, legs), (head, torso), (head, legs)
                distances = [abs(a - b).max() for a, b in pairs]  # 0..255, in the channel that differs most
                torso_from_legs.append(distances[0])
                tones.append(min(distances))
                lower_third = np.pad(person[-(height // 3):], ((0, 0), (1, 1))).astype(int)
                two_legs.append(((np.diff(lower_third) == 1).sum(axis=1) >= 2).any())
    assert len(two_legs) >= 10
    assert np.median(torso_from_legs) > 35
    assert np.median(tones) > 18  # all three differ
    assert np.mean(two_legs) > 0.25  # the others are seen from the side, behind something, or between two pixels


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
    lines, options = [], {"size": (48, 64), "n_frames": 12, "drives": ("02_00", "F61")}
    one = writing.draw_scenes(tmp_path / "one", processes=1, progress=lines.append, **options)
    two = writing.draw_scenes(tmp_path / "two", processes=2, progress=str, **options)
    assert (one, two) == (tmp_path / "one", tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    files = files_below(one)
    assert len(files) == 48
    assert files == files_below(two)
    assert lines[0] == "drawing 24 road scenes, once: about 10 seconds on two cores"
    assert lines[-1].startswith("drawing 24 road scenes: 24 done, ")
    assert files.keys() > {
        "dataA/dataA/CameraRGB/02_00_000.png", "dataA/dataA/CameraRGB/02_00_011.png",
        "dataB/dataB/CameraSeg/02_00_002.png", "dataE/dataE/CameraSeg/02_00_009.png",
        "dataA/dataA/CameraRGB/F61-1.png", "dataA/dataA/CameraSeg/F61-10.png",
        "dataB/dataB/CameraRGB/F61-2.png", "dataE/dataE/CameraRGB/F61-9.png"}  # fmt: skip
    image, mask = scenes.render_frame("F61", 1, size=(48, 64), n_frames=12)
    stored = np.array(Image.open(one / "dataB/dataB/CameraSeg/F61-2.png"))
    assert (stored[..., 0] == mask).all()
    assert not stored[..., 1:].any()
    assert (np.array(Image.open(one / "dataB/dataB/CameraRGB/F61-2.png")) == image).all()


def test_the_first_line_comes_before_anything_is_drawn_and_fits(tmp_path):
    def stop(line):
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match=r"^drawing 640 road scenes, once: about \d0 seconds") as stopped:
        writing.draw_scenes(tmp_path / "demo", progress=stop)
    assert len(str(stopped.value)) <= 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("error", "shown"), [(OSError, ValueError), (KeyboardInterrupt, KeyboardInterrupt)])
def test_failure_midway_leaves_nothing(tmp_path, monkeypatch, error, shown):
    draw = scenes.render_frame

    def fail_at_the_second(drive, frame, **options):
        if frame == 1:
            raise error("out of order")
        return draw(drive, frame, **options)

    monkeypatch.setattr(writing, "render_frame", fail_at_the_second)
    with pytest.raises(shown, match="out of order"):
        writing.draw_scenes(tmp_path / "demo", **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_used_only_when_it_is_whole_and_never_changed(tmp_path):
    folder, again = writing.draw_scenes(tmp_path / "demo", **QUICK), {**QUICK, "exist_ok": True}
    before = files_below(tmp_path)
    assert writing.draw_scenes(folder, **again) == folder
    with pytest.raises(ValueError, match=r"folder: .*demo exists already.*remove it"):
        writing.draw_scenes(folder, **QUICK)
    with pytest.raises(ValueError, match="demo exists already, but 2 of its 6 files"):
        writing.draw_scenes(folder, **{**again, "n_frames": 3})
    (mask,) = folder.rglob("CameraSeg/F1-1.png")
    mask.unlink()
    with pytest.raises(ValueError, match=r"1 of its 4 files, such as F1-1\.png, are not there; move it away"):
        writing.draw_scenes(folder, **again)
    del before[mask.relative_to(tmp_path).as_posix()]
    assert files_below(tmp_path) == before


# --- two at once, and killed ones ---

DRAW = """
import multiprocessing
from pathlib import Path
from unet_helpers.drawing import draw_scenes
folder = Path({folder!r})
def progress(line):
    print(line, *(child.pid for child in multiprocessing.active_children()), flush=True)
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_two_that_draw_to_one_folder_draw_it_once(tmp_path, processes):
    code = DRAW.format(folder=str(tmp_path / "sets" / "demo")) + gate(tmp_path) + (
        f"draw_scenes(folder, size=(48, 64), n_frames=10, drives=('F1', 'F2'), processes={processes},"
        " progress=lambda line: ('waiting' in line or until_met(), progress(line)), exist_ok=True)\n"
        "print(sum(path.is_file() for path in folder.rglob('*')))")
    ends = together(tmp_path, start(code), start(code))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert [out.splitlines()[-1] for _, out, _ in ends] == ["40", "40"]
    waits = f"another process is drawing to {tmp_path / 'sets' / 'demo'}: waiting for it"
    assert sorted(out.count(waits) for _, out, _ in ends) == [0, 1]
    assert sorted(out.count("drawing 20 road scenes, once") for _, out, _ in ends) == [0, 1]
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["demo"]


def test_a_killed_drawing_leaves_no_worker_and_the_next_one_no_rest(tmp_path):
    folder = tmp_path / "demo"
    child = start(DRAW.format(folder=str(folder)) + (
        "draw_scenes(folder, n_frames=100, drives=('F1', 'F2', '02_00', '02_01'), processes=2, progress=progress)"))
    child.stdout.readline()
    *_, first, second = child.stdout.readline().split()  # workers, named with the first tenth
    assert first.isdigit(), second
    child.kill()
    try:
        child.communicate(timeout=120)  # not before the last of them has closed it
    except subprocess.TimeoutExpired:
        for worker in (first, second):
            os.kill(int(worker), signal.SIGKILL)
        pytest.fail("the workers outlive their parent")
    rest = tmp_path / f"demo.partial-{child.pid}"
    assert list(rest.rglob("*.png"))
    writing.draw_scenes(folder, **QUICK)
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
    assert done.stderr == ""
    assert len(files_below(tmp_path / "data")) == 4


# --- disks, folders of others, wrong arguments ---

FULL = r"^folder: .*demo can't be drawn \({}\); {} or set DATA_DIR to a folder on another disk, and run again$"


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path):
    with small_disk(tmp_path / "disk", 200_000) as disk:
        (disk / "mine.txt").write_text("mine")
        with pytest.raises(ValueError, match=FULL.format("No space left on device", "make room")):
            writing.draw_scenes(disk / "demo", processes=2, drives=("F1", "F2"), progress=str)
        assert [path.name for path in disk.iterdir()] == ["mine.txt"]


def test_a_limit_on_files_is_one_sentence(tmp_path):
    child = start(DRAW.format(folder=str(tmp_path / "demo")) + (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "draw_scenes(folder, drives=('F1',), n_frames=2, processes=1, progress=progress)"))
    _, errors = child.communicate(timeout=120)
    assert re.match(FULL.format("File too large", "make it writable").replace("^", "ValueError: "),
                    errors.splitlines()[-1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_that_may_not_be_written_or_looked_into_is_one_sentence(mode):
    with public_folder() as folder:
        writing.draw_scenes(folder / "warm", **QUICK)  # imports what is imported only when it is used
        (folder / "data").mkdir()
        (folder / "data").chmod(mode)
        message = FULL.format("Permission denied", "make it writable")
        with nobody():
            with pytest.raises(ValueError, match=message):
                writing.draw_scenes(folder / "data" / "demo", **QUICK)
            with pytest.raises(ValueError, match=message.replace("demo", "demo/v.*")):
                load_dataset("demo", folder / "data")
        assert list((folder / "data").iterdir()) == []


@pytest.mark.parametrize("wrong", [
    {"drives": ("F11",)}, {"drives": ()}, {"size": (0, 80)}, {"size": 60}, {"size": (60.0, 80)}, {"n_frames": 0},
    {"seed": -1}, {"processes": 0}])
def test_wrong_argument_is_named(tmp_path, wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=rf"^{name.rstrip('s')}.*: found .*, expected "):
        writing.draw_scenes(tmp_path / "demo", **{**QUICK, **wrong})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"^frame: found 2, expected 0..1"):
        scenes.render_frame("F1", 2, **SMALL)
