"""The table of data/README.md: each of its rows is made real, said as it says, and leaves on the disk what it says."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import data_files as good
import numpy as np
import pytest
from builders import make_lyft, save_network
from limits import nobody, public_folder, small_disk
from PIL import Image, ImageFilter

from unet_helpers.__main__ import main
from unet_helpers.datasets import load_dataset
from unet_helpers.download import DownloadError
from unet_helpers.recipe import RULES, check_parameters

ROOT = Path(__file__).parents[1]
HEADING = "## What can be wrong, and what you see then"
GOES_ON = ("note: ", "writing ")  # what begins so is no error


def read_table() -> dict[str, tuple[str, str]]:
    """{case: (what is said, what is left)} of the rows, in their order; what is said is text in backticks."""
    section = (ROOT / "data" / "README.md").read_text(encoding="utf-8").split(HEADING)[1]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    rows = [re.fullmatch(r"\| (.+) \| `(.+)` \| (.+) \|", line).groups() for line in lines]
    assert len({case for case, _, _ in rows}) == len(rows)
    return {case: (said, left) for case, said, left in rows}


# ---- what is run ----


def placed(text: str, root: Path) -> str:
    """ROOT stands for the folder, ABOVE for the one that it lies in."""
    return text.replace("ROOT", str(root)).replace("ABOVE", str(root.parent))


def command(*arguments: str) -> Callable[[Path], int]:
    """python -m unet_helpers."""
    return lambda root: main([placed(argument, root) for argument in arguments])


def load(name="folder", folder="ROOT", archive="", **options) -> Callable[[Path], int]:
    """What the notebook does, where the command has no such option."""

    def run(root: Path) -> int:
        try:
            load_dataset(name, placed(folder, root), archive=placed(archive, root) or None, **options)
        except (ValueError, DownloadError) as error:
            print(error)
            return 1
        return 0

    return run


def parameters(**changed) -> Callable[[Path], int]:
    """What the notebook does before it looks at any data."""
    good_ones = {name: example for name, (_, _, example) in RULES.items()}

    def run(root: Path) -> int:
        try:
            check_parameters(good_ones | changed)
        except ValueError as error:
            print(error)
            return 1
        return 0

    return run


def as_nobody(run: Callable[[Path], int]) -> Callable[[Path], int]:
    """Run by somebody who may write neither beside the folder nor where the program is started."""

    def run_it(root: Path) -> int:
        folders = (root.parent, Path.cwd())
        for folder in folders:
            folder.chmod(0o555)
        try:
            with nobody():
                return run(root)
        finally:
            for folder in folders:
                folder.chmod(0o755)

    return run_it


check = command("check", "ROOT")
KILL_AT_THE_FIFTH = "Image.Image.save = counting(Image.Image.save, 5)"


def killed_and_again(root: Path) -> int:
    code = good.KILLED.format(repository=str(ROOT), root=str(root), patch=KILL_AT_THE_FIFTH)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    lock, left = sorted(path.name for path in root.parent.iterdir() if path != root)
    assert (lock, bool(re.fullmatch(r"data\.prepared\.partial-\d+", left))) == (".data.prepared.lock", True)
    return check(root)


# ---- what is wrong ----


def nothing(root):
    """The six pairs are good."""


def chain(*changes):
    return lambda root: [change(root) for change in changes]


def write(name, content):
    return lambda root: good.save_bytes(content, root.parent / name)


def edit(name):
    return lambda root: good.save(good.make_ids(4), root.parent / name)


def text_in(name):
    return lambda root: (root / name).write_bytes(b"this is text")


def empty(name):
    return lambda root: (root / name).write_bytes(b"")


def device(root):
    (root / "images" / "p2.png").unlink()
    (root / "images" / "p2.png").symlink_to("/dev/null")


def picture_as(save):
    return good.replace("images/p2.png", lambda path: save(good.make_picture(1), path))


def ids_of(name, change):
    return good.replace(name, lambda path: good.save(change(good.make_ids(1)), path.with_suffix(".png")))


def checked_once(root):
    assert check(root) == 0


def stray_in_palettes(root):
    """Of colours whose places in the palette are others than in the list: the places must not be taken for ids."""
    ids = [np.where(good.make_ids(n) == 255, 3, good.make_ids(n)) for n in range(len(good.STEMS))]
    order = [2, 0, 3, 1]  # the id, 3 for void, of each place
    colors = np.vstack([good.COLORS, [[0, 0, 0]]])[order].tolist() + [[1, 2, 3]]
    for number, stem in enumerate(good.STEMS):
        image = Image.fromarray(np.argsort(order)[ids[number]].astype(np.uint8))
        if number == 1:
            image.paste(4, (0, 20, 8, 21))
        image.putpalette(sum(colors, []))
        image.save(root / "masks" / f"{stem}.png")
    good.listed(good.NAMED)(root)


def to_convert(root):
    """The masks as GIF: all six have to be written anew."""
    good.all_masks(good.array(".gif"))(root)


def smoothed_two(root):
    halves = Image.fromarray(np.repeat([[0, 255]], 18, 1).repeat(24, 0).astype(np.uint8))
    for mask in (root / "masks").iterdir():
        halves.filter(ImageFilter.BoxBlur(1)).save(mask)
    (root / "classes.txt").unlink()


def from_1(root):
    """And without the last class, so that nothing tells it."""
    good.all_masks(good.array(".gif", lambda ids: np.where(ids > 1, 255, ids + 1).astype(np.uint8)))(root)


def transparent(root):
    to_convert(root)
    ids = good.make_ids(1)
    (root / "masks" / "p2.gif").unlink()
    good.save(np.dstack([ids, 0 * ids, 0 * ids, np.where(ids > 0, 255, 9)]).astype(np.uint8), root / "masks" / "p2.png")


def two_values(root):
    good.all_masks(good.array(".png", lambda ids: np.where(ids > 0, 255, 0).astype(np.uint8)))(root)
    good.listed("nothing\ncell\n")(root)


def stray_pixels(root):
    good.all_masks(good.array(".png", good.in_colors))(root)
    good.listed(good.NAMED)(root)
    colors = good.in_colors(good.make_ids(1))
    colors[20, :8] = 1, 2, 3
    good.save(colors, root / "masks" / "p2.png")


def unseen_class(root):
    good.save(good.make_ids(5, (3, 3, 3)), root / "masks" / "p6.png")
    good.listed("road\nparked car\nsky\ntram\n")(root)


def masks_among_pictures(root):
    for mask in (root / "masks").iterdir():
        with Image.open(mask) as image:
            image.save(root / "images" / f"{mask.stem}.bmp")
    no_masks(root)


def no_masks(root):
    shutil.rmtree(root / "masks")


def patients(root):
    for number, picture in enumerate(sorted((root / "images").iterdir())):
        folder = root / "images" / f"patient{number // 3 + 1}"
        folder.mkdir(exist_ok=True)
        picture.rename(folder / picture.name)


def renamed(suffix):
    return lambda root: [path.rename(path.with_suffix(suffix)) for path in sorted((root / "images").iterdir())]


def two_folders_of_masks(root):
    (root / "masks").rename(root / "labels")
    shutil.copytree(root / "labels", root / "annotations")


def boxes_only(root):
    content = good.coco(good.STEMS)
    good.annotations(annotations=[one | {"segmentation": []} for one in content["annotations"]])(root)


def outlines_of_training(root):
    """Of a picture of validation, which has the name of another one, they are not there."""
    no_masks(root)
    (root / "images").rename(root / "train")
    (root / "val").mkdir()
    shutil.copy(root / "train" / "p2.png", root / "val")
    content = json.dumps(good.coco(good.STEMS)).replace("some/", "")
    (root / "instances_train.json").write_text(content)


def camvid(root):
    for split in ("train", "val"):
        good.array("_0.png")(good.make_picture(0), root.parent / "camvid" / split / "0001TP")
        good.array("_0_L.png")(good.make_picture(0), root.parent / "camvid" / f"{split}_labels" / "0001TP")


def lyft(root):
    pairs = make_lyft(root.parent, "F4-1", "F4-2", "F2-1", "F1-1")
    good.save(np.full((32, 48), 77, np.uint8), pairs[1].mask)


def network(root):
    save_network(root.parent / "run")


def answered_before(root):
    network(root)
    good.save_bytes(b"of yesterday", Path("out/p1_ids.png"))


# Where all of it lies: (temporary folder) -> context manager that gives the place.


def public(_):
    return public_folder()


def disk_of_half_a_megabyte(path):
    return small_disk(path / "disk", 1 << 19)


def fill(root):
    """The disk, to its last byte."""
    chunk = bytes(4096)
    with contextlib.suppress(OSError), open(root.parent / "else", "wb") as file:
        while True:
            file.write(chunk)
            file.flush()


class Case(NamedTuple):
    spoil: Callable[[Path], object]  # what is done to six good pairs
    run: Callable[[Path], int] = check
    place: Callable[[Path], contextlib.AbstractContextManager[Path]] = contextlib.nullcontext


def refused(*names):
    return [Case(good.REFUSED[name][0]) for name in names]


PREDICT = ("predict", "ABOVE/run", "--out", "out", "ROOT/images/p1.png")
CASES: dict[str, list[Case]] = {
    "no such folder, or a file in its place": [
        Case(nothing, command("check", f"ROOT/{path}")) for path in ("none", "classes.txt", "classes.txt/data")
    ],
    "neither `images/` nor `train/`": refused("no folders"),
    "no `masks/`": [Case(lambda root: (root / "masks").rename(root / "truth"))],
    "an image without a mask": refused("picture without a mask"),
    "a mask without an image": refused("mask without a picture"),
    "several masks for an image": [Case(lambda root: good.save(good.make_ids(1), root / "masks" / "p2_car.png"))],
    "masks among the images, with their stems": [Case(masks_among_pictures)],
    "images in folders within `images/`": [Case(patients)],
    "only HEIC or DICOM": [Case(renamed(".heic"))],
    "two folders that may be the masks": [Case(two_folders_of_masks)],
    "two files of one stem": [
        *refused("two pictures of a stem"), Case(lambda root: good.save(good.make_ids(1), root / "masks" / "p2.jpg")),
    ],
    "fewer than four pairs": refused("three pairs"),
    "a damaged or empty file, or text called `.png`": [
        *refused("mask is half a file", "picture without its last lines", "picture damaged in the middle"),
        Case(text_in("images/p2.png")), Case(text_in("masks/p2.png")), Case(empty("images/p2.png")),
        Case(empty("masks/p2.png")),
    ],
    "a pipe or a device, or a link to one, in the place of a file": [Case(device)],
    "a TIFF of five channels": refused("picture of more channels"),
    "an animation as an image": [Case(picture_as(good.in_picture_palette(".gif", save_all=True)))],
    "an image that EXIF turns upside down": [Case(picture_as(good.turned(3, ".png")))],
    "a mask of another size": refused("mask has another size"),
    "a JPEG as a mask": refused("mask is a JPEG"),
    "an animated mask": refused("mask is animated"),
    "colours, but no list": refused("masks of colours without a list", "masks of colours in palettes of their own"),
    "a colour that the list lacks": [
        *refused("mask with a colour that is not listed"),
        Case(chain(good.all_masks(good.quantized(".png")), good.listed(good.NAMED.replace("0,0,142", "0,0,143")))),
    ],
    "a few pixels of such a colour": [Case(stray_pixels), Case(stray_in_palettes)],
    "an id that the list lacks": refused("mask with an unknown id"),
    "masks that were resized with interpolation": refused("masks smoothed"),
    "nothing labelled, or all void": [
        *refused("nothing labelled"), Case(good.all_masks(good.array(".png", lambda ids: ids * 0 + 255))),
    ],
    "0 and 255 in all masks, but three names": refused("0 and 255, but three names"),
    "0 and 255 in most masks, but 1 in another": [
        Case(chain(two_values, ids_of("masks/p2.png", lambda ids: (ids > 0).astype(np.uint8))))
    ],
    "masks of 0 and 255 that were resized with interpolation, or a JPEG once": [Case(smoothed_two)],
    "ids that may begin with 1": [Case(chain(from_1, good.listed("road\nparked car\nsky\ntram\n")))],
    "a list under another name, and no `classes.txt`": [
        Case(chain(to_convert, lambda root: (root / "classes.txt").rename(root / "class_names.txt")))
    ],
    "a colour in `classes.txt` that is not clear": [
        Case(good.listed(good.NAMED.replace("road 128,64,128", "road 128,64,128,255")))
    ],
    "numbers in `classes.txt` that may be ids or parts of the names": [
        Case(good.listed("9 road\n2 way street\n1 track\n"))
    ],
    "a control character in it, or an end of line within a name": [Case(good.listed("road\nparked\fcar\nsky\n"))],
    "masks that are partly transparent": [Case(transparent)],
    "a name twice in `classes.txt`": refused("a name twice"),
    "an empty line in it": refused("an empty line"),
    "a class without a pixel": [Case(good.listed("road\nparked car\nsky\ntram\n"))],
    "a class that only other splits have": [Case(unseen_class)],
    "COCO with run lengths (RLE, `iscrowd`)": refused("COCO with run lengths"),
    "COCO with boxes only": [Case(boxes_only)],
    "JSON of another tool, and no masks": [Case(chain(no_masks, write("data/via.json", b'{"_via_settings": {}}')))],
    "COCO of another split's images": [Case(outlines_of_training)],
    "LabelMe with points or lines": [Case(good.one_shape(shape_type=kind)) for kind in ("point", "line", "linestrip")],
    "JSON that is cut off": refused("outlines cut off"),
    "a list with a name that no image has": refused("a list of an unknown name"),
    "a name in two lists": refused("a name in two lists"),
    "`train.txt` without `val.txt`": [Case(good.split_lists(train="p1\np2\np3\np4\n"))],
    "nothing to validate": refused("an empty list"),
    "`SPLIT_BY` (`--split-by`) finds nothing in a name": [Case(nothing, load(split_by="film"))],
    "`SPLIT_BY` is no pattern": [Case(nothing, parameters(DATASET="folder", SPLIT_BY="("))],
    "a file goes bad after a good run": [Case(chain(checked_once, text_in("images/p2.png")))],
    "files were changed since the last run": [
        Case(chain(to_convert, checked_once, edit("data/masks/p2.gif")))
    ],
    "your own files in `data.prepared/`": [Case(chain(to_convert, write("data.prepared/mine.txt", b"of a week")))],
    "your own files there, and files were changed since the last run": [
        Case(chain(to_convert, checked_once, write("data.prepared/mine.txt", b"of a week"), edit("data/masks/p2.gif")))
    ],
    "a copy there that you changed": [Case(chain(to_convert, checked_once, edit("data.prepared/masks/p2.png")))],
    "the disk is full": [Case(chain(to_convert, fill), place=disk_of_half_a_megabyte)],
    "no place where one may write": [Case(to_convert, as_nobody(check), public)],
    "killed while it prepares": [Case(to_convert, killed_and_again)],
    "`demo`, where one may not write": [
        Case(nothing, as_nobody(command("check", "ABOVE", "--dataset", "demo")), public)
    ],
    "`camvid` of Kaggle without its list": [Case(camvid, command("check", "ABOVE", "--dataset", "camvid"))],
    "`lyft` with a bad file": [Case(lyft, command("check", "ABOVE", "--dataset", "lyft"))],
    "`ARCHIVE` is no zip": [Case(write("a.zip", b"half"), load("lyft", "ABOVE", archive="ABOVE/a.zip"))],
    "`predict`: no such image": [Case(network, command(*PREDICT, "none.png"))],
    "`predict`: a file that is no image": [Case(network, command(*PREDICT, "ROOT/classes.txt"))],
    "`predict`: its file is there already": [Case(answered_before, command(*PREDICT))],
}  # fmt: skip


# ---- what is left ----


def is_whole(folder: Path) -> bool:
    pairs = json.loads((folder / "prepared.json").read_text())["pairs"]
    written = {name for *names, _ in pairs for name in names if name}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return len(pairs) == 6 and there == written | {"prepared.json"}


NEW = {  # what is left: which folders and files are new, and what is changed besides
    "nothing new": ([], None),
    "`data.prepared/`, whole": (["mine/data.prepared"], None),
    "`data.prepared/` of before": ([], None),
    "`data.prepared/`, anew": ([], "mine/data.prepared"),
    "`data.prepared.partial-NUMBER/`; the next run deletes it": (["mine/data.prepared"], None),
    "the masks of the other images": (["cwd/out"], None),
}


def assert_left(left: str, before: dict, after: dict, place: Path) -> None:
    """Nothing that was there is another one now, but what the row names, and what is new is what it names."""
    new, changed = NEW[left]
    assert [name for name in after.keys() - before.keys() if str(Path(name).parent) in before] == new
    for name, (time, content) in before.items():
        is_mine, is_file = Path(name).is_relative_to("mine/data"), content is not False
        if is_mine or (is_file and not (changed and Path(name).is_relative_to(changed))):
            assert after.get(name) == (time, content), name
    prepared = place / "mine" / "data.prepared"
    if "prepared" in left:
        assert is_whole(prepared)
        assert changed is None or after[f"{changed}/prepared.json"] != before[f"{changed}/prepared.json"]
    if "masks" in left:
        assert {path.name for path in (place / "cwd" / "out").iterdir()} == {
            f"p1_{what}.png" for what in ("ids", "colors", "overlay")
        }


def in_one_line(output: str) -> str:
    """Without the line breaks of `check`'s table, which calls a note a warning."""
    return re.sub(r"^warning +", "note: ", re.sub(r"\n  +", " ", output), flags=re.MULTILINE)


