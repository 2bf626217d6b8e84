import contextlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import make_ids, make_image, prepare, read_as_training_does, save, save_bytes, write_folder
from fuzzing import fuzz, read_checked, read_prepared
from fuzzing_files import write_png
from fuzzing_kinds import make_masks
from PIL import Image

from unet_helpers.custom_data import prepare_folder
from unet_helpers.images import decode_image
from unet_helpers.labels import class_pixels


def test_hundreds_of_odd_files_are_refused_by_name_or_read_as_they_are():
    """In a process of its own, which TensorFlow may end. `python -m tests.fuzzing 10000` tries more."""
    command = [sys.executable, "-m", "tests.fuzzing", "300"]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=Path(__file__).parents[1])
    assert run.returncode == 0, f"{run.stdout[-4000:]}\n{run.stderr[-2000:]}"
    *rows, (together, tried, refused, equal, unseen, between) = (
        line.rsplit(maxsplit=5) for line in run.stdout.strip().splitlines()
    )
    assert (together, tried, between) == ("together", "300", "0")
    assert min(int(refused), int(equal)) > 80
    assert int(unseen) < 30
    for kind in ("checked ", "prepared "):
        of_kind = [row for row in rows if row[0].startswith(kind)]
        assert min(sum(int(row[k]) for row in of_kind) for k in (2, 3)) > 30


def without_checksums(pair, labels):
    for path in pair:
        try:
            with Image.open(path) as image:
                values = np.asarray(image.convert("RGB"))[..., 0]
        except Exception as error:
            raise ValueError(f"{path}: {error}") from error
    return class_pixels(labels.value_to_id[values], labels)


def careless(root):
    """Changes one pixel of each copy."""
    prepared = prepare_folder(root)
    for path in {path for pair in prepared.train + prepared.validation for path in pair}:
        if "data.prepared" in path.parts:
            with Image.open(path) as image:
                pixels = np.array(image)
            pixels[0, 0] ^= 1
            Image.fromarray(pixels).save(path)
    return prepared


@pytest.mark.parametrize(("numbers", "functions", "verdict"), [
    (range(0, 160, 2), {"checked": lambda made: read_checked(made, without_checksums)}, "between"),
    (range(1, 80, 2), {"prepared": lambda made: read_prepared(made, careless)}, "between"),
])  # fmt: skip
def test_what_reads_other_pixels_or_refuses_good_files_is_found_out(tmp_path, numbers, functions, verdict):
    table, errors = fuzz(tmp_path, numbers, 0, **functions)
    assert sum(count[verdict] for count in table.values()) >= len(errors) > 3


def flip_a_bit(png: bytes) -> list[bytes]:
    """Files with one bit of the pixels, or of their checksum, flipped: a few at random, and a few of which Pillow reads
    other pixels and says nothing, if there are any: one run becomes longer, and what is too much then is cut off."""
    start, silent = png.index(b"IDAT") + 4, []
    damaged = [(place, bit) for place in range(start, len(png) - 12) for bit in range(8)]
    random = np.random.default_rng(1).permutation(len(damaged))
    files = [png[:place] + bytes([png[place] ^ 1 << bit]) + png[place + 1 :] for place, bit in damaged]
    with Image.open(io.BytesIO(png)) as image:
        whole = image.tobytes()
    for k in random[:500]:
        with contextlib.suppress(Exception), Image.open(io.BytesIO(files[k])) as image:
            if image.tobytes() != whole:
                silent.append(files[k])
    return silent[:2] + [files[k] for k in random[:2]]


@pytest.mark.parametrize("name", ["PNG", "PNG red", "PNG of 4 bits", "PNG palette", "PNG 16-bit", "PNG colours"])
def test_a_mask_with_one_bit_flipped_is_refused(tmp_path, name):
    """As it was written, not as a decoder reads it, which may skip the checksums. The other masks are whole."""
    kind, rng = make_masks(np.random.default_rng(0))[name], np.random.default_rng(1)
    root, written = tmp_path / "data", np.sort(np.uint8(kind.ids)[rng.integers(0, len(kind.ids), (24, 36))], 0)
    written[8:, 12:] = kind.ids[1]
    for number in range(1, 5):
        save(make_image(number), root / "images" / f"p{number}.png")
        save_bytes(kind.write(np.roll(written, number)), root / "masks" / f"p{number}.png")
    (root / "classes.txt").write_text(kind.classes)
    whole = (root / "masks" / "p2.png").read_bytes()
    np.testing.assert_array_equal(read_as_training_does(prepare_folder(root))["p2"][1], np.roll(written, 2))
    for damaged in flip_a_bit(whole):
        (root / "masks" / "p2.png").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"masks.p2\.png .*save it anew"):
            prepare_folder(root)


@pytest.mark.parametrize("mode", ["RGB", "P", "LA", "I;16"])
def test_an_image_with_one_bit_flipped_is_not_predicted(tmp_path, mode):
    pixels = np.sort(make_image(1), 0)
    pixels[8:, 12:] = 51
    image = Image.fromarray(pixels[..., 0].astype(np.uint16) if mode == "I;16" else pixels)
    image.convert(mode).save(tmp_path / "a.png")
    decode_image(tmp_path / "a.png")
    for damaged in flip_a_bit((tmp_path / "a.png").read_bytes()):
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.png.*save it anew"):
            decode_image(tmp_path / "a.png")


def test_a_png_without_the_palette_that_it_needs_is_read_as_ids(tmp_path):
    """As the fuzzing has found."""
    root = write_folder(tmp_path / "data")
    save_bytes(write_png(make_ids(1)[..., None], 8, 3), root / "masks" / "p2.png")
    np.testing.assert_array_equal(read_as_training_does(prepare(root))["p2"][1], make_ids(1))
