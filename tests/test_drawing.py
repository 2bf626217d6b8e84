"""The embedded data set: its files, its classes, its repeatability and its refusals."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from limits import gate, nobody, public_folder, small_disk, start, together
from PIL import Image

from unet_helpers.datasets import load_dataset
from unet_helpers.drawing import raycast, scenes, writing
from unet_helpers.drawing.street import WEATHER_OF_DRIVE
from unet_helpers.labels import CARLA

SMALL = {"size": (60, 80), "n_frames": 2}


def files_below(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def one_frame_of_each_drive():
    """{drive: (picture, mask)} of the 32 drives, somewhere in the middle of each."""
    return {drive: scenes.render_frame(drive, i % 20, size=(60, 80))
            for i, drive in enumerate(scenes.DRIVES)}


def test_drives_have_the_real_names():
    assert len(set(scenes.DRIVES)) == len(scenes.DRIVES) == 32
    assert scenes.DRIVES[:3] == ("02_00", "02_01", "02_02")
    assert scenes.DRIVES[11] == "10_00"
    assert scenes.DRIVES[12] == "F1"
    assert scenes.DRIVES[21:23] == ("F10", "F61")
    assert scenes.frame_name("02_00", 0) == "02_00_000.png"
    assert scenes.frame_name("10_00", 17) == "10_00_017.png"
    assert scenes.frame_name("F61", 0) == "F61-1.png"


def test_each_split_has_every_weather():
    test = {"F1", "F3", "F62", "F63", "F64", "F69", "F8"}
    validation = {"09_00", "F2", "F6", "F66", "F68", "F70"}
    for drives in (test, validation, set(scenes.DRIVES) - test - validation):
        assert {WEATHER_OF_DRIVE[drive] for drive in drives} == set("NODRF")


def test_classes_are_those_of_the_label_map_in_its_order():
    for annex_name, name in zip(raycast.CLASSES, CARLA.names, strict=True):
        assert annex_name in name.split()


def test_frame_has_documented_shapes_and_ids(one_frame_of_each_drive):
    for picture, mask in one_frame_of_each_drive.values():
        assert picture.shape == (60, 80, 3)
        assert picture.dtype == np.uint8
        assert mask.shape == (60, 80)
        assert mask.dtype == np.uint8
        assert mask.max() <= 12
        assert picture.std() > 10  # neither black nor white


def test_every_class_occurs_about_as_often_as_in_the_real_data(one_frame_of_each_drive):
    masks = np.stack([mask for _, mask in one_frame_of_each_drive.values()])
    share = np.bincount(masks.ravel(), minlength=13) / masks.size * 100
    assert (share > 0).all(), share
    # per cent in the real data of the common classes, here within a factor of 2
    for class_id, real in {0: 30.8, 1: 8.4, 7: 19.4, 8: 7.9, 9: 12.3, 10: 16.6}.items():
        assert real / 2 < share[class_id] < real * 2, (class_id, share[class_id])
    for class_id in (2, 3, 5, 6, 11):  # fences, other, poles, road lines, walls
        assert 0.2 < share[class_id] < 2, (class_id, share[class_id])
    for class_id in (4, 12):  # pedestrians and signs: rare, but enough to learn them
        assert 0.05 < share[class_id] < 0.6, (class_id, share[class_id])


def test_bonnet_is_the_same_in_every_frame(one_frame_of_each_drive):
    masks = np.stack([mask for _, mask in one_frame_of_each_drive.values()])
    always_vehicle = (masks == 10).all(axis=0)
    assert always_vehicle.mean() >= 0.15
    assert always_vehicle[-6:].all()
    assert not always_vehicle[:48].any()
    pictures = np.stack([picture for picture, _ in one_frame_of_each_drive.values()])
    assert pictures[:, always_vehicle].mean() < 0.6 * pictures[:, ~always_vehicle].mean()


def test_colour_does_not_give_the_class_away(one_frame_of_each_drive):
    for class_id in (1, 7, 8, 9):
        means = [picture[mask == class_id].mean() for picture, mask in
                 one_frame_of_each_drive.values() if (mask == class_id).sum() > 30]
        assert max(means) - min(means) > 40, class_id  # light and paint vary between drives
        inside = [picture[mask == class_id].std() for picture, mask in
                  one_frame_of_each_drive.values() if (mask == class_id).sum() > 100]
        assert min(inside) > 3, class_id  # texture


def people_about_12_pixels_tall(picture, mask):
    """Yields (pixels (h, w, 3), which of them are the person's (h, w) bool) for each person."""
    edges = np.flatnonzero(np.diff(np.pad((mask == 4).any(axis=0).astype(int), 1)))
    for left, right in edges.reshape(-1, 2):
        rows = np.flatnonzero((mask[:, left:right] == 4).any(axis=1))
        box = slice(rows[0], rows[-1] + 1), slice(left, right)
        if 10 <= len(rows) <= 15 and right - left >= 4:  # narrower: half behind something
            yield picture[box].astype(float), mask[box] == 4


def test_people_have_a_head_a_jacket_and_two_legs_even_when_small():
    tones, torso_from_legs, two_legs = [], [], []
    for drive in (drive for drive in scenes.DRIVES if WEATHER_OF_DRIVE[drive] in "NOD"):  # clear sight
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
    assert len(two_legs) >= 15
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
    again = scenes.render_frame("02_00", 0, **SMALL)
    assert (frame[0] == again[0]).all()
    assert (frame[1] == again[1]).all()


def test_other_sizes_show_the_same_scene():
    small = scenes.render_frame("F4", 3, size=(60, 80))[1]
    large = scenes.render_frame("F4", 3, size=(240, 320))[1][2::4, 2::4]
    assert (small == large).mean() > 0.9


def test_layout_is_that_of_kaggle(tmp_path):
    folder = writing.draw_scenes(tmp_path / "demo", size=(48, 64), n_frames=10, processes=1,
                                drives=("02_00", "F61"), progress=lambda text: None)
    assert folder == tmp_path / "demo"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    names = sorted(files_below(folder))
    assert len(names) == 40
    for expected in ("dataA/dataA/CameraRGB/02_00_000.png", "dataA/dataA/CameraRGB/02_00_001.png",
                     "dataB/dataB/CameraSeg/02_00_002.png", "dataE/dataE/CameraSeg/02_00_009.png",
                     "dataA/dataA/CameraRGB/F61-1.png", "dataA/dataA/CameraSeg/F61-10.png",
                     "dataB/dataB/CameraRGB/F61-2.png", "dataE/dataE/CameraRGB/F61-9.png"):
        assert expected in names
    picture, mask = scenes.render_frame("F61", 1, size=(48, 64), n_frames=10)
    stored = np.array(Image.open(folder / "dataB/dataB/CameraSeg/F61-2.png"))
    assert (stored[..., 0] == mask).all()
    assert not stored[..., 1:].any()
    assert (np.array(Image.open(folder / "dataB/dataB/CameraRGB/F61-2.png")) == picture).all()


def test_same_bytes_whatever_the_number_of_processes(tmp_path):
    lines = []
    options = {"size": (48, 64), "n_frames": 12, "drives": ("02_02", "F3"),
               "progress": lines.append}
    one = writing.draw_scenes(tmp_path / "one", processes=1, **options)
    two = writing.draw_scenes(tmp_path / "two", processes=2, **options)
    assert len(files_below(one)) == 48
    assert files_below(one) == files_below(two)
    assert lines[-1].startswith("drawing 24 road scenes: 24 done, ")


@pytest.mark.parametrize("processes", [1, 2])
def test_first_line_comes_before_anything_is_drawn(tmp_path, monkeypatch, processes):
    drawn, events = [], []
    run = writing._run
    monkeypatch.setattr(writing, "_run", lambda *args: events.append("workers start") or run(*args))

    def progress(line):
        if not events:
            drawn.extend(tmp_path.rglob("*.png"))
        events.append(line)

    writing.draw_scenes(tmp_path / "demo", processes=processes, drives=("F1",), progress=progress, **SMALL)
    assert drawn == []
    assert events[0] == "drawing 2 road scenes, once: about 10 seconds on two cores"
    assert events[1] == "workers start"
    assert events[2].startswith("drawing 2 road scenes: 2 done, ")


def test_first_line_gives_the_time_of_the_usual_set_and_is_short(tmp_path):
    def stop(line):
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match=r"^drawing 640 road scenes, once: about \d0 seconds") as stopped:
        writing.draw_scenes(tmp_path / "demo", progress=stop)
    assert len(str(stopped.value)) <= 100
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"folder: .*mine exists already.*remove it"):
        writing.draw_scenes(tmp_path / "mine", processes=1, drives=("F1",), **SMALL)
    assert files_below(tmp_path) == {"mine/notes.txt": b"keep"}


