import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pair_to
from PIL import Image, ImageFile

from unet_helpers import datasets, drawing
from unet_helpers.datasets import (
    check_pair,
    check_pairs,
    drive_of,
    find_ego_mask,
    find_pairs,
    load_dataset,
    sequence_of,
)
from unet_helpers.images import decode_mask
from unet_helpers.labels import Pair
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
    splits = [{drive_of(stem) for stem in stems(split)} for split in (dataset.train, dataset.validation, dataset.test)]
    assert [len(drives) for drives in splits] == [19, 6, 7]
    assert splits[2] == {"F1", "F3", "F62", "F63", "F64", "F69", "F8"}
    assert splits[1] == {"09_00", "F2", "F6", "F66", "F68", "F70"}
    assert len(set.union(*splits)) == 32
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == len(NAMES)


def test_drives_are_told_by_the_whole_name():
    """F6 is not F61 and 02_00 is not F2."""
    assert [drive_of(s) for s in ("F6-1", "F61-1", "02_00_000", "F2-10")] == ["F6", "F61", "02_00", "F2"]
    with pytest.raises(ValueError, match="episode_7: not a frame name"):
        drive_of("episode_7")


def test_the_lower_case_copy_is_not_counted_twice(lyft):
    for letter in "ABCDE":
        if (lyft / f"data{letter}").is_dir():
            shutil.copytree(lyft / f"data{letter}", lyft / f"data{letter.lower()}", dirs_exist_ok=True)
    assert len(load_dataset("lyft", lyft).train) == 2 * 19


def test_data_dir_may_be_the_folder_above(lyft, tmp_path_factory):
    above = tmp_path_factory.mktemp("data")
    shutil.move(lyft / "dataA", above / "lyft" / "dataA")
    assert len(load_dataset("lyft", above).train) == 19


def test_the_same_frame_in_two_folders_is_an_error(lyft):
    for camera in ("CameraRGB", "CameraSeg"):
        source = lyft / "dataA" / "dataA" / camera / "F1-1.png"
        shutil.copy(source, lyft / "dataD" / "dataD" / camera / "F1-1.png")
    with pytest.raises(ValueError, match=r"dataD.*F1-1\.png: the same frame is also in .*dataA"):
        load_dataset("lyft", lyft)


def test_camvid_in_segnets_layout(tmp_path, write_pair):
    for split, count in (("train", 3), ("val", 2)):
        for n in range(count):
            pair = write_pair(f"{split}{n}", folder=tmp_path / "new", seed=n)
            for path, folder in ((pair.image, split), (pair.mask, f"{split}annot")):
                (tmp_path / folder).mkdir(exist_ok=True)
                shutil.move(path, tmp_path / folder / path.name)
    dataset = load_dataset("camvid", tmp_path)
    assert (len(dataset.train), len(dataset.validation), dataset.test) == (3, 2, ())
    assert dataset.held_out == ("validation", dataset.validation)


def test_your_own_folder(tmp_path, write_pair):
    for n in range(20):
        write_pair(f"{n:02}", seed=n)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    dataset = load_dataset("folder", tmp_path)
    assert dataset.labels.names == ("sky", "road", "car")
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [14, 3, 3]
    assert max(stems(dataset.train)) < min(stems(dataset.validation)) < min(stems(dataset.test))


def test_your_own_folder_may_hold_other_kinds_of_masks_and_is_not_touched(tmp_path, capsys):
    root = tmp_path / "my cells"
    for n in range(8):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * n, np.uint8)).save(root / "images" / f"p {n}.png")
        Image.fromarray(np.uint8([[0, 255]] * 8).repeat(4, 1)).save(root / "masks" / f"p {n}.gif")
    (root / "classes.txt").write_text("background\nred cell\n")
    (root / "images" / "p 9.raw").write_bytes(b"not a picture")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    dataset = load_dataset("folder", root)
    assert dataset.labels.names == ("background", "red cell")
    assert check_pairs(dataset.train, dataset.labels).tolist() == [32 * len(dataset.train)] * 2
    assert "note: images/p 9.raw: it is no kind of image" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my cells", "my cells.prepared"]


