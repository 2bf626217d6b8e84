import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders import make_lyft
from conftest import write_pair_to
from kaggle_server import files_below
from PIL import Image, ImageFile

from unet_helpers import datasets, drawing
from unet_helpers.datasets import check_pair, check_pairs, find_ego_mask, find_pairs, load_dataset, sequence_of
from unet_helpers.images import decode_mask
from unet_helpers.labels import VOID, Pair
from unet_helpers.pipeline import make_batches

# Two real names of each of the Kaggle set's 32 drives, with the folder that holds them.
DRIVES_250 = [f"{n}_00" for n in ("02", "03", "04", "05", "06", "07", "08", "09", "10")] + ["02_01", "02_02", "03_01"]
DRIVES_100 = [f"F{n}" for n in (*range(1, 11), *range(61, 71))]
NAMES = [("A", f"{drive}_010") for drive in DRIVES_250] + [("D", f"{drive}_247") for drive in DRIVES_250]
NAMES += [("A", f"{drive}-1") for drive in DRIVES_100] + [("E", f"{drive}-99") for drive in DRIVES_100]


@pytest.fixture
def lyft(tmp_path):
    for letter, stem in NAMES:
        for camera, value in (("CameraRGB", 80), ("CameraSeg", 7)):
            folder = tmp_path / f"data{letter}" / f"data{letter}" / camera
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6, 3), (value, 0, 0), np.uint8)).save(folder / f"{stem}.png")
    return tmp_path


def stems(pairs):
    return {pair.image.stem for pair in pairs}


def test_lyft_is_split_by_drive_and_no_drive_is_cut(lyft):
    dataset = load_dataset("lyft", lyft)
    splits = [set(map(sequence_of, split)) for split in (dataset.train, dataset.validation, dataset.test)]
    assert [len(drives) for drives in splits] == [19, 6, 7]
    assert splits[2] == {"F1", "F3", "F62", "F63", "F64", "F69", "F8"}
    assert splits[1] == {"09_00", "F2", "F6", "F66", "F68", "F70"}
    assert len(set.union(*splits)) == 32
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == len(NAMES)
    for camera in ("CameraRGB", "CameraSeg"):
        shutil.copy(lyft / "dataA" / "dataA" / camera / "F1-1.png", lyft / "dataA" / "dataA" / camera / "episode_7.png")
    with pytest.raises(ValueError, match="episode_7: not a frame name"):
        load_dataset("lyft", lyft)


def test_data_dir_may_be_the_folder_above_and_a_lower_case_copy_is_not_counted_twice(lyft, tmp_path_factory):
    above = tmp_path_factory.mktemp("data")
    shutil.move(lyft / "dataA" / "dataA", above / "lyft" / "dataA")  # as some copies are packed
    shutil.copytree(above / "lyft" / "dataA", above / "lyft" / "dataa")
    assert len(load_dataset("lyft", above).train) == 19
    shutil.move(lyft / "dataE", above / "lyft" / "dataE")
    shutil.copytree(above / "lyft" / "dataA", above / "lyft" / "dataD" / "dataD")
    with pytest.raises(ValueError, match=r"dataD.*: the same frame is also in .*dataA"):
        load_dataset("lyft", above)


def split_in_folders(root, pairs, end="", masks="annot"):
    """The pairs as camvid has them: {train0: pair} -> train/train0.png, trainannot/train0.png."""
    for name, pair in pairs.items():
        for path, folder in ((pair.image, name[:-1]), (pair.mask, name[:-1] + masks)):
            (root / folder).mkdir(exist_ok=True)
            shutil.move(path, root / folder / f"{name}{end if path == pair.mask else ''}.png")


CAMVID = ("train0", "train1", "train2", "val0", "val1")


def test_camvid_in_segnets_layout(tmp_path, write_pair):
    split_in_folders(tmp_path, {name: write_pair(name, seed=n) for n, name in enumerate(CAMVID)})
    dataset = load_dataset("camvid", tmp_path)
    assert (len(dataset.train), len(dataset.validation), dataset.test) == (3, 2, ())
    assert dataset.held_out == ("validation", dataset.validation)


