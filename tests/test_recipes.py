"""The recipes of data/README.md, each run as it stands there."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from builders import make_folder, run, save_start, succeeds
from conftest import LABELS, write_pair_to
from PIL import Image

from unet_helpers.commands import train as command_train
from unet_helpers.datasets import load_dataset
from unet_helpers.images import decode_mask
from unet_helpers.model import unet_model

TEXT = (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8").split("## Recipes")[1]


def run_recipe(title: str, capsys=None) -> str:
    """Run the first block of code after this title in the working folder; what it prints."""
    code = re.search(r"```python\n(.*?)```", TEXT[TEXT.index(f"**{title}") :], re.DOTALL)[1]
    assert sum(not line.startswith(("import", "from")) and bool(line) for line in code.splitlines()) < 10
    exec(compile(code, title, "exec"), {})
    return capsys.readouterr().out if capsys else ""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(path: str, values) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def test_things_are_counted_and_measured(capsys):
    mask = np.zeros((40, 60))
    mask[5:15, 5:10] = mask[20:30, 30:50] = 2  # 50 and 200 pixels
    mask[35, 3] = 2  # noise
    mask[0:4] = 1
    save("predictions/p1_ids.png", mask)
    assert run_recipe("How many things", capsys) == "2 things, 251 pixels, the largest 200\n"
    save("predictions/p1_ids.png", 0 * mask)
    assert run_recipe("How many things", capsys) == "0 things, 0 pixels, the largest 0\n"


def test_what_is_not_labelled_is_void():
    folder = make_folder(Path("my folder"), 6)
    for path in (folder / "masks").iterdir():
        save(path, np.asarray(Image.open(path)) + 1)  # 1 sky, 2 road, 3 car
        values = np.array(Image.open(path))
        values[:10] = 0  # not labelled
        save(path, values)
    (folder / "classes.txt").write_text("void\nsky\nroad\ncar\n")
    dataset = load_dataset("folder", folder)
    assert dataset.labels.names == LABELS.names
    ids = decode_mask(dataset.train[0].mask, dataset.labels)
    assert (ids[:10] == 255).all()
    assert set(np.unique(ids[10:])) == {0, 1, 2}


def test_images_without_any_object_are_background():
    folder = make_folder(Path("my folder"), 6)
    before = (folder / "masks" / "p00.png").read_bytes()
    for n in (4, 5):
        (folder / "masks" / f"p0{n}.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 64)).save(folder / "images" / "p05.png", exif=exif)  # a phone's, held upright
    run_recipe("Images without any object")
    assert (folder / "masks" / "p00.png").read_bytes() == before
    dataset = load_dataset("folder", folder)
    (pair,) = (pair for pair in (*dataset.train, *dataset.validation, *dataset.test) if pair.image.stem == "p05")
    mask = decode_mask(pair.mask, dataset.labels)
    assert (mask.shape, set(np.unique(mask))) == ((96, 64, 1), {0})


def test_the_same_run_gives_the_same_numbers(capsys, tmp_path, monkeypatch):
    """As its text says: with a number of epochs, on one machine."""
    monkeypatch.setattr(command_train, "unet_model", partial(unet_model, depth=1))
    data, start = make_folder(tmp_path / "data", 8, (64, 64)), save_start(tmp_path / "start.keras", depth=1)
    options = ("--epochs", 2, "--image-size", "64x64", "--start-from", start)
    logs = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run(capsys, "train", data, "--runs", tmp_path / name, "--seed", seed, *options)[0] == 0
        (log,) = (tmp_path / name).glob("*/log.csv")
        logs.append(np.genfromtxt(log, delimiter=",", skip_header=1))
    np.testing.assert_allclose(logs[0], logs[1], rtol=1e-4)
    assert np.abs(logs[0] - logs[2]).max() > 1e-3


def test_where_two_classes_overlap_is_a_third_one():
    car, glass = np.zeros((4, 6)), np.zeros((4, 6))
    car[:, :4] = glass[:2, 2:] = 255
    save("cars/p1.png", car)
    save("glass/p1.png", glass)
    Path("masks").mkdir()
    run_recipe("Classes that overlap")
    assert np.asarray(Image.open("masks/p1.png")).tolist() == 2 * [[1, 1, 3, 3, 2, 2]] + 2 * [[1, 1, 1, 1, 0, 0]]


def test_masks_that_were_a_jpeg_become_0_and_255(capsys):
    folder = Path("my folder")
    for n in range(6):
        write_pair_to(folder, f"p{n}", seed=n)
        path = folder / "masks" / f"p{n}.png"
        values = 255 * (np.asarray(Image.open(path)) > 0)
        Image.fromarray(values.astype(np.uint8)).save(path.with_suffix(".jpg"), quality=60)
        path.unlink()
    code, shown, _ = run(capsys, "check", folder)
    assert (code, "'Masks of 0 and 255 that are JPEGs'" in " ".join(shown.split())) == (1, True)
    run_recipe("Masks of 0 and 255 that are JPEGs")
    shown = succeeds(capsys, "check", folder)
    assert "0 is 'background', the other 'foreground'" in " ".join(shown.split())
    assert len(list((folder / "masks").glob("*.old"))) == 6


def test_a_png_per_label_becomes_one_mask():
    car, road = np.zeros((4, 6)), np.zeros((4, 6))
    road[2:], car[1:3, 1:3] = 255, 255
    for name, values in (("car-0", car), ("road-0", road), ("car-1", 0 * car)):
        save(f"brush labels/task-7-annotation-3-by-1-tag-{name}.png", values)
    save("brush labels/task-71-annotation-3-by-1-tag-car-0.png", 255 + 0 * car)
    Path("my folder/masks").mkdir(parents=True)
    run_recipe("A PNG per label")
    expected = [[0] * 6, [0, 2, 2, 0, 0, 0], [1, 2, 2, 1, 1, 1], [1] * 6]
    assert np.asarray(Image.open("my folder/masks/street.png")).tolist() == expected