def test_your_own_films_are_not_cut_where_a_pattern_names_them(tmp_path, write_pair):
    for n in range(20):
        write_pair(f"{n:02}_film{n % 4}", seed=n)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n")
    dataset = load_dataset("folder", tmp_path, split_by=r"_(film\d)")
    films = [{stem[3:] for stem in stems(split)} for split in (dataset.train, dataset.validation, dataset.test)]
    assert [len(names) for names in films] == [2, 1, 1]
    assert len(set.union(*films)) == 4
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 20


@pytest.mark.parametrize("name", ["demo", "lyft", "camvid"])
def test_a_pattern_for_a_data_set_with_splits_of_its_own_is_refused_before_anything_is_drawn(tmp_path, name):
    with pytest.raises(ValueError, match=rf"SPLIT_BY: found 'x', but '{name}' has splits of its own; leave it out"):
        load_dataset(name, tmp_path, split_by="x")
    assert not list(tmp_path.iterdir())


def test_pairs_of_faulty_files_are_left_out_and_reported(tmp_path, write_pair, capsys):
    for n in range(8):
        write_pair(str(n), seed=n)
    (tmp_path / "images" / "x.raw").write_bytes(b"?")
    (tmp_path / "masks" / "1.png").write_bytes(b"no mask")
    with pytest.raises(ValueError, match=r"masks/1\.png"):
        load_dataset("folder", tmp_path)
    dataset = load_dataset("folder", tmp_path, skip_bad=True)
    assert capsys.readouterr().out == ""
    assert stems(dataset.train + dataset.validation + dataset.test) == set("0234567")
    assert [line.split()[0] for line in dataset.report.errors + dataset.report.warnings] == [
        "masks/1.png",
        "images/x.raw:",
    ]


def test_a_faulty_file_of_kaggles_camvid_is_left_out(tmp_path):
    groups = datasets.custom_data.class_lists.CAMVID_GROUPS
    colors = {name: (n, 5, 7) for n, name in enumerate(sum(groups.values(), ()))}
    rows = [f"{name}, {r}, {g}, {b}" for name, (r, g, b) in colors.items()]
    (tmp_path / "class_dict.csv").write_text("\n".join(["name, r, g, b", *rows]))
    for split, n in (("train", 3), ("val", 2)):
        for k in range(n):
            mask = np.uint8([[colors["Sky"], colors["Road"]]])
            for folder, end in ((split, ""), (f"{split}_labels", "_L")):
                (tmp_path / folder).mkdir(exist_ok=True)
                Image.fromarray(mask).save(tmp_path / folder / f"{split}{k}{end}.png")
    (tmp_path / "val_labels" / "val0_L.png").write_bytes(b"no mask")
    with pytest.raises(ValueError, match=r"val0_L\.png"):
        load_dataset("camvid", tmp_path)
    dataset = load_dataset("camvid", tmp_path, skip_bad=True)
    assert (len(dataset.train), stems(dataset.validation)) == (3, {"val1"})
    assert dataset.report.errors[0].startswith("val_labels/val0_L.png (")


def test_demo_is_drawn_once_and_split_like_the_real_set(tmp_path, monkeypatch):
    draw = drawing.draw_scenes
    monkeypatch.setattr(drawing, "draw_scenes", lambda *a, **k: draw(*a, **k, size=(48, 64), processes=1, progress=str))
    dataset = load_dataset("demo", tmp_path, frames_per_drive=1)
    assert [len(s) for s in (dataset.train, dataset.validation, dataset.test)] == [19, 6, 7]
    assert check_pairs(dataset.train, dataset.labels).sum() == 19 * 48 * 64
    monkeypatch.setattr("unet_helpers.drawing.writing._draw", None)
    assert load_dataset("demo", tmp_path, frames_per_drive=1) == dataset
    assert find_ego_mask(dataset.train, dataset.labels).mean() >= 0.15


def test_names_and_folders_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"DATASET: 'kitti' is not known, expected one of 'demo', 'lyft'"):
        load_dataset("kitti", tmp_path)
    with pytest.raises(ValueError, match="DATA_DIR: there is no folder .*nowhere"):
        load_dataset("lyft", tmp_path / "nowhere")
    (tmp_path / "trainannot").mkdir()
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="train: found no file that ends in"):
        load_dataset("camvid", tmp_path)
    with pytest.raises(ValueError, match=r"train: found no image that can be read"):
        load_dataset("folder", tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"folder: found nothing; expected images/ and masks/, .*another DATA_DIR"):
        load_dataset("folder", tmp_path)