@pytest.mark.parametrize(("error", "shown"), [
    (OSError, ValueError), (KeyboardInterrupt, KeyboardInterrupt), (MemoryError, MemoryError)])
def test_failure_midway_leaves_nothing(tmp_path, monkeypatch, error, shown):
    draw = scenes.render_frame

    def fail_at_the_second(drive, frame, **options):
        if frame == 1:
            raise error("out of order")
        return draw(drive, frame, **options)

    monkeypatch.setattr(writing, "render_frame", fail_at_the_second)
    with pytest.raises(shown, match="out of order"):
        writing.draw_scenes(tmp_path / "demo", processes=1, drives=("F1",), **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_a_whole_folder_may_be_used_again_and_no_other(tmp_path):
    options = {"processes": 1, "drives": ("F1", "02_00"), "progress": str, **SMALL}
    folder = writing.draw_scenes(tmp_path / "demo", exist_ok=True, **options)
    before = files_below(folder)
    assert writing.draw_scenes(folder, exist_ok=True, **options) == folder
    with pytest.raises(ValueError, match="demo exists already"):
        writing.draw_scenes(folder, exist_ok=True, **{**options, "n_frames": 3})
    assert files_below(tmp_path / "demo") == before


# --- two at once, and killed ones ---

DRAW = """
import multiprocessing
from pathlib import Path
from unet_helpers.datasets import load_dataset
from unet_helpers.drawing import draw_scenes
folder = Path({folder!r})
def progress(line):
    print(line, *(child.pid for child in multiprocessing.active_children()), flush=True)
"""


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("repeat", range(2))
def test_two_that_draw_to_one_folder_draw_it_once(tmp_path, processes, repeat):
    code = DRAW.format(folder=str(tmp_path / "sets" / "demo")) + gate(tmp_path) + (
        f"draw_scenes(folder, size=(48, 64), n_frames=10, drives=('F1', 'F2'), processes={processes},"
        " progress=lambda line: ('waiting' in line or until_met(), progress(line)))\n"
        "print(sum(path.is_file() for path in folder.rglob('*')))")
    ends = together(tmp_path, start(code), start(code))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert [out.splitlines()[-1] for _, out, _ in ends] == ["40", "40"]
    waits = f"another process is drawing to {tmp_path / 'sets' / 'demo'}: waiting for it"
    assert sorted(out.count(waits) for _, out, _ in ends) == [0, 1]
    assert sorted(out.count("drawing 20 road scenes, once") for _, out, _ in ends) == [0, 1]
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["demo"]


@pytest.mark.parametrize("repeat", range(3))
def test_two_notebooks_at_once_load_the_whole_demo(tmp_path, repeat):
    code = DRAW.format(folder=str(tmp_path)) + gate(tmp_path) + (
        "dataset = load_dataset('demo', folder, frames_per_drive=1)\n"
        "print(len(dataset.train), len(dataset.validation), len(dataset.test))")
    ends = together(tmp_path, start(code), start(code))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert [out.splitlines()[-1] for _, out, _ in ends] == ["19 6 7"] * 2
    assert len(list((tmp_path / "demo").iterdir())) == 1


def test_a_killed_drawing_leaves_no_worker_and_the_next_one_no_rest(tmp_path):
    folder = tmp_path / "demo"
    child = start(DRAW.format(folder=str(folder)) + (
        "draw_scenes(folder, n_frames=200, drives=('F1', 'F2', '02_00', '02_01'), processes=2,"
        " progress=progress)"))
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
    writing.draw_scenes(folder, processes=1, drives=("F1",), **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    assert len(files_below(folder)) == 4


def test_a_script_without_a_guard_draws_and_runs_once(tmp_path):
    """Processes that are started by *spawn* run the main module once more."""
    (tmp_path / "script.py").write_text(
        "print('begun')\nfrom unet_helpers.datasets import load_dataset\n"
        "dataset = load_dataset('demo', 'data', frames_per_drive=1)\nprint(len(dataset.train))\n")
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=environment, timeout=240, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("begun") == 1
    assert done.stdout.splitlines()[-1] == "19"
    assert done.stderr == ""


def test_a_set_of_which_frames_are_gone_is_not_used(tmp_path):
    options = {"processes": 1, "drives": ("F1", "F2"), "progress": str, "exist_ok": True, **SMALL}
    folder = writing.draw_scenes(tmp_path / "demo", **options)
    for path in sorted(folder.rglob("F1-1.png")):
        path.unlink()
    before = files_below(folder)
    with pytest.raises(ValueError, match=r"demo exists already, but 2 of its 8 files, such as F1-1\.png, are not"):
        writing.draw_scenes(folder, **options)
    assert files_below(folder) == before


# --- disks ---


@pytest.mark.parametrize("processes", [1, 2])
def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, processes):
    with small_disk(tmp_path / "disk", 200_000) as disk:
        (disk / "mine.txt").write_text("mine")
        with pytest.raises(ValueError, match=FULL.format("No space left on device", "make room")) as caught:
            writing.draw_scenes(disk / "demo", processes=processes, drives=("F1", "F2"), progress=str)
        assert str(caught.value).count("\n") == 0
        assert files_below(disk) == {"mine.txt": b"mine"}
        assert [path.name for path in disk.iterdir()] == ["mine.txt"]


FULL = r"^folder: .*demo can't be drawn \({}\); {} or set DATA_DIR to a folder on another disk, and run again$"


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
    options = {"processes": 1, "drives": ("F1",), "progress": str, **SMALL}
    with public_folder() as folder:
        writing.draw_scenes(folder / "warm", **options)  # imports what is imported only when it is used
        (folder / "data").mkdir()
        (folder / "data").chmod(mode)
        message = FULL.format("Permission denied", "make it writable")
        with nobody():
            with pytest.raises(ValueError, match=message):
                writing.draw_scenes(folder / "data" / "demo", **options)
            with pytest.raises(ValueError, match=message.replace("demo", "demo/v.*")):
                load_dataset("demo", folder / "data")
        assert list((folder / "data").iterdir()) == []


@pytest.mark.parametrize("wrong", [
    {"drives": ("F11",)}, {"drives": ()}, {"size": (0, 80)}, {"size": (60,)}, {"size": 60},
    {"size": (60.0, 80)}, {"n_frames": 0}, {"seed": -1}, {"processes": 0}])
def test_wrong_argument_is_named(tmp_path, wrong):
    name = next(iter(wrong))
    with pytest.raises(ValueError, match=rf"^{name.rstrip('s')}.*: found .*, expected "):
        writing.draw_scenes(tmp_path / "demo", **{**SMALL, "processes": 1, **wrong})
    assert list(tmp_path.iterdir()) == []


def test_wrong_frame_is_named():
    with pytest.raises(ValueError, match=r"^frame: found 2, expected 0..1"):
        scenes.render_frame("F1", 2, **SMALL)