def test_a_bad_file_of_kaggles_camvid_is_left_out(tmp_path, write_pair):
    names = sum(datasets.custom_data.class_lists.CAMVID_GROUPS.values(), ())
    rows = ["name, r, g, b", *[f"{name}, {n}, 5, 7" for n, name in enumerate(names)]]
    (tmp_path / "class_dict.csv").write_text("\n".join(rows))
    pairs = {name: write_pair(name) for name in CAMVID}
    for pair in pairs.values():
        Image.fromarray(np.uint8([[[names.index(name), 5, 7] for name in ("Sky", "Road")]])).save(pair.mask)
        shutil.copy(pair.mask, pair.image)
    split_in_folders(tmp_path, pairs, "_L", "_labels")
    (tmp_path / "val_labels" / "val0_L.png").write_bytes(b"no mask")
    with pytest.raises(ValueError, match=r"val0_L\.png"):
        load_dataset("camvid", tmp_path)
    dataset = load_dataset("camvid", tmp_path, skip_bad=True)
    assert (len(dataset.train), stems(dataset.validation)) == (3, {"val1"})
    assert dataset.report.errors[0].startswith("val_labels/val0_L.png (")


def test_your_own_folder_is_not_touched_and_split_by_a_pattern(tmp_path, capsys):
    root = tmp_path / "my cells"
    for n in range(8):
        pair = write_pair_to(root, f"p {n}_cell{n % 4}", (8, 8), seed=n)
        Image.fromarray(np.uint8([[0, 255]] * 8).repeat(4, 1)).save(pair.mask.with_suffix(".gif"))
        pair.mask.unlink()
    (root / "classes.txt").write_text("background\nred cell\n")
    (root / "images" / "p 9.raw").write_bytes(b"not an image")
    before = files_below(tmp_path)
    dataset = load_dataset("folder", root, split_by=r"_(cell\d)")
    assert dataset.labels.names == ("background", "red cell")
    assert check_pairs(dataset.train, dataset.labels).tolist() == [32 * len(dataset.train)] * 2
    groups = [{stem[-5:] for stem in stems(split)} for split in (dataset.train, dataset.validation, dataset.test)]
    assert ([len(names) for names in groups], len(set.union(*groups))) == ([2, 1, 1], 4)
    assert "note: images/p 9.raw: it is not read" in capsys.readouterr().out
    new = {name: found for name, found in files_below(tmp_path).items() if not name.startswith("my cells.prepared/")}
    assert new == before
    next((root / "masks").iterdir()).write_bytes(b"no mask")
    dataset = load_dataset("folder", root, skip_bad=True)
    assert "note: " not in capsys.readouterr().out
    assert len(stems(dataset.train + dataset.validation + dataset.test)) == 7
    assert [line.split(".")[-1][:3] for line in dataset.report.errors + dataset.report.warnings] == ["gif", "raw"]


@pytest.mark.parametrize("name", ["demo", "lyft", "camvid"])
def test_a_pattern_for_a_data_set_with_splits_of_its_own_is_refused_before_anything_is_drawn(tmp_path, name):
    with pytest.raises(ValueError, match=rf"SPLIT_BY: found 'x', but '{name}' has splits of its own"):
        load_dataset(name, tmp_path, split_by="x")
    assert not list(tmp_path.iterdir())


def test_demo_is_drawn_once_and_split_like_the_real_set(tmp_path, monkeypatch):
    draw = drawing.draw_scenes
    monkeypatch.setattr(drawing, "draw_scenes", lambda *a, **k: draw(*a, **k, size=(24, 32), processes=1, progress=str))
    dataset = load_dataset("demo", tmp_path, frames_per_drive=1)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [19, 6, 7]
    monkeypatch.setattr("unet_helpers.drawing.scenes._draw", None)
    assert load_dataset("demo", tmp_path, frames_per_drive=1) == dataset
    ego = dataset.labels.void_pixels
    assert ego.shape == (24, 32)
    assert ego.mean() >= 0.15
    assert check_pairs(dataset.train, dataset.labels).sum() == 19 * (~ego).sum()