def test_pairs_are_found_by_exact_stem_in_order(write_pair, tmp_path):
    for stem in ("b10", "b1", "a"):
        write_pair(stem, image_suffix=".jpg")
    (tmp_path / "images" / "._a.jpg").write_bytes(b"left by macOS")
    (tmp_path / "images" / "notes.txt").write_text("not a picture")
    pairs = find_pairs(tmp_path / "images", tmp_path / "masks")
    assert [pair.image.stem for pair in pairs] == [pair.mask.stem for pair in pairs] == ["a", "b1", "b10"]


def test_missing_partners_and_duplicates_are_named(write_pair, tmp_path):
    folders = tmp_path / "images", tmp_path / "masks"
    write_pair("a")
    lonely = write_pair("b")
    lonely.mask.rename(lonely.mask.with_name("B.png"))
    with pytest.raises(ValueError, match=r"b\.png: no file with the stem 'b' in .*masks"):
        find_pairs(*folders)
    lonely.image.unlink()
    with pytest.raises(ValueError, match=r"B\.png: no file with the stem 'B' in .*images"):
        find_pairs(*folders)
    (folders[1] / "B.png").unlink()
    shutil.copy(folders[0] / "a.png", folders[0] / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.png: its stem is also that of .*a\.jpg"):
        find_pairs(*folders)


def test_check_counts_the_pixels_of_each_class(write_pair, labels):
    pairs = [write_pair("a", values=np.uint8([[0, 0], [1, 3]])), write_pair("b", values=np.uint8([[2, 2, 2, 255]]))]
    assert check_pairs(pairs, labels).tolist() == [2, 1, 3]


def _replace(path, array, **options):
    Image.fromarray(array, **options).save(path)


def test_each_fault_of_a_file_is_named_with_the_file(write_pair, labels):
    pair = write_pair(values=np.uint8([[0, 1], [2, 7]]))
    with pytest.raises(ValueError, match=r"a\.png: it holds \[7\], expected class ids 0\.\.2 or void \[3, 255\]"):
        check_pair(pair, labels)
    with pytest.raises(ValueError, match=r"a\.png: it holds \[3, 7\], expected class ids 0\.\.2 or void \[255\]"):
        check_pair(write_pair(values=np.uint8([[0, 1], [3, 7]])), replace(labels, void_values=(255,)))
    _replace(pair.mask, np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match=r"masks.a\.png: .*same height x width.*2x3, .*images.a\.png 2x2"):
        check_pair(pair, labels)
    _replace(pair.mask, np.zeros((2, 2), np.uint16))
    with pytest.raises(ValueError, match=r"a\.png: expected 8-bit class ids .*convert it \(found: PNG of mode I;16"):
        check_pair(pair, labels)
    _replace(pair.mask, np.full((2, 2, 3), 1, np.uint8))
    with pytest.raises(ValueError, match="green or blue are not 0"):
        check_pair(pair, labels)


@pytest.mark.parametrize(("kind", "content"), [("image", b""), ("mask", b"no"), ("image", "half"), ("mask", "half")])
def test_unreadable_files_are_named_before_training(write_pair, labels, kind, content, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", content == "half")  # as some programs tell Pillow to
    pair = write_pair(size=(32, 48))
    path = getattr(pair, kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content == "half" else content)
    with pytest.raises(ValueError, match=rf"{kind}s.a\.png: it can't be read as an image"):
        check_pairs([write_pair("good", seed=1), pair], labels)


def _exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _resave(path, mode=None, kind=None, **options):
    with Image.open(path) as image:
        image.convert(mode or image.mode).save(path, kind, **options)


def _last_bytes_missing(path):
    path.write_bytes(path.read_bytes()[:-16])


def _sixteen_bits(path):
    with Image.open(path) as image:
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16).save(path)


NO_END = r"it can't be read as an image; save it anew as PNG, or get it again \(found: .*\)"
ODD = {  # how it is made, and the sentence
    "mask without its end": ("mask", _last_bytes_missing, NO_END),
    "picture without its end": ("image", _last_bytes_missing, NO_END),
    "palette": ("mask", lambda p: _resave(p, "P"), "expected 8-bit class ids"),
    "16-bit grey": ("image", _sixteen_bits, "expected 8 bits a channel; scale it to 0..255"),
    "turned": ("mask", lambda p: _resave(p, exif=_exif(6)), "need the same height x width, upright"),
    "JPEG mask": ("mask", lambda p: _resave(p, kind="JPEG"), "it is a JPEG inside, which changes class ids; make"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_training_would_read_otherwise_is_named(write_pair, labels, odd):
    pair = write_pair(size=(32, 48))
    kind, make, sentence = ODD[odd]
    make(getattr(pair, kind))
    with pytest.raises(ValueError, match=rf"{kind}s.a\.png: .*{sentence}") as caught:
        check_pairs([write_pair("good", seed=1), pair], labels)
    assert len(str(caught.value).splitlines()) == 1


def test_good_images_and_masks_of_every_kind_pass(write_pair, labels):
    pair = write_pair(size=(33, 50), seed=5)
    expected = check_pair(pair, labels).tolist()
    for mode in ("RGBA", "L", "LA", "P", "1"):
        _resave(pair.image, mode)
        assert check_pair(pair, labels).tolist() == expected, mode
    write_pair(size=(33, 50), seed=5)
    for options in ({"quality": 100}, {"progressive": True, "quality": 20}, {"exif": _exif(3)}):
        _resave(pair.image, kind="JPEG", **options)  # under a name that ends in .png
        assert check_pair(pair, labels).tolist() == expected, options
    for kind in ("BMP", "TIFF", "PPM", "GIF"):
        _resave(pair.image, kind=kind)
        assert check_pair(pair, labels).tolist() == expected
    for channels in (3, 4):
        red = np.asarray(Image.open(pair.mask).convert("RGBA")) * np.uint8([1, 0, 0, 1])
        _replace(pair.mask, red[..., :channels])
        assert check_pair(pair, labels).tolist() == expected


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [32 * 48 // 3, 32 * 48 - 1])
def test_a_picture_that_pillow_takes_for_an_attack_is_named(write_pair, labels, monkeypatch, limit):
    """Above twice the limit Pillow raises an error that is no ValueError, below it only warns."""
    pair = write_pair(size=(32, 48))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"images.a\.png: too large or damaged; make it smaller .*limit"):
        check_pair(pair, labels)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_class_names_in_another_encoding_are_named(tmp_path, encoding):
    (tmp_path / "classes.txt").write_text("ciel\nchaussée\n", encoding=encoding)
    with pytest.raises(ValueError, match=r"classes\.txt: it .*; save it as UTF-8$"):
        load_dataset("folder", tmp_path)


def test_ego_mask_is_what_every_mask_shares(write_pair, labels):
    carla = datasets.CARLA
    masks = {"a": [[10, 0], [10, 10]], "b": [[1, 10], [10, 10]]}
    pairs = [write_pair(stem, values=np.uint8(values)) for stem, values in masks.items()]
    assert find_ego_mask(pairs, carla).tolist() == [[False, False], [True, True]]
    assert find_ego_mask(pairs, labels) is None
    pairs.append(write_pair("c", values=np.uint8([[1, 1], [1, 1]])))
    assert find_ego_mask(pairs, carla) is None


def test_importing_the_package_is_quick():
    """Neither kaggle nor matplotlib nor TensorFlow is imported before it is needed."""
    code = "import sys, unet_helpers.datasets; print({'kaggle', 'matplotlib', 'tensorflow'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(("name", "film"), [
    ("F61-1", "F61"), ("02_00_017", "02_00"), ("0016E5_07959", "0016E5"), ("Seq05VD_f00150", "Seq05VD"), ("p12", ""),
    ("one", "one"),
])  # fmt: skip
def test_a_film_is_the_name_without_the_frame(name, film):
    assert sequence_of(Pair(Path(f"{name}.png"), Path(f"{name}.png"))) == film


def test_a_file_is_decoded_twice_at_most_before_the_first_batch(tmp_path, monkeypatch):
    """Once checked, once for training; what is converted is decoded once more, and its copy once."""
    root = tmp_path / "data"
    for n in range(6):
        pair = write_pair_to(root, str(n), seed=n)
        if n == 1:
            _resave(pair.mask, "P")
            _resave(pair.image, kind="JPEG", exif=_exif(3))
        if n == 2:
            _sixteen_bits(pair.image)
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
