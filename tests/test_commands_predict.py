"""python -m unet_helpers predict and export: what is written, what never is, and bad inputs."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from builders import fails, make_folder, messages, run, save_network, succeeds
from conftest import LABELS
from limits import needs_links, needs_pipes, pipe, small_disk
from PIL import Image

from benchmarks.exporting import open_saved_model
from unet_helpers import datasets, networks
from unet_helpers.commands import predict as predicting
from unet_helpers.commands import train as command_train
from unet_helpers.custom_data import find_classes
from unet_helpers.drawing import render_frame
from unet_helpers.model import unet_model
from unet_helpers.networks import load_network
from unet_helpers.prediction import predict_mask

SKY, ROAD, CAR = (90, 130, 220), (90, 90, 90), (200, 40, 40)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp("networks") / "run")


@pytest.fixture
def images(tmp_path):
    """An empty folder for images."""
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def draw(top, bottom, size=(32, 48)) -> Image.Image:
    image = np.empty((*size, 3), np.uint8)
    image[: size[0] // 2], image[size[0] // 2 :] = top, bottom
    return Image.fromarray(image)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == ("L" if path.name.endswith("_ids.png") else "RGB")
        return np.asarray(image)


def test_three_files_for_each_image_upright_as_it_is_shown(capsys, tmp_path, network):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees: what is stored at the bottom is shown at the left
    file, out = tmp_path / "my street.png", tmp_path / "new" / "out"
    draw(SKY, CAR, (50, 70)).save(file, exif=exif)
    (tmp_path / "names.txt").write_text("sky\nthe road\nred car\n")
    given = (file, "--out", out, "--classes", tmp_path / "names.txt")
    shown = succeeds(capsys, "predict", network.parent, *given)
    names = [f"my street_{end}.png" for end in ("colors", "ids", "overlay")]
    assert sorted(p.name for p in out.iterdir()) == ["classes.txt", "legend.png", *names]
    mask = pixels(out / "my street_ids.png")
    assert mask.shape == (70, 50)
    assert (np.unique(mask[:, :22]).tolist(), np.unique(mask[:, 28:]).tolist()) == ([2], [0])
    colors = pixels(out / "my street_colors.png")
    overlay = pixels(out / "my street_overlay.png").astype(int)
    image = np.rot90(np.asarray(draw(SKY, CAR, (50, 70))), -1).astype(int)
    np.testing.assert_allclose(overlay, (image + colors) / 2, atol=1)
    assert re.search(r"^my street: (sky|red car) \d+%, (sky|red car) \d+%", shown, re.MULTILINE)
    succeeds(capsys, "predict", network, file, "--out", out, "--overwrite")
    colors = pixels(out / "my street_colors.png")  # those of the training
    np.testing.assert_array_equal(colors[0, [5, 45]], [LABELS.colors[2], LABELS.colors[0]])


def test_legend_and_list_say_what_ids_and_colours_mean(capsys, tmp_path, images, network):
    """The list is read as any other one, and the masks with it; other networks' files do not replace it."""
    draw(SKY, ROAD).save(images / "p.png")
    out, file = tmp_path / "out", images / "p.png"
    succeeds(capsys, "predict", network, file, "--out", out)
    found = find_classes(out)
    assert (found.names, found.colors) == (LABELS.names, LABELS.colors)
    legend = np.asarray(Image.open(out / "legend.png").convert("RGB")).reshape(-1, 3)
    assert all((legend == color).all(axis=1).sum() > 100 for color in LABELS.colors)
    before = (out / "legend.png").stat()
    draw(CAR, ROAD).save(images / "q.png")
    succeeds(capsys, "predict", network, images / "q.png", "--out", out)  # the same classes
    assert (out / "legend.png").stat() == before
    (out / "classes.txt").write_text("mine")
    draw(CAR, SKY).save(images / "r.png")
    errors = fails(capsys, "predict", network, images / "r.png", "--out", out, n_messages=1)
    assert "classes.txt: there already" in errors
    assert ((out / "classes.txt").read_text(), (out / "r_ids.png").is_file()) == ("mine", True)


