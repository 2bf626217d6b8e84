"""Images of every kind, what is refused or left out, and copies: once, whole or not at all."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    KILLED,
    REFUSED,
    SIZE,
    STEMS,
    STORED,
    all_masks,
    array,
    deep_grey,
    half_a_file,
    in_colors,
    in_picture_palette,
    labelme,
    look_at,
    make_ids,
    make_picture,
    pairs_of,
    prepare,
    read_as_training_does,
    save,
    save_bytes,
    split_lists,
    splits_of,
    turned,
    write_folder,
    write_outlines,
    write_stems,
)
from fuzzing_files import write_png
from limits import pipe
from PIL import Image

from unet_helpers.custom_data import ValidationError, examine_folder, places_for, preparation, prepare_folder
from unet_helpers.datasets import check_pair


def grey(picture):
    return picture[..., 0]


def deep_png(bits, color_type):
    def write(picture, path):
        values = picture.astype(np.uint16)
        samples = values * 257 if bits == 16 else values << (bits - 8)
        save_bytes(
            write_png(samples[..., :1] if color_type == 0 else samples, 16, color_type), path.with_suffix(".png")
        )

    return write


def deep_alpha(picture, path):
    """12 of 16 bits, and opaque throughout: what is opaque tells nothing of how bright the picture is."""
    samples = np.dstack([picture.astype(np.uint16) << 4, np.full(SIZE, 0xFFFF, np.uint16)])
    save_bytes(write_png(samples, 16, 6), path.with_suffix(".png"))


IMAGES = {  # how an image is written; whether it is grey
    "PNG": (array(".png"), False),
    "PNG, RGBA": (array(".png", lambda p: np.dstack([p, p[..., 0]])), False),
    "PNG, grey": (array(".png", grey), True),
    "PNG, grey with alpha": (array(".png", lambda p: p[..., 0], "LA"), True),
    "PNG, palette": (in_picture_palette(".png"), False),
    "PNG, palette with a transparent colour": (in_picture_palette(".png", transparency=3), False),
    "PNG, animated": (in_picture_palette(".png", save_all=True), False),
    "PNG, 16 bits grey": (deep_png(16, 0), True),
    "PNG, 16 bits RGB": (deep_png(16, 2), False),
    "PNG, 12 of 16 bits, grey": (deep_png(12, 0), True),
    "PNG, 12 of 16 bits, RGB": (deep_png(12, 2), False),
    "TIFF": (array(".tif"), False),
    "TIFF, compressed": (array(".tif", compression="tiff_lzw"), False),
    "TIFF, CMYK": (array(".tif", lambda p: p, "CMYK"), False),
    "TIFF, 16 bits": (array(".tif", lambda p: p[..., 0].astype(np.uint16) * 257), True),
    "TIFF, 12 of 16 bits": (array(".tif", lambda p: p[..., 0].astype(np.uint16) * 16), True),
    "PNG, 12 of 16 bits, RGBA": (deep_alpha, False),
    "PNG, EXIF data damaged": (array(".png", exif=b"Exif\0\0no header of a TIFF"), False),
    "TIFF, colour profile damaged": (array(".tif", icc_profile=b"no profile"), False),
    "TIFF, pages": (in_picture_palette(".tif", save_all=True), False),
    "BMP": (array(".bmp"), False),
    "BMP, palette": (in_picture_palette(".bmp"), False),
    "GIF, animated": (in_picture_palette(".gif", save_all=True), False),
    "WEBP": (array(".webp", lossless=True), False),
    "PPM": (array(".ppm"), False),
    "JPEG suffix, PNG inside": (array(".jpg", format="PNG"), False),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_the_same_pictures_in_every_kind_of_file_have_the_same_pixels(tmp_path, kind):
    write, is_grey = IMAGES[kind]

    def save_picture(picture, path):
        # Two hundred colours: a palette holds them, and GIF
        write(np.repeat(picture[..., :1], 3, 2) if is_grey else picture, path)

    root = write_folder(tmp_path / "data", save_picture=save_picture)
    prepared = prepare(root)
    read = read_as_training_does(prepared)
    for number, stem in enumerate(STEMS):
        expected = np.repeat(make_picture(number)[..., :1], 3, 2) if is_grey else make_picture(number)
        np.testing.assert_array_equal(read[stem][0], expected, kind)
    assert {pair.image.parent == root / "images" for pair in pairs_of(prepared).values()} == {"16" not in kind}
    if "16" in kind:  # what is written is pixels and nothing that another program could take for more
        with Image.open(prepared.train[0].image) as image:
            assert (image.mode, image.info) == ("RGB", {})
    assert {pair.mask.parent for pair in pairs_of(prepared).values()} == {root / "masks"}


def test_a_phones_jpeg_with_more_pictures_behind_it_is_taken_as_it_is(tmp_path):
    """An MPO: a preview or a depth map follows, which no viewer shows."""
    others = [Image.new("RGB", SIZE[::-1], "red")]
    write = array(".jpg", format="MPO", save_all=True, append_images=others, quality=95)
    prepared = prepare(write_folder(tmp_path / "data", save_picture=write))
    assert prepared.report.warnings == []
    assert prepared.report.converted == {}
    for number, (picture, _) in enumerate(read_as_training_does(prepared).values()):
        assert np.abs(picture.astype(int) - make_picture(number)).mean() < 70  # noise; red would be 130


def test_cmyk_jpegs_are_read_as_they_are(tmp_path):
    root = write_folder(tmp_path / "data", save_picture=array(".jpg", lambda p: p, "CMYK", quality=95))
    prepared = prepare(root)
    for stem, (image, _) in read_as_training_does(prepared).items():
        with Image.open(root / "images" / f"{stem}.jpg") as expected:
            np.testing.assert_array_equal(image, expected.convert("RGB"))
    assert prepared.report.converted == {}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("suffix", "mask_is"),
    [(".png", "upright"), (".tif", "stored"), (".webp", "upright"), (".png", "turned"), (".png", "turned, of 16 bits")],
)
def test_an_image_and_its_mask_are_upright(tmp_path, orientation, suffix, mask_is):
    """However the image is stored and whatever has drawn the mask, where sizes tell; else the mask is upright. It may
    have EXIF data of its own."""
    options = {"lossless": True} if suffix == ".webp" else {}
    exif = Image.Exif()
    exif[0x0112] = orientation
    store = STORED[orientation]

    def save_mask(ids, path):
        if "turned" in mask_is:
            save(store(ids.astype(np.uint16 if "16" in mask_is else np.uint8)), path.with_suffix(".png"), exif=exif)
        else:
            save(store(ids) if mask_is == "stored" and orientation >= 5 else ids, path.with_suffix(".png"))

    def save_image(image, path):
        save(store(image), path.with_name(path.name + suffix), exif=exif, **options)

    prepared = prepare(write_folder(tmp_path / "data", save_mask, save_image))
    read = read_as_training_does(prepared)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read[stem][0], make_picture(number))
        np.testing.assert_array_equal(read[stem][1], make_ids(number))
    said = any("does not tell whether its mask is turned" in line for line in prepared.report.warnings)
    assert said == (orientation in (2, 3, 4))
    assert {pair.image.parent.parent for pair in pairs_of(prepared).values()} == {tmp_path / "data"}


@pytest.mark.parametrize(("upright", "how"), [([], "as stored"), ([0], "as upright")])
def test_masks_of_images_on_their_side_tell_how_to_take_those_upside_down(tmp_path, upright, how):
    """Masks of stored pixels: all of those whose size tells, or, but for one, some."""
    orientations = [6, 8, 3, 1, 6, 3]
    root = write_folder(tmp_path / "data")
    for number, orientation in enumerate(orientations):
        turned(orientation, ".png")(make_picture(number), root / "images" / STEMS[number])
        is_stored = orientation != 3 if upright else True
        if number not in upright and is_stored:
            save(STORED[orientation](make_ids(number)), root / "masks" / f"{STEMS[number]}.png")
    prepared = prepare(root)
    for number, stem in enumerate(STEMS):
        np.testing.assert_array_equal(read_as_training_does(prepared)[stem][1], make_ids(number))
    assert any("images/p3.png, images/p6.png: " in w and f"taken {how}" in w for w in prepared.report.warnings)


@pytest.mark.parametrize("name", ["images/p2.png", "masks/p2.png", "masks/p2.json"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, name):
    root = write_outlines(tmp_path / "data", "masks", labelme) if ".json" in name else write_folder(tmp_path / "data")
    (root / name).unlink()
    with pipe(root / name), pytest.raises(ValidationError, match=rf"{name}.*it is no file, but a folder, a pipe"):
        prepare_folder(root)


def test_a_link_to_a_device_is_refused_and_one_to_a_file_is_read(tmp_path):
    """/dev/null stands for /dev/zero, which has no end."""
    root = write_outlines(tmp_path / "data", "masks", labelme)
    before = prepare(root)
    for name in ("images/p3.png", "masks/p3.json"):
        (root / name).rename(tmp_path / Path(name).name)
        (root / name).symlink_to(tmp_path / Path(name).name)
    np.testing.assert_array_equal(read_as_training_does(prepare(root))["p3"][1], read_as_training_does(before)["p3"][1])
    (root / "masks" / "p2.json").unlink()
    (root / "masks" / "p2.json").symlink_to("/dev/null")
    with pytest.raises(ValidationError, match=r"masks/p2\.json \(it is no file, but a folder, a pipe or a device\)"):
        prepare(root)


def test_json_that_is_too_large_is_not_read(tmp_path):
    root = write_outlines(tmp_path / "data", "masks", labelme)
    os.truncate(root / "masks" / "p2.json", (1 << 30) + 1)  # takes no room on the disk
    with pytest.raises(ValidationError, match=r"masks/p2\.json \(it has 1,073,741,825 bytes, at most 1,073,741,824"):
        prepare_folder(root)


@pytest.mark.parametrize("fault", REFUSED)
def test_each_fault_is_named_with_its_file_and_what_to_do(tmp_path, fault):
    change, sentence = REFUSED[fault]
    root = write_folder(tmp_path / "data")
    change(root)
    with pytest.raises(ValueError, match=sentence) as caught:
        prepare(root)
    assert type(caught.value) in (ValueError, ValidationError)
    assert str(caught.value).startswith(str(root))
    assert len(str(caught.value).splitlines()) == 1, caught.value
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # nothing is left beside it


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_very_many_pixels_is_named(tmp_path, monkeypatch):
    """Pillow itself only warns up to twice its limit."""
    root = write_folder(tmp_path / "data")
    save(np.zeros((30, 36, 3), np.uint8), root / "images" / "p2.png")
    save(np.zeros((30, 36), np.uint8), root / "masks" / "p2.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(
        ValidationError, match=r"images/p2\.png, masks/p2\.png \(1080 pixels, and the limit is 1000\): too la"
    ):
        prepare(root)


def test_all_faults_are_named_at_once_ten_names_each(tmp_path):
    root = write_folder(tmp_path / "data")
    for number in range(20):
        save(make_picture(number), root / "images" / f"q{number:02}.png")
        save(make_ids(number), root / "masks" / f"q{number:02}.png")
        (root / "masks" / f"q{number:02}.png").write_bytes(b"damaged")
    (root / "masks" / "p1.png").unlink()
    save(make_ids(1) + 90, root / "masks" / "p2.png")
    with pytest.raises(ValueError, match="3 kinds of problems in its files") as caught:
        prepare(root)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "and 10 more: it can't be read" in str(caught.value)
    assert "q10.png" not in str(caught.value)
    report = examine_folder(root)
    assert report.errors == lines[1:]
    assert report.table().count("ERROR") == 3


SINGLE = (
    "mask has another size", "mask is half a file", "mask with an unknown id", "picture without its last lines",
    "picture without a mask", "two pictures of a stem",
)  # fmt: skip


@pytest.mark.parametrize("fault", SINGLE)
def test_pairs_of_faulty_files_can_be_left_out_and_no_other_pair_changes_its_split(tmp_path, fault):
    root = write_stems(tmp_path / "data", [f"p{n}" for n in range(1, 21)])
    (root / "classes.txt").write_text("road\nparked car\nsky\n")
    expected = {name: [stem for stem in stems if stem != "p2"] for name, stems in splits_of(prepare(root)).items()}
    change, sentence = REFUSED[fault]
    change(root)
    prepared = prepare(root, skip_bad=True)
    assert splits_of(prepared) == expected
    assert len(prepared.report.errors) == 1
    assert re.search(sentence, prepared.report.errors[0])
    for stem, (picture, ids) in read_as_training_does(prepared).items():
        np.testing.assert_array_equal(picture, make_picture(int(stem[1:]) - 1))
        np.testing.assert_array_equal(ids, make_ids((int(stem[1:]) - 1) % 4, (0, 1, 2)))


@pytest.mark.parametrize(("missing", "split_by"), [("masks", None), ("images", r"film\d\d")])
def test_what_was_learned_does_not_come_to_the_test_where_many_files_are_missing(tmp_path, missing, split_by):
    root = write_stems(tmp_path / "data", [f"film{n:02}" for n in range(40)])
    before = splits_of(prepare(root, split_by=split_by))
    for n in range(26, 36):
        (root / missing / f"film{n}.png").unlink()
    splits = splits_of(prepare(root, split_by=split_by, skip_bad=True))
    gone = {f"film{n}" for n in range(26, 36)}
    assert splits == {name: [stem for stem in stems if stem not in gone] for name, stems in before.items()}


def test_what_is_written_of_a_faulty_folder_is_never_taken_for_the_whole(tmp_path, capsys):
    root = write_folder(tmp_path / "data", array(".gif"), deep_grey)
    good = (root / "masks" / "p4.gif").read_bytes()
    (root / "masks" / "p4.gif").write_bytes(good[:50])
    first = prepare(root, skip_bad=True)
    assert "writing 10 images and masks" in capsys.readouterr().out
    assert first.report.errors[0].startswith("masks/p4.gif (")
    assert read_as_training_does(first).keys() == set(STEMS) - {"p4"}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]  # all else goes with the process
    with pytest.raises(ValidationError, match=r"p4\.gif"):
        prepare(root)
    (root / "masks" / "p4.gif").write_bytes(good)
    assert read_as_training_does(prepare(root)).keys() == set(STEMS)
    assert "writing 12 images and masks" in capsys.readouterr().out
    (root / "masks" / "p4.gif").write_bytes(good[:50])
    assert pairs_of(prepare(root, skip_bad=True)).keys() == set(STEMS) - {"p4"}


def test_a_fault_that_is_not_one_of_single_files_is_refused_as_ever(tmp_path):
    for number, (change, options, sentence) in enumerate((
        (all_masks(array(".png", in_colors)), {}, "it holds colours"),  # no pair is left
        (all_masks(array(".png", lambda ids: ids * 0)), {}, "all masks hold only 'road'"),
        (split_lists(train="p1\np2\n", val="p1\n"), {}, "this pair is in two lists"),
        (half_a_file("masks/p2.png"), {"split_by": "p[1-4]"}, "finds no group in its name"),
    )):  # fmt: skip
        root = write_folder(tmp_path / f"{number}" / "data")
        change(root)
        with pytest.raises(ValidationError, match=sentence) as caught:
            prepare(root, skip_bad=True, **options)
        errors = caught.value.report.errors
        assert len(set(errors)) == len(errors) > 0
        assert [path.name for path in root.parent.iterdir()] == ["data"]


def test_the_faults_are_said_also_where_the_others_can_not_be_written(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", array(".gif"))
    half_a_file("masks/p2.gif")(root)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(ValueError, match=r"(?s)2 kinds of problems.*masks/p2\.gif.*No space left on device"):
        prepare(root, skip_bad=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_is_written_of_good_pairs_goes_with_its_process(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    half_a_file("masks/p2.gif")(root)
    (tmp_path / "temporary").mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        f"from unet_helpers import custom_data\n"
        f"print(custom_data.prepare_folder({str(root)!r}, skip_bad=True).train[0].mask)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    mask = Path(done.stdout.splitlines()[-1])
    assert mask.is_relative_to(tmp_path / "temporary")
    assert not mask.parents[2].exists()


def test_what_needs_nothing_is_read_where_it_is(tmp_path):
    prepared = prepare(write_folder(tmp_path / "data"))
    assert {path.parents[1] for pair in pairs_of(prepared).values() for path in pair} == {tmp_path / "data"}
    assert [path.name for path in (tmp_path / "data.prepared").iterdir()] == ["prepared.json"]
    assert prepared.report.converted == {}


def test_it_is_written_once_and_again_for_what_has_changed(tmp_path, monkeypatch, capsys):
    root = write_folder(tmp_path / "data", array(".gif"), deep_grey)
    first = prepare(root)
    assert "writing 12 images and masks" in capsys.readouterr().out
    times = {path: path.stat().st_mtime_ns for pair in pairs_of(first).values() for path in pair}

    def forbidden(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "examine_items", forbidden)
        assert prepare(root) == first
        root.rename(tmp_path / "moved")
        (tmp_path / "data.prepared").rename(tmp_path / "moved.prepared")
        moved = prepare(tmp_path / "moved")
        assert moved.labels == first.labels
        (tmp_path / "moved").rename(root)
        (tmp_path / "moved.prepared").rename(tmp_path / "data.prepared")
        for path in (*(root / "images").iterdir(), root / "masks" / "p1.gif", root / "classes.txt"):
            content = path.read_bytes()
            path.write_bytes(content)
            os.utime(path, ns=(1, 1))
        assert prepare(root) == first  # the same content, whatever the time
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert capsys.readouterr().out == ""
    for change in (
        lambda: save(make_ids(3), root / "masks" / "p1.gif"),
        lambda: deep_grey(make_picture(3), root / "images" / "p1"),
        lambda: (root / "classes.txt").write_text("sky\nroad\nparked car\n"),
        lambda: (save(make_ids(0), root / "masks" / "q.gif"), deep_grey(make_picture(0), root / "images" / "q")),
        lambda: ((root / "masks" / "q.gif").unlink(), (root / "images" / "q.tif").unlink()),
        lambda: (tmp_path / "data.prepared" / "masks" / "p4.png").unlink(),
    ):
        change()
        prepared = prepare(root)
        assert "images and masks that training can't read as they are, once" in capsys.readouterr().out
        read = read_as_training_does(prepared)
        with Image.open(root / "masks" / "p1.gif") as mask, Image.open(root / "images" / "p1.tif") as picture:
            np.testing.assert_array_equal(read["p1"][0][..., 1], np.asarray(picture) // 257)
            np.testing.assert_array_equal(read["p1"][1], np.asarray(mask.convert("L")))
    assert prepared.labels.names == ("sky", "road", "parked car")
    assert read.keys() == set(STEMS)


def test_what_an_older_version_wrote_is_written_anew(tmp_path, capsys):
    root = write_folder(tmp_path / "data", array(".gif"))
    prepare(root)
    record = tmp_path / "data.prepared" / "prepared.json"
    old = json.loads(record.read_text()) | {"format": preparation.FORMAT - 1}
    record.write_text(json.dumps({name: value for name, value in old.items() if name != "written"}))
    (tmp_path / "data.prepared" / "masks" / "p1.png").write_bytes(b"as it was written then")
    capsys.readouterr()
    prepared = prepare(root)
    assert "writing 6 images and masks" in capsys.readouterr().out
    np.testing.assert_array_equal(read_as_training_does(prepared)["p1"][1], make_ids(0))


def test_copies_that_are_made_anew_are_the_same_to_the_byte(tmp_path):
    """A training goes on from them: `runs.run_folder` knows its data by their content."""
    root = write_folder(tmp_path / "data", array(".gif"), deep_grey)
    copies = [path for pair in pairs_of(prepare(root)).values() for path in pair]
    content = [path.read_bytes() for path in copies]
    shutil.rmtree(tmp_path / "data.prepared")
    prepare(root)
    assert len(copies) == 12
    assert [path.read_bytes() for path in copies] == content


def test_what_others_put_among_the_copies_is_named_and_never_lost(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    prepare(root)
    copy = tmp_path / "data.prepared" / "masks" / "p2.png"
    (copy.parent / ".DS_Store").write_bytes(b"of the system")
    os.utime(copy, (1, 1))
    assert prepare(root).report.warnings == []  # its content is what was written
    save(make_ids(4), copy)
    prepared = prepare(root)
    (warning,) = prepared.report.warnings
    assert re.match(rf"{copy}: changed since it was written here, .*delete the folder", warning)
    np.testing.assert_array_equal(read_as_training_does(prepared)["p2"][1], make_ids(4))
    assert check_pair(pairs_of(prepared)["p2"], prepared.labels)[1] == (make_ids(4) == 1).sum()
    (tmp_path / "data.prepared" / "mine.txt").write_text("the work of a week")
    save(make_ids(3), root / "masks" / "p1.gif")
    before = look_at(tmp_path / "data.prepared")
    with pytest.raises(ValueError, match=r"data\.prepared: mine\.txt, masks/p2\.png: not written here"):
        prepare(root)
    assert look_at(tmp_path / "data.prepared") == before
    shutil.rmtree(tmp_path / "data.prepared")
    np.testing.assert_array_equal(read_as_training_does(prepare(root))["p2"][1], make_ids(1))


def test_a_file_of_the_same_time_but_another_size_is_read_anew(tmp_path):
    """As copying programs leave it that keep the times."""
    root = write_folder(tmp_path / "data", array(".bmp"), classes=None)
    prepare(root)
    path = root / "masks" / "p1.bmp"
    time = path.stat().st_mtime_ns
    array(".bmp", lambda ids: np.dstack([ids, 0 * ids, 0 * ids]))(make_ids(3), root / "masks" / "p1")
    os.utime(path, ns=(time, time))
    np.testing.assert_array_equal(read_as_training_does(prepare(root))["p1"][1], make_ids(3))


def test_without_a_lock_nothing_of_another_process_is_deleted(tmp_path):
    """It may be writing: nobody knows where no lock can be had."""
    root = write_folder(tmp_path / "data", array(".gif"))
    theirs = tmp_path / "data.prepared.partial-1" / "p1.png"
    save(make_ids(0), theirs)
    (tmp_path / ".data.prepared.lock").mkdir()
    assert read_as_training_does(prepare_folder(root)).keys() == set(STEMS)
    assert theirs.is_file()


MOMENTS = {  # when a process is killed, and whether there is an older preparation
    "after the third file": ("Image.Image.save = counting(Image.Image.save, 3, half=True)", False),
    "before the record": ("writing.json.dumps = counting(writing.json.dumps, 1)", True),
    "after the first rename": ("writing.os.replace = counting(writing.os.replace, 1, half=True)", True),
    "while the old ones are deleted": ("os.unlink = counting(os.unlink, 3)", True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_preparation_leaves_nothing_half(tmp_path, moment):
    patch, again = MOMENTS[moment]
    root = write_folder(tmp_path / "data", array(".gif"), deep_grey)
    if again:
        prepare(root)
        save(make_ids(3), root / "masks" / "p1.gif")
    before = look_at(root)
    code = KILLED.format(repository=str(Path(__file__).parents[1]), root=str(root), patch=patch)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert look_at(root) == before
    if (tmp_path / "data.prepared").exists():  # the one before, or all of the new one
        assert len(list((tmp_path / "data.prepared").rglob("*.png"))) == 12
    read = read_as_training_does(prepare(root))  # which finds that no partial folder is left
    np.testing.assert_array_equal(read["p3"][0][..., 0], make_picture(2)[..., 0])
    np.testing.assert_array_equal(read["p3"][1], make_ids(2))


def test_two_at_once_write_once(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    code = KILLED.format(
        repository=str(Path(__file__).parents[1]), root=str(root),
        patch="import time\nreal = writing._write_whole\n"
        "writing._write_whole = lambda *a: (time.sleep(0.5), real(*a))",
    )  # fmt: skip
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted("writing 6" in output for output in outputs) == [False, True]
    assert "".join(outputs).count("waiting for it") <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.prepared"]


def test_nothing_is_written_into_the_folder_or_over_the_work_of_others(tmp_path):
    root = write_folder(tmp_path / "data", array(".gif"))
    with pytest.raises(
        ValueError, match=r"data/cache: it is in .*data, where nothing is written; give a folder outside"
    ):
        prepare_folder(root, root / "cache")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "work.txt").write_text("of a week")
    with pytest.raises(
        ValueError, match=r"mine: its files are not those that are written here; move it away or delete"
    ):
        prepare_folder(root, mine)
    assert [path.name for path in mine.iterdir()] == ["work.txt"]


def test_two_places_for_what_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    beside, elsewhere = places_for("a/data", "cache")
    assert (beside, elsewhere.parent) == (Path("a/data.prepared"), Path("cache"))
    assert places_for("b/data", "cache")[1] != elsewhere  # or one would replace the other's files
    root = write_folder(tmp_path / "data", array(".gif"))
    monkeypatch.chdir(root)
    assert prepare_folder(".").train[0].mask.is_relative_to(tmp_path / "data.prepared")


def test_the_first_place_that_can_be_written_is_taken_and_not_made_again(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "data", array(".gif"))
    (tmp_path / "file").write_text("no folder")
    targets = tmp_path / "file" / "ids", tmp_path / "other" / "ids"
    prepared = prepare_folder(root, *targets)
    assert prepared.train[0].mask.is_relative_to(targets[1])
    with pytest.raises(ValueError, match=r"can't be written anew to .*ids \(Not a directory\); make one"):
        prepare_folder(root, targets[0])
    kept = write_folder(tmp_path / "kept")
    assert len(prepare_folder(kept, targets[0]).train) == 4  # nothing has to be written
    monkeypatch.setattr(preparation, "examine_items", None)
    assert prepare_folder(root, *targets) == prepared