def test_names_and_folders_that_are_not_there(tmp_path):
    for name, folder, sentence in (
        ("kitti", "", r"DATASET: 'kitti' is not known, expected one of 'demo', 'lyft'"),
        ("lyft", "nowhere", "DATA_DIR: there is no folder .*nowhere"),
        ("camvid", "data", "train: found no image that can be read"),
        ("folder", "data", "train: found no image that can be read"),
        ("folder", "data/train", r"train: found nothing; expected images/ and masks/"),
    ):
        for split in ("train", "trainannot"):
            (tmp_path / "data" / split).mkdir(parents=True, exist_ok=True)
        with pytest.raises(ValueError, match=sentence):
            load_dataset(name, tmp_path / folder)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_class_names_in_another_encoding_are_named(tmp_path, encoding):
    (tmp_path / "classes.txt").write_text("ciel\nchaussée\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"classes\.txt: it .*; save it as UTF-8$"):
        load_dataset("folder", tmp_path)


def test_pairs_are_found_by_exact_stem_in_order_and_what_is_missing_is_named(write_pair, tmp_path):
    folders = tmp_path / "images", tmp_path / "masks"
    for stem in ("b10", "b1", "a"):
        write_pair(stem, image_suffix=".jpg")
    (folders[0] / "._a.jpg").write_bytes(b"left by macOS")
    (folders[0] / "notes.txt").write_text("not an image")
    pairs = find_pairs(*folders)
    assert [pair.image.stem for pair in pairs] == [pair.mask.stem for pair in pairs] == ["a", "b1", "b10"]
    pairs[0].mask.rename(folders[1] / "A.png")
    shutil.copy(pairs[1].image, folders[0] / "b1.jpeg")
    with pytest.raises(ValueError, match=r"images/a\.jpg: it has no mask") as caught:
        find_pairs(*folders)
    assert "masks/A.png: it has no image" in str(caught.value)
    assert "b1.jpg (and b1.jpeg): two files have this stem" in str(caught.value)


def test_check_counts_the_pixels_of_each_class(write_pair, labels):
    pairs = [write_pair("a", values=np.uint8([[0, 0], [1, 3]])), write_pair("b", values=np.uint8([[2, 2, 2, 255]]))]
    assert check_pairs(pairs, labels).tolist() == [2, 1, 3]


def resave(path, mode=None, kind=None, **options):
    with Image.open(path) as image:
        image.convert(mode or image.mode).save(path, kind, **options)


def pixels_of(path, pixels):
    Image.fromarray(pixels).save(path)


def sixteen_bits(path):
    pixels_of(path, np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16)


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


UNREADABLE = "it can't be read as an image"
BAD = {  # what is done to a file of good pairs, and what is said of it
    "mask without its end": ("mask", lambda p: p.write_bytes(p.read_bytes()[:-16]), UNREADABLE),
    "image is half a file": ("image", lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]), UNREADABLE),
    "16-bit image": ("image", sixteen_bits, "expected 8 bits a channel"),
    "unknown id": ("mask", lambda p: pixels_of(p, np.full((32, 48), 7, np.uint8)), r"it holds \[7\], .* 0\.\.2"),
    "another size": ("mask", lambda p: pixels_of(p, np.zeros((2, 3), np.uint8)), "same height x width.*2x3, .* 32x48"),
    "colours": ("mask", lambda p: pixels_of(p, np.ones((32, 48, 3), np.uint8)), "green or blue are not 0"),
    "palette": ("mask", lambda p: resave(p, "P"), "expected 8-bit class ids"),
    "turned": ("mask", lambda p: resave(p, exif=exif(6)), "need the same height x width, upright"),
    "JPEG mask": ("mask", lambda p: resave(p, kind="JPEG"), "it is a JPEG inside"),
}