def test_a_grey_map_holds_the_confidence(capsys, tmp_path, images, network):
    draw(SKY, ROAD).save(images / "p.png")
    succeeds(capsys, "predict", network, images / "p.png", "--out", tmp_path, "--confidence")
    with Image.open(tmp_path / "p_confidence.png") as image:
        assert (image.mode, image.size) == ("L", (48, 32))
        shown = np.asarray(image)
    # By hand, where it is all sky and all road: logits (blue - red, 60, red - blue) of the colours.
    for row, logits in ((0, (130, 60, -130)), (31, (0, 60, 0))):
        softmax = np.exp(np.float64(logits) - max(logits))
        assert abs(shown[row, 20] - 255 * softmax.max() / softmax.sum()) <= 1


def test_the_time_that_is_left_follows_from_the_time_of_what_is_done(monkeypatch):
    now = iter([0, 10, 20, 100, 300])
    monkeypatch.setattr(predicting.time, "perf_counter", lambda: next(now))
    started = predicting.time.perf_counter()
    left = [predicting.time_left(started, n_done, 4) for n_done in range(1, 5)]
    assert left == [", 30 s left", ", 20 s left", ", 33 s left", ""]


def test_of_an_animation_the_first_frame_is_predicted_and_a_note_says_so(capsys, tmp_path, network):
    first, *others = [draw(top, top) for top in (CAR, SKY, ROAD)]
    for name, options in (("drive.gif", {"save_all": True, "append_images": others}), ("one.gif", {})):
        first.save(tmp_path / name, **options)
    given = (tmp_path / "drive.gif", tmp_path / "one.gif", "--out", tmp_path / "out")
    shown = succeeds(capsys, "predict", network, *given)
    notes = re.findall("^note: (.+): it holds more than one image, and only the first is used;", shown, re.MULTILINE)
    assert notes == [str(tmp_path / "drive.gif")]
    assert sorted(path.name for path in (tmp_path / "out").glob("*_ids.png")) == ["drive_ids.png", "one_ids.png"]
    assert [pixels(tmp_path / "out" / f"{stem}_ids.png")[3, 3] for stem in ("drive", "one")] == [2, 2]


def test_a_folder_is_done_in_the_order_of_its_numbers(capsys, tmp_path, images, network):
    for n in (8, 9, 10):
        draw(SKY, ROAD).save(images / f"f{n}.png")
    shown = succeeds(capsys, "predict", network, images, "--out", tmp_path / "out")
    assert re.findall(r"^(\[\d/3\] f\d+):", shown, re.MULTILINE) == ["[1/3] f8", "[2/3] f9", "[3/3] f10"]


