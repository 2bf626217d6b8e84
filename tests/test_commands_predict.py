"""python -m unet_helpers predict and export: what is written, what never is, and bad inputs."""

import importlib.util
import io
import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from builders import make_folder, messages, run, save_network, save_start
from conftest import LABELS
from limits import pipe, small_disk
from PIL import Image

from benchmarks.exporting import open_saved_model
from unet_helpers import datasets, networks
from unet_helpers.commands import predict as predicting
from unet_helpers.commands.predict import Animation
from unet_helpers.custom_data import ValidationError, prepare_folder
from unet_helpers.networks import load_network

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


# ---- what is written ----


def test_three_files_for_each_image_upright_as_it_is_shown(capsys, tmp_path, network):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees: what is stored at the bottom is shown at the left
    file, out = tmp_path / "my street.png", tmp_path / "new" / "out"
    draw(SKY, CAR, (50, 70)).save(file, exif=exif)
    code, shown, errors = run(capsys, "predict", network.parent, file, "--out", out)
    assert (code, errors) == (0, "")
    assert sorted(p.name for p in out.iterdir()) == [f"my street_{end}.png" for end in ("colors", "ids", "overlay")]
    mask = pixels(out / "my street_ids.png")
    assert mask.shape == (70, 50)
    assert np.unique(mask[:, :22]).tolist() == [2]
    assert np.unique(mask[:, 28:]).tolist() == [0]
    colors = pixels(out / "my street_colors.png")
    np.testing.assert_array_equal(colors[0, [5, 45]], [LABELS.colors[2], LABELS.colors[0]])
    overlay = pixels(out / "my street_overlay.png").astype(int)
    image = np.rot90(np.asarray(draw(SKY, CAR, (50, 70))), -1).astype(int)
    np.testing.assert_allclose(overlay, (image + colors) / 2, atol=1)
    assert re.search(r"^my street: (sky|car) \d+%, (sky|car) \d+%", shown, re.MULTILINE)  # named as in training
    (tmp_path / "names.txt").write_text("sky\nthe road\nred car\n")
    given = ("--out", out, "--classes", tmp_path / "names.txt", "--overwrite")
    assert "red car" in run(capsys, "predict", network, file, *given)[1]


def test_a_folder_of_frames_is_an_animation_in_the_order_of_their_numbers(capsys, tmp_path, network):
    frames = tmp_path / "drive 7"
    frames.mkdir()
    order = {1: (SKY, ROAD), 2: (ROAD, CAR), 10: (CAR, SKY)}
    for n, (top, bottom) in order.items():
        draw(top, bottom).save(frames / f"f{n}.png")
    code, shown, _ = run(capsys, "predict", network, frames, "--out", tmp_path / "out")
    assert code == 0
    assert "drive 7_animation.gif: 3 of 3 frames at 32x100, " in shown
    with Image.open(tmp_path / "out" / "drive 7_animation.gif") as made:
        assert (made.n_frames, made.size) == (3, (100, 32))
        for number, n in enumerate(order):
            made.seek(number)
            frame = np.asarray(made.convert("RGB")).astype(int)
            assert np.abs(frame[:, :48] - pixels(frames / f"f{n}.png")).mean() < 8
            assert np.abs(frame[:, -48:] - pixels(tmp_path / "out" / f"f{n}_colors.png")).mean() < 8


def test_an_animation_is_predicted_frame_by_frame(capsys, tmp_path, network):
    """Names with zeros in front, which every program sorts; 0 milliseconds, as some programs write, become 100."""
    first, *others = [draw(top, CAR if n else SKY) for n, top in enumerate(4 * [SKY, CAR, ROAD])]
    for duration, expected in ((70, 70), (0, 100)):
        first.save(tmp_path / "drive.gif", save_all=True, append_images=others, duration=duration, disposal=2)
        out = tmp_path / f"out{duration}"
        assert run(capsys, "predict", network, tmp_path / "drive.gif", "--out", out)[0] == 0
        files = sorted(out.glob("*_ids.png"))
        assert [path.name for path in files] == [f"drive_{n:02}_ids.png" for n in range(1, 13)]
        assert [pixels(path)[3, 3] for path in files] == 4 * [0, 2, 1]
        with Image.open(out / "drive_animation.gif") as made:
            assert (made.n_frames, made.info["duration"]) == (12, expected)