@pytest.mark.parametrize("problem", BAD)
def test_what_training_can_not_read_or_would_read_otherwise_is_named(write_pair, labels, problem, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", problem == "image is half a file")  # as some programs do
    pair = write_pair(size=(32, 48))
    kind, make, sentence = BAD[problem]
    make(getattr(pair, kind))
    with pytest.raises(ValueError, match=rf"{kind}s.a\.png: .*{sentence}") as caught:
        check_pairs([write_pair("good", seed=1), pair], labels)
    assert len(str(caught.value).splitlines()) == 1


def test_ego_mask_is_what_every_mask_shares(write_pair, labels):
    carla = datasets.CARLA
    masks = {"a": [[10, 0], [10, 10]], "b": [[1, 10], [10, 10]]}
    pairs = [write_pair(stem, values=np.uint8(values)) for stem, values in masks.items()]
    assert find_ego_mask(pairs, carla).tolist() == [[False, False], [True, True]]
    assert find_ego_mask(pairs, labels) is None
    pairs[1].mask.write_bytes(b"no mask")
    assert find_ego_mask(pairs, carla).tolist() == [[True, False], [True, True]]
    pairs.append(write_pair("c", values=np.uint8([[1, 1], [1, 1]])))
    assert find_ego_mask(pairs, carla) is None
    pairs[-1] = write_pair("d", values=np.full((3, 3), 10, np.uint8))  # of another size
    assert find_ego_mask(pairs, carla) is None


@pytest.mark.parametrize("writable", [True, False])
def test_the_cameras_own_car_is_void_in_all_that_reads_masks_and_found_once(tmp_path, monkeypatch, writable):
    """Below row 24 lies the bonnet; beside it, one frame each has a car of its own, which stays."""
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    monkeypatch.setattr(datasets, "DATA_DIR", str(elsewhere))
    values = np.full((32, 48), 7, np.uint8)
    values[24:] = 10
    for number, name in enumerate(("F4-1", "F4-2", "F2-1", "F1-1")):  # two train, one validates, one tests
        (pair,) = make_lyft(root, name)
        Image.new("RGB", (48, 32)).save(pair.image)
        own = values.copy()
        own[12:20, 10 * number : 10 * number + 8] = 10
        Image.fromarray(own).save(pair.mask)
    if not writable:
        (root / "lyft.prepared").write_bytes(b"in the way")
    dataset = load_dataset("lyft", root)
    (kept,) = (root if writable else elsewhere).rglob("ego_mask_of_2_frames.png")
    np.testing.assert_array_equal(dataset.labels.void_pixels, values == 10)
    everything = [*dataset.train, *dataset.validation, *dataset.test]
    expected = np.where(values == 10, VOID, values)
    for pair in everything:
        mask = decode_mask(pair.mask, dataset.labels)[..., 0]
        np.testing.assert_array_equal(mask[24:], expected[24:])
        assert (mask[:24] == 10).sum() == 64
    assert check_pairs(everything, dataset.labels)[10] == 4 * 64
    (_, masks) = next(iter(make_batches(everything, dataset.labels, (32, 48), 4)))
    assert (np.asarray(masks)[:, 24:] == VOID).all()
    assert (np.asarray(masks)[:, :24] != VOID).all()
    monkeypatch.setattr(datasets, "find_ego_mask", None)  # it would be called
    np.testing.assert_array_equal(load_dataset("lyft", root).labels.void_pixels, values == 10)
    kept.write_bytes(b"no PNG")
    with pytest.raises(TypeError):
        load_dataset("lyft", root)


def test_importing_the_package_is_quick():
    """Neither kaggle nor matplotlib nor TensorFlow is imported before it is needed."""
    code = "import sys, unet_helpers.datasets; print({'kaggle', 'matplotlib', 'tensorflow'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_a_sequence_is_the_name_without_the_frame():
    for name, sequence in (
        ("F61-1", "F61"), ("02_00_017", "02_00"), ("0016E5_07959", "0016E5"), ("Seq05VD_f00150", "Seq05VD"),
        ("p12", ""), ("one", "one"),
    ):  # fmt: skip
        assert datasets.sequence_of(Pair(Path(f"{name}.png"), Path(f"{name}.png"))) == sequence


def test_a_file_is_decoded_twice_at_most_before_the_first_batch(tmp_path, monkeypatch):
    """Once checked, once for training; what is converted is decoded once more, and its copy once."""
    root = tmp_path / "data"
    for n in range(6):
        pair = write_pair_to(root, str(n), seed=n)
        if n == 1:
            resave(pair.mask, "P")
            resave(pair.image, kind="JPEG", exif=exif(3))
        if n == 2:
            sixteen_bits(pair.image)
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    decoded = Counter()
    load = ImageFile.ImageFile.load

    def counting_load(image):
        decoded[Path(image.filename)] += bool(image.tile)  # else it is loaded already
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counting_load)

    def read_all():
        decoded.clear()
        dataset = load_dataset("folder", root)
        pixels = check_pairs(dataset.train, dataset.labels)
        next(iter(make_batches(dataset.train, dataset.labels, (32, 48), len(dataset.train))))
        return dataset, pixels

    dataset, pixels = read_all()
    names = {str(path.relative_to(tmp_path)): n for path, n in decoded.items()}
    assert names.pop("data.prepared/masks/1.png") == names.pop("data.prepared/images/2.png") == 1
    assert names.keys() == {f"data/{kind}/{n}.png" for kind in ("images", "masks") for n in range(6)}
    assert max(names.values()) == 2
    ids = np.concatenate([decode_mask(pair.mask, dataset.labels).ravel() for pair in dataset.train])
    assert pixels.tolist() == [(ids == k).sum() for k in range(3)]
    assert set(read_all()[0].train) == set(dataset.train)
    assert max(decoded.values()) == 1
    write_pair_to(root, "3", values=np.zeros((32, 48), np.uint8))  # changed after it was examined
    assert check_pair(dataset.train[3], dataset.labels).tolist() == [32 * 48, 0, 0]


def test_looked_at_frames_are_of_different_drives_as_long_as_there_are_some():
    pairs = [Pair(Path(f"{name}.png"), Path(f"{name}.png")) for name in ("F61-1", "F61-2", "F7-1", "02_00_003")]
    order = [1, 0, 3, 2]
    assert datasets.of_different_sequences(pairs, order, 2) == [1, 3]
    assert datasets.of_different_sequences(pairs, order, 4) == [1, 3, 2, 0]
    assert datasets.of_different_sequences(pairs[:1], [0], 2) == [0]