def test_16_bit_images_of_a_folder_share_one_scale_as_in_training(capsys, tmp_path, images, network):
    """Dark and bright ones of a 12-bit camera: alone, the dark ones would be as bright as the others."""
    masks = tmp_path / "masks"
    masks.mkdir()
    for n, highest in enumerate((4000, 1000, 500, 3000)):
        values = np.linspace(0, highest, 32 * 48).reshape(32, 48).astype(np.uint16)
        Image.fromarray(values).save(images / f"f{n}.png")
        Image.fromarray((values > 100).astype(np.uint8)).save(masks / f"f{n}.png")
    trained_on = {pair.image.stem: pair.image for pair in datasets.load_dataset("folder", tmp_path).train}

    def predicted(name, *files):
        shown = succeeds(capsys, "predict", network, *files, "--out", tmp_path / name)
        return shown

    def read(name, stem):  # the image as the network saw it, from the half of it in the overlay
        return pixels(tmp_path / name / f"{stem}_overlay.png") - pixels(tmp_path / name / f"{stem}_colors.png") // 2

    assert f"note: {images}: images of 16 bits: 4, of which the highest 8 of the 12 bits in" in predicted("all", images)
    for stem, path in trained_on.items():
        np.testing.assert_array_equal(read("all", stem), np.asarray(Image.open(path).convert("RGB")) // 2)
    predicted("both", images / "f2.png", images / "f0.png")  # given one by one
    np.testing.assert_array_equal(read("both", "f2"), read("all", "f2"))
    assert "the 9 bits in use" in predicted("one", images / "f2.png")
    assert read("one", "f2").max() > 100 > read("all", "f2").max()


def make_deep(folder, highest):
    """Five pairs of 16 bits: road is 1600, sky 800; one pixel of each image has the highest value of all."""
    make_folder(folder, 5, (32, 48), "p{}")
    (folder / "classes.txt").write_text("sky\nroad\n")
    for n in range(5):
        values = np.uint16([800, 1600])[make_road(n)]
        values[0, 0] = highest
        Image.fromarray(values).save(folder / "images" / f"p{n}.png")
        Image.fromarray(make_road(n)).save(folder / "masks" / f"p{n}.png")
    return folder


def make_road(n):
    road = np.zeros((32, 48), np.uint8)
    road[16 + n :, n:] = 1
    return road


def test_the_bits_that_were_in_use_in_training_are_taken_again(capsys, tmp_path, monkeypatch):
    """Images of 12 bits in training: 1600 is 100 there, and must be 100 where no image needs more than 11."""
    bright, dark = make_deep(tmp_path / "bright", 4000), make_deep(tmp_path / "dark", 2000)
    monkeypatch.setattr(command_train, "unet_model", lambda shape, _, *n, **kw: unet_model(shape, 2, *n, **kw, depth=1))
    options = ("--epochs", 1, "--image-size", "64x64", "--batch-size", 4, "--runs", tmp_path / "runs")
    succeeds(capsys, "train", bright, *options)
    trained = load_network(next((tmp_path / "runs").glob("*/best.keras")))
    assert trained.bits == 12

    inputs = keras.Input((None, None, 3))
    threshold = keras.layers.Conv2D(2, 1)
    model = keras.Model(inputs, threshold(inputs))  # road is brighter than 75, sky is not
    threshold.set_weights([np.float32([[[[0, 1], [0, 0], [0, 0]]]]), np.float32([0, -75])])
    file, out = tmp_path / "net.keras", tmp_path / "out"
    networks.save_network(file, model, trained.labels, (32, 48), trained.bits)
    assert "16 bits" not in succeeds(capsys, "predict", file, dark / "images", "--out", out)
    for path in out.glob("*_ids.png"):
        assert (pixels(path) != make_road(int(path.name[1]))).sum() <= 1  # the pixel of 2000
    assert "accuracy 0.999" in succeeds(capsys, "evaluate", file, dark, "--split", "validation")
    first = datasets.load_dataset("folder", dark).train[0].image  # what a training on them reads is as it was
    assert np.asarray(Image.open(first)).max() == 2000 >> 3
    networks.save_network(file, model, trained.labels, (32, 48))
    run(capsys, "predict", file, dark / "images", "--out", tmp_path / "without")
    assert (pixels(tmp_path / "without" / "p3_ids.png") == 1).all()


@needs_pipes
def test_a_bad_image_is_one_message_and_the_others_are_done(capsys, tmp_path, images, network):
    for n in (1, 2, 4):
        draw(SKY, ROAD, (32 + n, 48)).save(images / f"p{n}.png")
        (images / f"._p{n}.png").write_bytes(b"no image")  # as macOS puts beside each image on other disks
    (images / "p3.jpg").write_bytes(b"no image")
    (images / "p5.png").write_bytes((images / "p1.png").read_bytes()[:-30])
    (images / "phone.heic").write_bytes(b"an image of a phone")
    (tmp_path / "empty").mkdir()
    none, out = tmp_path / "none.png", tmp_path / "out"
    with pipe(images / "p6.png"):  # which is not waited for
        code, shown, errors = run(capsys, "predict", network, images, none, tmp_path / "empty", "--out", out)
    assert code == 1
    for path, said in {
        none: "there is no such file or folder", tmp_path / "empty": "found no image in this folder",
        images / "p3.jpg": "can't be read", images / "p5.png": "can't be read", images / "p6.png": "no file, but",
    }.items():  # fmt: skip
        assert sum(f"{path}: " in message and said in message for message in messages(errors)) == 1, path
    assert len(messages(errors)) == 5
    assert {path.name.split("_")[0] for path in out.iterdir()} == {"p1", "p2", "p4", "classes.txt", "legend.png"}
    assert re.findall(r"^\[\d/6\] (p\d+):", shown, re.MULTILINE) == ["p1", "p2", "p4"]
    assert f"note: {images}: left out 1 file without the suffix of an image: phone.heic" in shown
    assert f"{out}: 11 files written; images or folders that failed: 5" in shown


STRANGE = {"escape": "p\x1b[2J\u202e\x07", "no UTF-8": os.fsdecode(b"p\xff")}


@pytest.mark.parametrize("strange", STRANGE)
def test_names_that_a_terminal_obeys_or_cannot_show_are_written_as_text(capsys, tmp_path, network, strange):
    name, as_text = STRANGE[strange], ascii(STRANGE[strange])[1:-1]
    folder = make_folder(tmp_path / (name if strange != "no UTF-8" else "folder") / "data", 6)
    for part in ("images", "masks"):
        (folder / part / "p03.png").rename(folder / part / f"{name}.png")
    predict = ("predict", network, folder / "images", "--out", folder.parent / "out")
    good = [run(capsys, "check", folder), run(capsys, *predict)]
    assert [(code, errors) for code, _, errors in good] == [(0, "")] * 2
    assert (folder.parent / "out" / f"{name}_ids.png").is_file()
    (folder / "images" / f"{name}.png").write_bytes(b"no image")
    bad = [run(capsys, "check", folder), run(capsys, *predict, "--overwrite")]
    assert [code for code, *_ in bad] == [1, 1]
    for text in (good[1][1], bad[0][1], bad[1][2]):
        assert as_text in "".join(text.split())
    assert all(line.isprintable() for _, *both in good + bad for text in both for line in text.split("\n"))


def test_options_that_fit_no_network_or_folder_are_said_before_anything_is_done(capsys, tmp_path, network):
    draw(SKY, ROAD).save(tmp_path / "p.png")
    for file, out, size, said in (
        (network, "out", "16x0", "--image-size: height and width must be whole numbers"),
        (network, "out", "99968x99968", "--image-size: height and width must be whole numbers from 1 to 8192"),
        (networks.DRAWN_SCENES, "out", "64x65", "--image-size: found 64x65, "),
        (network, "p.png", "16x24", f"{tmp_path / 'p.png'}: "), (network, "p.png/inside", "16x24", "p.png/inside: "),
    ):  # fmt: skip
        given = (tmp_path / "p.png", "--out", tmp_path / out, "--image-size", size)
        code, shown, errors = run(capsys, "predict", file, *given)
        assert (code, shown, len(messages(errors))) == (1, "", 1)
        assert said in errors
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_nothing_is_overwritten_unless_asked_for(capsys, tmp_path, images, network):
    out, files = tmp_path / "out", []
    for folder, name, colors in (("1", "P.png", (SKY, ROAD)), ("2", "p.png", (CAR, ROAD)), ("3", "P.png", (ROAD, SKY))):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / name)
        draw(*colors).save(files[-1])
        draw(*colors).save(images / f"frame_{folder}.png")
    out.mkdir()
    (out / "P_colors.png").write_bytes(b"somebody's")
    errors = fails(capsys, "predict", network, files[0], "--out", out, n_messages=1)
    assert "P_colors.png: there already; give another --out, or --overwrite" in errors
    assert [(path.name, path.read_bytes()) for path in out.iterdir()] == [("P_colors.png", b"somebody's")]
    succeeds(capsys, "predict", network, images, "--out", out)
    errors = fails(capsys, "predict", network, images, "--out", out, n_messages=1)  # one line, not one for each
    assert f"{out / 'frame_1_ids.png'} and those of 2 more: there already" in errors
    succeeds(capsys, "predict", network, *files, "--out", out, "--overwrite")
    assert (out / "P_colors.png").read_bytes() != b"somebody's"
    # On the disks of Windows and macOS, names that differ in capitals alone are one file.
    assert [pixels(out / f"{stem}_ids.png")[3, 3] for stem in ("P", "p_2", "P_3")] == [0, 2, 1]


