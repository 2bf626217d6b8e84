"""Images of every kind, what is refused or left out, and copies: once, whole or not at all."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import data_files as good
import numpy as np
import pytest
from data_files import STEMS, array, look_at, make_ids, make_image, prepare, save, write_folder
from fuzzing_files import chunk, write_png, write_tiff
from limits import needs_links, needs_pipes, needs_sigkill, pipe
from PIL import Image, ImageFile

from unet_helpers.custom_data import ValidationError, places_for, prepare_folder

ROOT = Path(__file__).parents[1]


def deep_png(change, color_type):
    """16 bits a sample: change(values of 0..255)."""
    return lambda image, path: good.save_bytes(
        write_png(change(image.astype(np.uint16)), 16, color_type), path.with_suffix(".png")
    )


IMAGES = {  # how an image is written; a palette, and GIF, holds its two hundred colours
    "PNG": array(".png"),
    "PNG, RGBA": array(".png", lambda p: np.dstack([p, p[..., 0]])),
    "PNG, grey with alpha": array(".png", lambda p: p[..., 0], "LA"),
    "PNG, palette with a transparent colour": good.in_palette(".png", transparency=3),
    "PNG, animated": good.in_palette(".png", save_all=True),
    "PNG, grey, 16 bits": deep_png(lambda p: p[..., :1] * 257, 0),
    "PNG, RGB, 16 bits": deep_png(lambda p: p << 8 | 77, 2),
    "PNG, RGBA, 16 bits": deep_png(lambda p: np.dstack([p << 8, np.full(good.SIZE, 0xFFFF, np.uint16)]), 6),
    "PNG, EXIF data damaged": array(".png", exif=b"Exif\0\0no header of a TIFF"),
    "TIFF, colour profile damaged": array(".tif", icc_profile=b"no profile"),
    "TIFF, compressed": array(".tif", compression="tiff_lzw"),
    "TIFF, CMYK": array(".tif", mode="CMYK"),
    "TIFF, grey, 12 of 16 bits": array(".tif", lambda p: p[..., 0].astype(np.uint16) * 16),
    "TIFF, pages": good.in_palette(".tif", save_all=True),
    "BMP, palette": good.in_palette(".bmp"),
    "GIF, animated": good.in_palette(".gif", save_all=True),
    "WEBP": array(".webp", lossless=True),
    "PPM": array(".ppm"),
    "JPEG suffix, PNG inside": array(".jpg", format="PNG"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_the_same_images_in_every_kind_of_file_have_the_same_pixels(tmp_path, kind):
    def pixels(number):
        return np.repeat(make_image(number)[..., :1], 3, 2) if "grey" in kind else make_image(number)

    root = write_folder(tmp_path / "data", save_image=IMAGES[kind])
    prepared = prepare(root)
    read = good.read_as_training_does(prepared)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read[stem][0], pixels(number), kind)
    is_deep = "grey, 1" in kind
    assert {pair.image.parent == root / "images" for pair in good.pairs_of(prepared).values()} == {not is_deep}
    if is_deep:  # what is written is pixels and nothing that another program could take for more
        with Image.open(prepared.train[0].image) as image:
            assert (image.mode, image.info) == ("RGB", {})
    assert {pair.mask.parent for pair in good.pairs_of(prepared).values()} == {root / "masks"}


def test_jpegs_of_a_phone_are_taken_as_they_are(tmp_path):
    """MPO: a preview or a depth map follows, which no viewer shows."""
    more = [Image.new("RGB", good.SIZE[::-1], "red")]
    root = write_folder(tmp_path / "data", save_image=array(".jpg", format="MPO", save_all=True, append_images=more))
    prepared = prepare(root)
    assert (prepared.report.warnings, prepared.report.converted) == ([], {})
    for image, _ in good.read_as_training_does(prepared).values():
        assert np.ptp(image[..., 1]) > 50  # not the red one


@pytest.mark.parametrize(
    ("orientation", "suffix", "mask_is"),
    [(orientation, ".png", "upright") for orientation in good.STORED] + [
        (6, ".webp", "upright"), (6, ".tif", "stored"), (7, ".tif", "stored"), (3, ".png", "turned"),
        (8, ".png", "turned"), (5, ".png", "turned, of 16 bits"),
    ],
)  # fmt: skip
def test_an_image_and_its_mask_are_upright(tmp_path, orientation, suffix, mask_is):
    """However the image is stored and whatever has drawn the mask, where sizes tell; else the mask is upright. It may
    have EXIF data of its own."""
    save_mask = {
        "upright": array(".png"), "stored": array(".png", good.STORED[orientation]), "turned": good.turned(orientation),
        "turned, of 16 bits": lambda ids, path: good.turned(orientation)(ids.astype(np.uint16), path),
    }[mask_is]  # fmt: skip
    save_image = good.turned(orientation, suffix, **({"lossless": True} if suffix == ".webp" else {}))
    prepared = prepare(write_folder(tmp_path / "data", save_mask, save_image))
    for number, (image, ids) in enumerate(good.read_as_training_does(prepared).values()):
        np.testing.assert_array_equal(image, make_image(number))
        np.testing.assert_array_equal(ids, make_ids(number))
    said = any("does not tell whether its mask is turned" in line for line in prepared.report.warnings)
    assert said == (orientation in (2, 3, 4))
    assert {pair.image.parent.parent for pair in good.pairs_of(prepared).values()} == {tmp_path / "data"}


@needs_pipes
@pytest.mark.parametrize("name", ["images/p2.png", "masks/p2.json"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    root = good.write_outlines(tmp_path / "data", "masks", good.labelme)
    (root / name).unlink()
    with pipe(root / name), pytest.raises(ValidationError, match=rf"{name}.*it is no file, but a folder, a pipe"):
        prepare_folder(root)


@needs_links
def test_links_to_files_are_read_and_huge_json_refused(tmp_path):
    root = good.write_outlines(tmp_path / "data", "masks", good.labelme)
    before = good.read_as_training_does(prepare(root))
    for name in ("images/p3.png", "masks/p3.json"):
        (root / name).rename(tmp_path / Path(name).name)
        (root / name).symlink_to(tmp_path / Path(name).name)
    np.testing.assert_array_equal(good.read_as_training_does(prepare(root))["p3"][1], before["p3"][1])
    os.truncate(root / "masks" / "p1.json", (1 << 30) + 1)  # takes no room on the disk
    with pytest.raises(ValidationError, match=r"masks/p1\.json \(it has 1,073,741,825 bytes"):
        prepare_folder(root)


def cut_palette(ids, path):
    """Colours of the first three ids only, the last one first: void has none, which is not black."""
    colors = chunk(b"PLTE", good.COLORS[::-1].tobytes())
    samples = np.where(ids == 255, 3, 2 - np.minimum(ids, 2))[..., None]
    good.save_bytes(write_png(samples, color_type=3, before=[colors]), path.with_suffix(".png"))


def dark_tiff(image, path):
    good.save_bytes(write_tiff(image.astype(np.uint16) << 4), path.with_suffix(".tif"))


# What is done to six good pairs; the file that is named, and key words. test_bad_input.py has more, and so have the
# tests of annotations, lists of classes and layouts.
REFUSED = {
    "mask is a JPEG inside a TIFF": (good.mask_of(np.asarray, ".tif", compression="jpeg"), r"p2\.tif: .*JPEG inside"),
    "masks with a palette that lacks their colours": (
        good.chain_of(good.all_masks(cut_palette), good.listed(good.NAMED)), r"masks/p1\.png, .* no colour of 8 bits",
    ),
    "mask is a photograph": (
        good.mask_of(lambda _: np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)),
        r"masks/p2\.png: it has more than 4096 colours",
    ),
    "image of floats": (
        good.replace("images/p2.png", array(".tif", lambda p: np.zeros(good.SIZE, np.float32))),
        r"images/p2\.tif \(TIFF of mode F, 32 bits\): .*RGB",
    ),
    "mask of 16 bits in RGB": (
        good.replace("masks/p2.png", deep_png(lambda ids: np.dstack([ids, 0 * ids, 0 * ids]), 2)),
        r"masks/p2\.png \(PNG of mode RGB, 16 bits\): .*one channel",
    ),
    "mask of 32 bits": (
        good.mask_of(lambda ids: ids.astype(np.int32) << 16, ".tif"), r"masks/p2\.tif \(TIFF of mode I, 32 bits\): ",
    ),
    "image of 16 bits that is dark and can't be read whole": (
        good.replace("images/p2.png", dark_tiff), r"images/p2\.tif \(TIFF of mode RGB, 16 bits\): it is dark, .*RGB",
    ),
    "outline of an unknown class": (good.one_shape(label="tram"), r"images/p1\.png \(p1\.json: 'tram'\): .*labels"),
}  # fmt: skip


@pytest.mark.parametrize("problem", REFUSED)
def test_each_problem_is_named_with_its_file_and_what_to_do(tmp_path, problem):
    change, sentence = REFUSED[problem]
    root = write_folder(tmp_path / "data")
    change(root)
    with pytest.raises(ValueError, match=sentence) as caught:
        prepare(root)
    assert type(caught.value) in (ValueError, ValidationError)
    assert str(caught.value).startswith(str(root))
    assert len(str(caught.value).splitlines()) == 1, caught.value
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # nothing is left beside it


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_very_many_pixels_is_named(tmp_path, monkeypatch):
    """Pillow itself only warns up to twice its limit, and then raises an error that is no ValueError."""
    root = write_folder(tmp_path / "data")
    for stem, height in (("p2", 30), ("p3", 60)):
        save(np.zeros((height, 36, 3), np.uint8), root / "images" / f"{stem}.png")
        save(np.zeros((height, 36), np.uint8), root / "masks" / f"{stem}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValidationError, match=r"(?s)images/p2\.png.*1000") as caught:
        prepare(root)
    assert all(f"{folder}/{stem}.png" in str(caught.value) for folder in ("images", "masks") for stem in ("p2", "p3"))


def test_all_problems_are_named_at_once_ten_names_each(tmp_path):
    root = good.write_stems(tmp_path / "data", [f"q{number:02}" for number in range(26)])
    for number in range(20):
        (root / "masks" / f"q{number:02}.png").write_bytes(b"damaged")
    (root / "masks" / "q20.png").unlink()
    save(make_ids(1) + 90, root / "masks" / "q21.png")
    (root / "classes.txt").write_text("road\nparked car\nsky\n")
    with pytest.raises(ValueError, match="3 kinds of problems in its files") as caught:
        prepare(root)
    assert len(str(caught.value).splitlines()) == 4
    assert "and 10 more: it can't be read" in str(caught.value)
    assert "q10.png" not in str(caught.value)
    assert good.report_of(root).table().count("ERROR") == 3


SINGLE = {  # what is wrong with one pair only, and what is said
    "mask with an unknown id": (good.mask_of(lambda _: make_ids(1, (0, 1, 9, 4))), r"masks/p2\.png \(holds \[4, 9\]\)"),
    "image is half a file": (good.half_a_file("images/p2.png"), r"images/p2\.png \(.+\): it can't be read"),
    "image without a mask": (good.unlink("masks/p2.png"), r"images/p2\.png: it has no mask"),
    "mask without an image": (good.unlink("images/p2.png"), r"masks/p2\.png: it has no image"),
    "two images of a stem": (
        lambda root: save(make_image(1), root / "images" / "p2.jpg"), r"images/p2\.png \(and p2\.jpg\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("problem", SINGLE)
@pytest.mark.parametrize("split_by", [None, r"p\d+"])
def test_bad_pairs_can_be_left_out_and_no_other_pair_changes_its_split(tmp_path, problem, split_by):
    root = good.write_stems(tmp_path / "data", [f"p{n}" for n in range(1, 15)])
    (root / "classes.txt").write_text("road\nparked car\nsky\n")
    before = good.splits_of(prepare(root, split_by=split_by))
    change, sentence = SINGLE[problem]
    change(root)
    prepared = prepare(root, split_by=split_by, skip_bad=True)
    assert good.splits_of(prepared) == {name: [s for s in stems if s != "p2"] for name, stems in before.items()}
    (error,) = prepared.report.errors
    assert re.search(sentence, error)
    for stem, (image, ids) in good.read_as_training_does(prepared).items():
        np.testing.assert_array_equal(image, make_image(int(stem[1:]) - 1))
        np.testing.assert_array_equal(ids, make_ids((int(stem[1:]) - 1) % 4, (0, 1, 2)))


def test_what_is_written_of_a_bad_folder_is_never_taken_for_the_whole(tmp_path, capsys):
    root = write_folder(tmp_path / "data", array(".gif"), good.deep_grey)
    mask = root / "masks" / "p4.gif"
    content = mask.read_bytes()
    mask.write_bytes(content[:50])
    first = prepare(root, skip_bad=True)
    assert "converting 10 files" in capsys.readouterr().out
    assert first.report.errors[0].startswith("masks/p4.gif (")
    assert good.read_as_training_does(first).keys() == set(STEMS) - {"p4"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # all else goes with the process
    with pytest.raises(ValidationError, match=r"p4\.gif"):
        prepare(root)
    mask.write_bytes(content)
    assert good.read_as_training_does(prepare(root)).keys() == set(STEMS)
    assert "converting 12 files" in capsys.readouterr().out
    mask.write_bytes(content[:50])
    assert good.pairs_of(prepare(root, skip_bad=True)).keys() == set(STEMS) - {"p4"}


def test_a_problem_that_is_not_one_of_single_files_is_refused_as_ever(tmp_path):
    for number, (change, options, sentence) in enumerate((
        (good.masks_like(good.in_colors), {}, "it holds colours"),  # no pair is left
        (good.masks_like(lambda ids: ids * 0), {}, "all masks hold only 'road'"),
        (good.split_lists(train="p1\np2\n", val="p1\n"), {}, "this pair is in two lists"),
        (good.half_a_file("masks/p2.png"), {"split_by": "p[1-4]"}, "finds no group in its name"),
    )):  # fmt: skip
        root = write_folder(tmp_path / f"{number}" / "data")
        change(root)
        with pytest.raises(ValidationError, match=sentence) as caught:
            prepare(root, skip_bad=True, **options)
        errors = caught.value.report.errors
        assert len(set(errors)) == len(errors) > 0
        assert [path.name for path in root.parent.iterdir()] == ["data"]


def test_what_is_written_of_good_pairs_goes_with_its_process(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    good.half_a_file("masks/p2.gif")(root)
    (tmp_path / "temporary").mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"from unet_helpers import custom_data\n"
        f"print(custom_data.prepare_folder({str(root)!r}, skip_bad=True).train[0].mask)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    mask = Path(done.stdout.splitlines()[-1])
    assert mask.is_relative_to(tmp_path / "temporary")
    assert not mask.parents[2].exists()


def test_it_is_written_once_and_again_for_what_has_changed(tmp_path, monkeypatch, capsys):
    root = write_folder(tmp_path / "data", array(".gif"), good.deep_grey)
    first = prepare(root)
    assert "converting 12 files" in capsys.readouterr().out
    copies = {path: path.read_bytes() for pair in good.pairs_of(first).values() for path in pair}
    shutil.rmtree(tmp_path / "data.prepared")
    first = prepare(root)
    assert "converting 12 files" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in copies} == copies  # a run that is resumed knows its data by these

    def forbidden(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", forbidden)
        assert prepare(root) == first
        root.rename(tmp_path / "moved")
        (tmp_path / "data.prepared").rename(tmp_path / "moved.prepared")
        assert prepare(tmp_path / "moved").labels == first.labels
        (tmp_path / "moved").rename(root)
        (tmp_path / "moved.prepared").rename(tmp_path / "data.prepared")
        for path in (*(root / "images").iterdir(), root / "masks" / "p1.gif", root / "classes.txt"):
            content = path.read_bytes()
            path.write_bytes(content)
            os.utime(path, ns=(1, 1))
        for path in copies:
            os.utime(path, ns=(1, 1))
        (tmp_path / "data.prepared" / ".DS_Store").write_bytes(b"of the system")
        assert prepare(root) == first  # the same content, whatever the time
    assert {path.stat().st_mtime_ns for path in copies} == {1}
    assert capsys.readouterr().out == ""

    def write_as_an_older_version():
        record = tmp_path / "data.prepared" / "prepared.json"
        old = json.loads(record.read_text())
        record.write_text(json.dumps(old | {"format": old["format"] - 1}))

    def write_another_of_the_same_time():
        """As programs that copy the times leave it."""
        path = root / "masks" / "p1.gif"
        before = path.stat()
        save(make_ids(3), path)
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
        assert path.stat().st_size != before.st_size

    for change in (
        write_as_an_older_version,
        write_another_of_the_same_time,
        lambda: good.deep_grey(make_image(3), root / "images" / "p1"),
        lambda: (root / "classes.txt").write_text("sky\nroad\nparked car\n"),
        lambda: (save(make_ids(0), root / "masks" / "q.gif"), good.deep_grey(make_image(0), root / "images" / "q")),
        lambda: ((root / "masks" / "q.gif").unlink(), (root / "images" / "q.tif").unlink()),
        lambda: (tmp_path / "data.prepared" / "masks" / "p4.png").unlink(),
    ):
        change()
        prepared = prepare(root)
        assert "files for training, once" in capsys.readouterr().out
        read = good.read_as_training_does(prepared)
        with Image.open(root / "masks" / "p1.gif") as mask, Image.open(root / "images" / "p1.tif") as image:
            np.testing.assert_array_equal(read["p1"][0][..., 1], np.asarray(image) // 257)
            np.testing.assert_array_equal(read["p1"][1], np.asarray(mask.convert("L")))
    assert prepared.labels.names == ("sky", "road", "parked car")
    assert read.keys() == set(STEMS)


def test_without_a_lock_nothing_of_another_process_is_deleted(tmp_path):
    """It may be writing: nobody knows where no lock can be had."""
    root = write_folder(tmp_path / "data", array(".gif"))
    theirs = tmp_path / "data.prepared.partial-1" / "p1.png"
    save(make_ids(0), theirs)
    (tmp_path / ".data.prepared.lock").mkdir()
    assert good.read_as_training_does(prepare_folder(root)).keys() == set(STEMS)
    assert theirs.is_file()


@needs_sigkill
def test_a_killed_preparation_leaves_nothing_half(tmp_path):
    """Killed while the earlier folder is replaced; test_bad_input.py kills one that writes the first."""
    root = write_folder(tmp_path / "data", array(".gif"), good.deep_grey)
    prepare(root)
    save(make_ids(3), root / "masks" / "p1.gif")
    before = look_at(root)
    code = good.KILLED.format(repository=str(ROOT), root=str(root), patch="os.replace = counting(os.replace, 1)")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert look_at(root) == before
    if (tmp_path / "data.prepared").exists():  # the one before, or all of the new one
        assert len(list((tmp_path / "data.prepared").rglob("*.png"))) == 12
    read = good.read_as_training_does(prepare(root))  # which finds that no partial folder is left
    np.testing.assert_array_equal(read["p1"][1], make_ids(3))
    np.testing.assert_array_equal(read["p3"][0][..., 0], make_image(2)[..., 0])


def test_two_at_once_write_once(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    code = good.KILLED.format(
        repository=str(ROOT), root=str(root),
        patch="import time; real = Image.Image.save\n"
        "Image.Image.save = lambda *a, **k: (time.sleep(0.1), real(*a, **k))",
    )  # fmt: skip
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted("converting 6 files" in output for output in outputs) == [False, True]
    assert "".join(outputs).count("waiting for it") <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.prepared"]


def test_two_places_for_what_is_written_and_none_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    beside, elsewhere = places_for("a/data", "cache")
    assert (beside, elsewhere.parent) == (Path("a/data.prepared"), Path("cache"))
    assert places_for("b/data", "cache")[1] != elsewhere  # or one would replace the other's files
    root = write_folder(tmp_path / "data", array(".gif"))
    with pytest.raises(ValueError, match=r"data/cache: it is in .*data.*outside"):
        prepare_folder(root, root / "cache")
    monkeypatch.chdir(root)
    assert prepare_folder(".").train[0].mask.is_relative_to(tmp_path / "data.prepared")


def test_the_first_place_that_can_be_written_is_taken_and_not_made_again(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", array(".gif"))
    (tmp_path / "file").write_text("no folder")
    targets = tmp_path / "file" / "ids", tmp_path / "other" / "ids"
    prepared = prepare_folder(root, *targets)
    assert prepared.train[0].mask.is_relative_to(targets[1])
    with pytest.raises(ValueError, match=r"can't be written anew to .*ids \(Not a directory\)"):
        prepare_folder(root, targets[0])
    kept = write_folder(tmp_path / "kept")
    assert len(prepare_folder(kept, targets[0]).train) == 4  # nothing has to be written
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    assert prepare_folder(root, *targets) == prepared