def test_animations_keep_few_small_frames_and_last_as_long():
    """Up to a length of each frame at which it would only be jerky; the first and the last are among them."""
    for n_frames, duration in ((250, 100), (1000, 100), (50, 70)):
        made = Animation(n_frames, duration)
        for n in range(n_frames):
            made.add(*np.full((2, 4, 6, 3), 255 * n // (n_frames - 1), np.uint8))
        assert len(made.frames) == min(n_frames, predicting.MAX_FRAMES)
        content, said = made.make()
        assert said.startswith(f"{min(n_frames, predicting.MAX_FRAMES)} of {n_frames} frames at 4x16")
        with Image.open(io.BytesIO(content)) as image:
            shown = n_frames * duration / image.n_frames
            assert image.info["duration"] == pytest.approx(min(predicting.LONGEST, shown), abs=10)
            assert np.asarray(image.convert("RGB"))[0, 0].max() <= 4
            image.seek(image.n_frames - 1)
            assert np.asarray(image.convert("RGB"))[0, 0].min() >= 251
    made = Animation(2)
    made.add(*np.zeros((2, 900, 1600, 3), np.uint8))
    assert made.frames[0].size == (2 * predicting.MAX_SIDE + predicting.GAP, predicting.MAX_SIDE * 9 // 16)


def test_an_animation_stays_small(monkeypatch):
    """Noise, which no format compresses: smaller frames, and it is said."""
    assert predicting.MAX_BYTES <= 3_000_000
    monkeypatch.setattr(predicting, "MAX_BYTES", 50_000)
    rng, made = np.random.default_rng(0), Animation(4)
    for _ in range(4):
        made.add(*rng.integers(0, 256, (2, 150, 150, 3), np.uint8))
    content, said = made.make()
    assert 15_000 < len(content) <= 50_000
    with Image.open(io.BytesIO(content)) as image:
        assert f"4 of 4 frames at {image.height}x{image.width}" in said
        assert image.n_frames == 4


# ---- 16 bits ----


def test_16_bit_images_of_a_folder_share_one_scale_as_in_training(capsys, tmp_path, network):
    """Dark and bright ones of a 12-bit camera: alone, the dark ones would be as bright as the others."""
    frames, data = tmp_path / "frames", tmp_path / "data"
    for folder in (frames, data / "images", data / "masks"):
        folder.mkdir(parents=True)
    for n, highest in enumerate((4000, 1000, 500, 3000)):
        values = np.linspace(0, highest, 32 * 48).reshape(32, 48).astype(np.uint16)
        for path in (frames / f"f{n}.png", data / "images" / f"f{n}.png"):
            Image.fromarray(values).save(path)
        Image.fromarray((values > 100).astype(np.uint8)).save(data / "masks" / f"f{n}.png")
    draw(SKY, ROAD).save(frames / "f4.jpg")
    trained_on = {pair.image.stem: pair.image for pair in datasets.load_dataset("folder", data).train}

    def predicted(name, *files):
        code, shown, _ = run(capsys, "predict", network, *files, "--out", tmp_path / name)
        assert code == 0
        return shown

    def read(name, stem):  # the image as the network saw it, from the half of it in the overlay
        return pixels(tmp_path / name / f"{stem}_overlay.png") - pixels(tmp_path / name / f"{stem}_colors.png") // 2

    assert f"note: {frames}: images of 16 bits: 4, of which the highest 8 of the 12 bits in" in predicted("all", frames)
    for stem, path in trained_on.items():
        np.testing.assert_array_equal(read("all", stem), np.asarray(Image.open(path).convert("RGB")) // 2)
    assert "the 12 bits in use" in predicted("both", frames / "f2.png", frames / "f0.png")  # given one by one
    np.testing.assert_array_equal(read("both", "f2"), read("all", "f2"))
    assert "images of 16 bits: 1, of which the highest 8 of the 9 bits in" in predicted("one", frames / "f2.png")
    assert read("one", "f2").max() > 100 > read("all", "f2").max()


def make_deep(folder, highest):
    """Five pairs of 16 bits: road is 1600, sky 800; one pixel of each image has the highest value of all."""
    for n in range(5):
        values = np.uint16([800, 1600])[make_road(n)]
        values[0, 0] = highest
        for name, array in (("images", values), ("masks", make_road(n))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / name / f"p{n}.png")
    (folder / "classes.txt").write_text("sky\nroad\n")
    return folder


def make_road(n):
    road = np.zeros((32, 48), np.uint8)
    road[16 + n :, n:] = 1
    return road


def test_the_bits_that_were_in_use_in_training_are_taken_again(capsys, tmp_path):
    """Images of 12 bits in training: 1600 is 100 there, and must be 100 where no image needs more than 11."""
    bright, dark = make_deep(tmp_path / "bright", 4000), make_deep(tmp_path / "dark", 2000)
    options = ("--epochs", 1, "--image-size", "64x64", "--batch-size", 4, "--runs", tmp_path / "runs")
    assert run(capsys, "train", bright, *options, "--start-from", save_start(tmp_path / "start.keras"))[0] == 0
    trained = load_network(next((tmp_path / "runs").glob("*/best.keras")))
    assert trained.bits == 12

    inputs = keras.Input((None, None, 3))
    threshold = keras.layers.Conv2D(2, 1)
    model = keras.Model(inputs, threshold(inputs))  # road is brighter than 75, sky is not
    threshold.set_weights([np.float32([[[[0, 1], [0, 0], [0, 0]]]]), np.float32([0, -75])])
    file, out = tmp_path / "net.keras", tmp_path / "out"
    networks.save_network(file, model, trained.labels, (32, 48), trained.bits)
    for given in (dark / "images", dark / "images" / "p3.png"):
        code, shown, _ = run(capsys, "predict", file, given, "--out", out, "--overwrite")
        assert (code, "16 bits" in shown) == (0, False)
        for path in out.glob("*_ids.png"):
            assert (pixels(path) != make_road(int(path.name[1]))).sum() <= 1  # the pixel of 2000
    code, shown, _ = run(capsys, "evaluate", file, dark, "--split", "validation")
    assert "accuracy 0.999" in shown
    first = datasets.load_dataset("folder", dark).train[0].image  # what a training on them reads is as it was
    assert np.asarray(Image.open(first)).max() == 2000 >> 3
    networks.save_network(file, model, trained.labels, (32, 48))
    _, shown, _ = run(capsys, "predict", file, dark / "images", "--out", tmp_path / "without")
    assert "the highest 8 of the 11 bits in use" in shown
    assert (pixels(tmp_path / "without" / "p3_ids.png") == 1).all()


# ---- bad inputs ----


def test_a_bad_image_is_one_message_and_the_others_are_done(capsys, tmp_path, images, network):
    for n in (1, 2, 10):
        draw(SKY, ROAD, (32 + n, 48)).save(images / f"p{n}.png")
        (images / f"._p{n}.png").write_bytes(b"no image")  # as macOS puts beside each image on other disks
    Image.fromarray(np.linspace(0, 4000, 32 * 48).reshape(32, 48).astype(np.uint16)).save(images / "p4.png")
    (images / "p3.jpg").write_bytes(b"no image")
    (images / "p5.png").write_bytes((images / "p4.png").read_bytes()[:-100])
    (images / "phone.heic").write_bytes(b"an image of a phone")
    (tmp_path / "empty").mkdir()
    draw(CAR, ROAD).save(tmp_path / "one.bmp")
    none, out = tmp_path / "none.png", tmp_path / "out"
    with pipe(images / "p6.png"):  # which is not waited for
        given = (images, none, tmp_path / "one.bmp", tmp_path / "empty")
        code, shown, errors = run(capsys, "predict", network, *given, "--out", out)
    assert code == 1
    for path, said in {
        none: "there is no such file or folder", tmp_path / "empty": "found no image in this folder",
        images / "p3.jpg": "can't be read", images / "p5.png": "can't be read", images / "p6.png": "no file, but",
    }.items():  # fmt: skip
        assert sum(f"{path}: " in message and said in message for message in messages(errors)) == 1, path
    assert len(messages(errors)) == 5
    assert {path.name.split("_")[0] for path in out.iterdir()} == {"p1", "p2", "p4", "p10", "one"}
    assert "no animation, because the images differ in size" in shown
    assert re.findall(r"^\[\d/7\] (p\d+):", shown, re.MULTILINE) == ["p1", "p2", "p4", "p10"]
    assert f"note: {images}: 1 files have no suffix of an image, and are left out: phone.heic" in shown
    assert f"{out}: 15 files written; images or animations that failed: 5" in shown


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
    with pytest.raises(ValidationError, match=re.escape(f"images/{as_text}.png (")) as caught:
        prepare_folder(folder)
    for text in (*good[1][1:2], bad[0][1], bad[1][2]):
        assert as_text in "".join(text.split())
    for text in [text for _, *both in good + bad for text in both] + [str(caught.value)]:
        assert all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("size", ["0x0", "16x0", "99968x99968"])
def test_a_size_that_no_network_can_take_is_said_before_anything_is_done(capsys, tmp_path, network, size):
    draw(SKY, ROAD).save(tmp_path / "p.png")
    said = f"unet_helpers: --image-size: height and width must be whole numbers from 1 to 8192, found {size}; try "
    for command, *others in (("predict", tmp_path / "p.png", "--out", tmp_path / "out"), ("evaluate", tmp_path)):
        code, shown, errors = run(capsys, command, network, *others, "--image-size", size)
        assert (code, shown) == (1, "")
        assert errors.startswith(said)
    given = (tmp_path / "p.png", tmp_path / "p.png", "--out", tmp_path / "out", "--image-size", "64x65")
    code, _, errors = run(capsys, "predict", networks.DRAWN_SCENES, *given)
    assert (code, len(messages(errors))) == (1, 1)
    assert errors.startswith("unet_helpers: --image-size: found 64x65, ")
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


# ---- what is never replaced, and half files ----


def test_nothing_is_overwritten_unless_asked_for(capsys, tmp_path, network):
    out, files = tmp_path / "out", []
    for folder, name, colors in (("a", "P.png", (SKY, ROAD)), ("b", "p.png", (CAR, ROAD)), ("c", "P.png", (ROAD, SKY))):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / name)
        draw(*colors).save(files[-1])
    out.mkdir()
    (out / "P_colors.png").write_bytes(b"somebody's")
    code, _, errors = run(capsys, "predict", network, files[0], "--out", out)
    assert code == 1
    assert "P_colors.png: it is there already; give another --out, or --overwrite" in errors
    assert [(path.name, path.read_bytes()) for path in out.iterdir()] == [("P_colors.png", b"somebody's")]
    assert run(capsys, "predict", network, *files, "--out", out, "--overwrite")[0] == 0
    assert (out / "P_colors.png").read_bytes() != b"somebody's"
    # On the disks of Windows and macOS, names that differ in capitals alone are one file.
    assert len({path.name.casefold() for path in out.iterdir()}) == 9
    assert [pixels(out / f"{stem}_ids.png")[3, 3] for stem in ("P", "p_2", "P_3")] == [0, 2, 1]


def test_an_animation_that_is_there_is_not_replaced(capsys, tmp_path, images, network):
    for n in (1, 2):
        draw(SKY, ROAD).save(images / f"f{n}.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "images_animation.gif").write_bytes(b"somebody's")
    code, shown, errors = run(capsys, "predict", network, images, "--out", tmp_path / "out")
    assert code == 1
    assert "images_animation.gif: it is there already" in errors
    assert (tmp_path / "out" / "images_animation.gif").read_bytes() == b"somebody's"
    assert "6 files written; images or animations that failed: 1" in shown


@pytest.mark.parametrize("given", ["file", "relative", "folder", "link to a file", "folder by a link"])
def test_the_images_themselves_are_never_replaced(capsys, tmp_path, images, network, monkeypatch, given):
    """By whichever path they are given: q.png links to an image of the name that p.png's mask gets there."""
    (tmp_path / "archive").mkdir()
    draw(SKY, ROAD).save(tmp_path / "archive" / "p_ids.png")
    draw(SKY, CAR).save(images / "p.png")
    (images / "q.png").symlink_to(tmp_path / "archive" / "p_ids.png")
    (tmp_path / "link").symlink_to(images)
    before = (tmp_path / "archive" / "p_ids.png").read_bytes()
    monkeypatch.chdir(images)
    files = {
        "file": [images / "p.png", tmp_path / "archive" / "p_ids.png"],
        "relative": ["p.png", "../archive/p_ids.png"],
        "folder": [images],
        "link to a file": [images / "p.png", images / "q.png"],
        "folder by a link": [tmp_path / "link"],
    }[given]
    out = tmp_path / "archive"
    code, _, errors = run(capsys, "predict", network, *files, "--out", out, "--overwrite")
    assert code == 1
    assert f"{out / 'p_ids.png'}: it is one of the images themselves" in errors
    assert (out / "p_ids.png").read_bytes() == before
    assert len(list(out.glob("*_overlay.png"))) == 1
    for folder in (".", "../images", tmp_path / "link"):
        code, _, errors = run(capsys, "predict", network, images, "--out", folder, "--overwrite")
        assert code == 1
        assert "it is the folder of the images" in errors
        assert len(list(images.iterdir())) == 2


def test_a_full_disk_leaves_no_half_file(capsys, tmp_path, images, network):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    for n in (1, 2):
        Image.fromarray(noise).save(images / f"p{n}.png")
    with small_disk(tmp_path / "disk", 600_000) as disk:
        code, _, errors = run(capsys, "predict", network, images, "--out", disk / "out")
        assert code == 1
        for said in messages(errors):
            assert re.search(rf"{disk}/out/\w+\.(png|gif): it can't be written \(No space left on device\); ", said)
        made = list((disk / "out").iterdir())
        assert made
        for path in made:
            Image.open(io.BytesIO(path.read_bytes())).load()  # no open file would let the disk go


def test_an_out_that_can_not_be_a_folder_is_named(capsys, tmp_path, network):
    draw(SKY, ROAD).save(tmp_path / "p.png")
    for out in (tmp_path / "p.png", tmp_path / "p.png" / "inside"):
        code, _, errors = run(capsys, "predict", network, tmp_path / "p.png", "--out", out)
        assert code == 1
        assert re.fullmatch(rf"unet_helpers: {out}: \w+( \w+)*; give another path\n", errors)


# ---- export ----


def test_an_exported_network_predicts_the_same_and_needs_no_labels(capsys, tmp_path, network):
    alone = tmp_path / "alone.keras"
    keras.models.load_model(network).save(alone)  # as another program saves it, without labels and size
    batch = np.random.default_rng(0).uniform(0, 255, (1, 16, 24, 3)).astype(np.float32)
    expected = keras.models.load_model(network).predict_on_batch(batch)
    for name, path in {"folder": network.parent, "alone": alone}.items():
        out = tmp_path / "new" / name
        code, shown, errors = run(capsys, "export", path, "--format", "tf_saved_model", "--out", out)
        assert (code, errors) == (0, "")
        assert f"{out}: " in shown
        np.testing.assert_allclose(open_saved_model(out)(batch), expected, rtol=1e-4, atol=1e-3)
    code, _, _ = run(capsys, "export", network, "--format", "keras_half", "--out", tmp_path / "half.keras")
    assert code == 0
    assert load_network(tmp_path / "half.keras").labels == LABELS


@pytest.mark.parametrize(("kind", "name"), [("tf_saved_model", "n"), ("litert", "n.tflite")])
def test_an_export_that_fails_halfway_leaves_nothing(capsys, tmp_path, network, monkeypatch, kind, name):
    def full(self, path, **_):
        half = Path(path) if kind == "litert" else Path(path) / "saved_model.pb"
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(half))

    monkeypatch.setattr(keras.Model, "export", full)
    code, _, errors = run(capsys, "export", network, "--format", kind, "--out", tmp_path / "new" / name)
    assert code == 1
    assert "No space left on device" in errors
    assert not list((tmp_path / "new").iterdir())


def test_what_can_not_be_exported_is_said(capsys, tmp_path, network, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if "onnx" in name else find(name, *_))
    for path, kind, out, said in (
        (network, "onnx", "n.onnx", "--format: 'onnx' needs onnx and tf2onnx: pip install onnx tf2onnx"),
        (network, "litert", "n.bin", "--out: found"),
        (network, "tf_saved_model", "", "--out: "),
        (tmp_path / "none", "tf_saved_model", "n", f"{tmp_path / 'none'}: there is no such file"),
    ):
        code, _, errors = run(capsys, "export", path, "--format", kind, "--out", tmp_path / out)
        assert code == 1
        assert errors.startswith(f"unet_helpers: {said}")
        assert len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())