@needs_links
@pytest.mark.parametrize("given", ["files", "folder by a link"])
def test_the_images_themselves_are_never_replaced(capsys, tmp_path, images, network, monkeypatch, given):
    """By whichever path they are given: q.png links to an image of the name that p.png's mask gets there."""
    out = tmp_path / "archive"
    out.mkdir()
    draw(SKY, ROAD).save(out / "p_ids.png")
    draw(SKY, CAR).save(images / "p.png")
    (images / "q.png").symlink_to(out / "p_ids.png")
    (tmp_path / "link").symlink_to(images)
    before = (out / "p_ids.png").read_bytes()
    monkeypatch.chdir(images)
    files = {"files": ["p.png", "../archive/p_ids.png"], "folder by a link": [tmp_path / "link"]}[given]
    errors = fails(capsys, "predict", network, *files, "--out", out, "--overwrite")
    assert f"{out / 'p_ids.png'}: it is one of the images themselves" in errors
    assert (out / "p_ids.png").read_bytes() == before
    assert len(list(out.glob("*_overlay.png"))) == 1
    errors = fails(capsys, "predict", network, images, "--out", tmp_path / "link", "--overwrite")
    assert "it is the folder of the images" in errors
    assert len(list(images.iterdir())) == 2


def test_a_full_disk_leaves_no_half_file(capsys, tmp_path, images, network):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    for n in (1, 2):
        Image.fromarray(noise).save(images / f"p{n}.png")
    with small_disk(tmp_path / "disk", 400_000) as disk:
        errors = fails(capsys, "predict", network, images, "--out", disk / "out")
        for said in messages(errors):
            assert re.search(rf"{disk}/out/\w+\.(png|txt): it can't be written \(No space left on device\); ", said)
        made = [path for path in (disk / "out").iterdir() if path.suffix != ".txt"]
        assert made
        for path in made:
            Image.open(io.BytesIO(path.read_bytes())).load()  # no open file would let the disk go