def assert_said(parts: list[str], said: str) -> None:
    """The parts of a row occur in what was said, one after another."""
    place = 0
    for part in parts:
        assert part in said[place:], f"{part!r} is not in {said!r}"
        place = said.index(part, place) + len(part)


TABLE = read_table()


def test_each_row_is_a_case_and_each_case_a_row():
    assert list(TABLE) == list(CASES)
    assert {left for _, left in TABLE.values()} == NEW.keys()


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory):
    """Nobody may read all that root imports, so it is imported before."""
    assert check(good.write_folder(tmp_path_factory.mktemp("first") / "data", good.array(".gif"))) == 0


@pytest.mark.parametrize(("row", "number"), [(row, n) for row, cases in CASES.items() for n in range(len(cases))])
def test_a_row_is_true(tmp_path, capsys, row, number):
    said, left = TABLE[row]
    case = CASES[row][number]
    with case.place(tmp_path) as place, contextlib.chdir(place):
        (place / "cwd").mkdir()
        (place / "mine").mkdir()
        with contextlib.chdir(place / "cwd"):
            root = good.write_folder(place / "mine" / "data")
            case.spoil(root)
            before = good.look_at(place)
            capsys.readouterr()
            code = case.run(root)
            output = in_one_line("".join(capsys.readouterr()))
        assert_said(said.removeprefix("... ").removesuffix(" ...").split(" ... "), output)
        assert code == (0 if said.startswith(GOES_ON) else 1)
        assert_left(left, before, good.look_at(place), place)