def test_an_exported_network_predicts_the_same_and_needs_no_labels(capsys, tmp_path, network):
    alone, out, half = tmp_path / "alone.keras", tmp_path / "new" / "n", tmp_path / "half.keras"
    keras.models.load_model(network).save(alone)  # as another program saves it, without labels and size
    batch = np.random.default_rng(0).uniform(0, 255, (1, 16, 24, 3)).astype(np.float32)
    expected = keras.models.load_model(network).predict_on_batch(batch)
    shown = succeeds(capsys, "export", alone, "--format", "tf_saved_model", "--out", out)
    assert f"{out}: " in shown
    np.testing.assert_allclose(open_saved_model(out)(batch), expected, rtol=1e-4, atol=1e-3)
    succeeds(capsys, "export", network.parent, "--format", "keras_half", "--out", half)
    assert load_network(half).labels == LABELS


WITHOUT = """
import sys
for name in {refused}:
    sys.modules[name] = None  # as if it were not installed
"""


@pytest.mark.filterwarnings("ignore::FutureWarning:keras")
@pytest.mark.parametrize("kind", ["onnx", "litert", "tf_saved_model"])
def test_the_printed_lines_predict_as_predict_does(capsys, tmp_path, kind):
    """In a fresh process, from the image's file to the mask's; ONNX's with ONNX Runtime, NumPy and Pillow alone."""
    refused = {"unet_helpers"}
    if kind == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        refused |= {"tensorflow", "keras"}
    path = tmp_path / f"network{networks.EXPORT_SUFFIXES[kind]}"
    shown = succeeds(capsys, "export", "demo", "--format", kind, "--out", path)
    lines = shown[shown.index("import json") :]
    assert len(lines.splitlines()) < 22
    (tmp_path / "ai_edge_litert").mkdir()  # TensorFlow has the same class
    same = "import tensorflow as tf\nInterpreter = tf.lite.Interpreter"
    (tmp_path / "ai_edge_litert" / "interpreter.py").write_text(same)
    exif = Image.Exif()
    exif[0x0112] = 6  # upright, 3:4, with padding at both sides
    frame, _ = render_frame("F62", 3, size=(240, 320))
    for size, turned in (((320, 240), {}), ((400, 300), {"exif": exif})):
        Image.fromarray(frame).resize(size).save(tmp_path / "image.jpg", **turned)
        expected = predict_mask(networks.DRAWN_SCENES, tmp_path / "image.jpg", tta=False)
        code = WITHOUT.format(refused=refused) + lines
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        mask = np.asarray(Image.open(tmp_path / "mask.png"))
        assert mask.shape == expected.shape
        assert (mask == expected).mean() >= 0.999


def test_an_export_that_fails_halfway_leaves_nothing(capsys, tmp_path, network, monkeypatch):
    def full(self, path, **_):
        Path(path).mkdir(parents=True)
        (Path(path) / "saved_model.pb").write_bytes(b"half of it")
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(keras.Model, "export", full)
    for kind, name, said in (("tf_saved_model", "n", "No space left on device"), ("litert", "n.bin", "--out: found")):
        errors = fails(capsys, "export", network, "--format", kind, "--out", tmp_path / "new" / name, n_messages=1)
        assert said in errors
    assert not list((tmp_path / "new").iterdir())
