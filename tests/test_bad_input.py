"""The table of data/README.md: each row is made real, and its message and what is left on disk are checked."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import data_files as good
import numpy as np
import pytest
from builders import make_lyft, save_network
from limits import needs_links, needs_sigkill, needs_users, nobody, public_folder, small_disk
from PIL import Image

from unet_helpers.__main__ import main
from unet_helpers.datasets import load_dataset
from unet_helpers.download import DownloadError
from unet_helpers.recipe import RULES, check_parameters

ROOT = Path(__file__).parents[1]


def read_table() -> dict[str, tuple[str, str]]:
    """{case: (what is said, what is left)} of the rows, in their order; what is said is text in backticks."""
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    section = text.split("## What can be wrong, and what you see then")[1]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    rows = [re.fullmatch(r"\| (.+) \| `(.+)` \| (.+) \|", line).groups() for line in lines]
    assert len({case for case, _, _ in rows}) == len(rows)
    return {case: (said, left) for case, said, left in rows}


# ---- what is run: (folder) -> exit code ----


def command(*arguments):
    """python -m unet_helpers; ROOT stands for the folder, ABOVE for the one that it lies in."""
    return lambda root: main([a.replace("ROOT", str(root)).replace("ABOVE", str(root.parent)) for a in arguments])


def notebook(call):
    """The notebook's call, where the command has no such option."""

    def run(root):
        try:
            call(root)
        except (ValueError, DownloadError) as error:
            print(error)
            return 1
        return 0

    return run


def as_nobody(run):
    """Run by a user who may write neither beside the folder nor in the working folder."""

    def run_it(root):
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


def killed_and_again(root):
    """Killed after the fifth file, then run again."""
    patch = "Image.Image.save = counting(Image.Image.save, 5)"
    code = good.KILLED.format(repository=str(ROOT), root=str(root), patch=patch)
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
    lock, left = sorted(path.name for path in root.parent.iterdir() if path != root)
    assert (lock, bool(re.fullmatch(r"data\.prepared\.partial-\d+", left))) == (".data.prepared.lock", True)
    return check(root)


BAD_PATTERN = {name: example for name, (_, _, example) in RULES.items()} | {"DATASET": "folder", "SPLIT_BY": "("}
PREDICT = ("predict", "ABOVE/run", "--out", "out", "ROOT/images/p1.png")
RUNS = {  # all else is `check`
    "`SPLIT_BY` (`--split-by`) finds nothing in a name": notebook(lambda r: load_dataset("folder", r, split_by="trip")),
    "`SPLIT_BY` is no pattern": notebook(lambda _: check_parameters(BAD_PATTERN)),
    "no place where one may write": as_nobody(check),
    "killed while it prepares": killed_and_again,
    "`demo`, where one may not write": as_nobody(command("check", "ABOVE", "--dataset", "demo")),
    "`camvid` of Kaggle without its list": command("check", "ABOVE", "--dataset", "camvid"),
    "`lyft` with a bad file": command("check", "ABOVE", "--dataset", "lyft"),
    "`ARCHIVE` is no zip": notebook(lambda r: load_dataset("lyft", r.parent, archive=str(r.parent / "a.zip"))),
    "`predict`: no such image": command(*PREDICT, "none.png"),
    "`predict`: a file that is no image": command(*PREDICT, "ROOT/classes.txt"),
    "`predict`: its file is there already": command(*PREDICT),
}
PLACES = {  # where all of it lies: (temporary folder) -> context manager that gives the place
    "the disk is full": lambda path: small_disk(path / "disk", 1 << 19),
    "no place where one may write": lambda path: public_folder(),
    "`demo`, where one may not write": lambda path: public_folder(),
}


# ---- what is wrong: what is done to six good pairs ----


def write(name, content):
    return lambda root: good.save_bytes(content, root.parent / name)


def write_mask(name, number=1):
    return lambda root: good.save(good.make_ids(number), root.parent / name)


def rename(old, new):
    def change(root):
        (root / new).parent.mkdir(exist_ok=True)
        (root / old).rename(root / new)

    return change


def truncate(name):
    """Without its last lines: the end of its pixels."""
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-400])


def checked_once(root):
    assert check(root) == 0


def no_masks(root):
    shutil.rmtree(root / "masks")


def device(root):
    (root / "images" / "p2.png").unlink()
    (root / "images" / "p2.png").symlink_to("/dev/null")


def damaged_in_the_middle(root):
    content = (root / "images" / "p2.png").read_bytes()
    start = content.index(b"IDAT") + 300
    (root / "images" / "p2.png").write_bytes(content[:start] + b"\xff" * 50 + content[start + 50 :])


def back_and_front(ids):
    return np.where(ids > 0, 255, 0).astype(np.uint8)


def interpolated(ids):
    large = Image.fromarray(ids).resize((360, 240), Image.Resampling.BILINEAR)
    return np.asarray(large.resize(good.SIZE[::-1]))


def from_1(ids):
    """Without the last class, so that nothing tells it."""
    return np.where(ids > 1, 255, ids + 1).astype(np.uint8)


def transparent(ids):
    return np.dstack([ids, 0 * ids, 0 * ids, np.where(ids > 0, 255, 9)]).astype(np.uint8)


def stray_pixels(ids):
    colors = good.in_colors(ids)
    colors[20, :8] = 1, 2, 3
    return colors


def camvid(root):
    for split in ("train", "val"):
        good.array("_0.png")(good.make_image(0), root.parent / "camvid" / split / "0001TP")
        good.array("_0_L.png")(good.make_image(0), root.parent / "camvid" / f"{split}_labels" / "0001TP")


def lyft(root):
    pairs = make_lyft(root.parent, "F4-1", "F4-2", "F2-1", "F1-1")
    good.save(np.full((32, 48), 77, np.uint8), pairs[1].mask)


def network(root):
    save_network(root.parent / "run")


def fill(root):
    """The disk, to its last byte."""
    chunk = bytes(4096)
    with contextlib.suppress(OSError), open(root.parent / "else", "wb") as file:
        while True:
            file.write(chunk)
            file.flush()


chain, listed, masks_like = good.chain_of, good.listed, good.masks_like
to_convert = good.all_masks(good.array(".gif"))  # all six have to be written anew
TRAM = listed("road\nparked car\nsky\ntram\n")
CHANGED_COLOR = good.NAMED.replace("0,0,142", "0,0,143")
RLE = {"id": 5, "image_id": 0, "category_id": 7, "iscrowd": 1, "segmentation": {"counts": "a0", "size": [24, 36]}}
BOXES = [one | {"segmentation": []} for one in good.coco(good.STEMS)["annotations"]]
COCO = json.dumps(good.coco(good.STEMS)).encode()
TRAIN = "p1\np2\np3\np4\n"
OF_A_WEEK = write("data.prepared/mine.txt", b"of a week")
CASES = {
    "no such folder, or a file in its place": [shutil.rmtree, chain(shutil.rmtree, write("data", b""))],
    "neither `images/` nor `train/`": [rename("images", "photos")],
    "no `masks/`": [rename("masks", "truth")],
    "an image without a mask": [good.unlink("masks/p2.png")],
    "a mask without an image": [good.unlink("images/p2.png")],
    "several masks for an image": [write_mask("data/masks/p2_car.png")],
    "masks among the images, with their stems": [
        chain(*[rename(f"masks/{stem}.png", f"images/{stem}.bmp") for stem in good.STEMS], no_masks)
    ],
    "images in folders within `images/`": [
        chain(*[rename(f"images/p{n}.png", f"images/patient{1 + n // 4}/p{n}.png") for n in range(1, 7)])
    ],
    "only HEIC or DICOM": [chain(*[rename(f"images/{s}.png", f"images/{s}.heic") for s in good.STEMS])],
    "two folders that may be the masks": [
        chain(rename("masks", "labels"), lambda root: shutil.copytree(root / "labels", root / "annotations"))
    ],
    "two files of one stem": [write_mask("data/images/p2.jpg"), write_mask("data/masks/p2.jpg")],
    "fewer than four pairs": [good.unlink(*[f"{kind}/p{n}.png" for kind in ("images", "masks") for n in (1, 3, 4)])],
    "a damaged or empty file, or text called `.png`": [
        good.half_a_file("masks/p2.png"), truncate("images/p2.png"), damaged_in_the_middle,
        write("data/images/p2.png", b"this is text"), write("data/masks/p2.png", b""),
    ],
    "a pipe or a device, or a link to one, in the place of a file": [device],
    "an animation as an image": [good.replace("images/p2.png", good.in_palette(".gif", save_all=True))],
    "an image that EXIF turns upside down": [good.replace("images/p2.png", good.turned(3))],
    "a mask of another size": [good.mask_of(lambda ids: ids[:, :-1])],
    "a JPEG as a mask": [good.mask_of(np.asarray, ".jpg", quality=100)],
    "an animated mask": [good.mask_of(np.asarray, ".gif", save_all=True, append_images=[Image.new("L", (36, 24))])],
    "colours, but no list": [masks_like(good.in_colors), good.all_masks(good.quantized(".png"))],
    "a colour that the list lacks": [masks_like(good.in_colors, CHANGED_COLOR)],
    "a few pixels of such a colour": [chain(masks_like(good.in_colors, good.NAMED), good.mask_of(stray_pixels))],
    "an id that the list lacks": [good.mask_of(lambda _: good.make_ids(1, (0, 1, 9, 4)))],
    "masks that were resized with interpolation": [masks_like(lambda ids: interpolated(ids * np.uint8(100)))],
    "nothing labelled, or all void": [masks_like(lambda ids: ids * 0), masks_like(lambda ids: ids * 0 + 255)],
    "0 and 255 in all masks, but three names": [masks_like(back_and_front)],
    "0 and 255 in most masks, but 1 in another": [
        chain(masks_like(back_and_front, "nothing\ncell\n"), good.mask_of(lambda ids: (ids > 0).astype(np.uint8)))
    ],
    "masks of 0 and 255 that were resized with interpolation, or a JPEG once": [
        chain(masks_like(lambda _: interpolated(back_and_front(good.make_ids(0)))), good.unlink("classes.txt"))
    ],
    "ids that may begin with 1": [chain(masks_like(from_1), TRAM)],
    "a colour in `classes.txt` that is not clear": [listed(good.NAMED.replace("128,64,128", "128,64,128,255"))],
    "numbers in `classes.txt` that may be ids or parts of the names": [listed("9 road\n2 way street\n1 track\n")],
    "a control character in it, or an end of line within a name": [listed("road\nparked\fcar\nsky\n")],
    "masks that are partly transparent": [good.mask_of(transparent)],
    "a name twice in `classes.txt`": [listed("road\nsky\nroad\n")],
    "an empty line in it": [listed("road\n\nsky\n")],
    "a class without a pixel": [TRAM],
    "a class that only other splits have": [
        chain(good.replace("masks/p6.png", lambda _, p: good.array(".png")(good.make_ids(5, (3, 3, 3)), p)), TRAM)
    ],
    "COCO with run lengths (RLE, `iscrowd`)": [good.coco_file(annotations=[RLE])],
    "COCO with boxes only": [good.coco_file(annotations=BOXES)],
    "JSON of another tool, and no masks": [chain(no_masks, write("data/via.json", b'{"_via_settings": {}}'))],
    "COCO of images whose names two splits have": [
        chain(
            no_masks, rename("images", "train"), write("data/annotations.json", COCO),
            lambda root: good.save(good.make_image(1), root / "val" / "p2.png"),
        )
    ],
    "LabelMe with points or lines": [good.one_shape(shape_type="linestrip")],
    "JSON that is cut off": [chain(good.outlines(), good.half_a_file("masks/p1.json"))],
    "a list with a name that no image has": [good.split_lists(train=TRAIN, val="p5\np7\n")],
    "a name in two lists": [good.split_lists(train=TRAIN, val="p5\np4\n")],
    "`train.txt` without `val.txt`": [good.split_lists(train=TRAIN)],
    "nothing to validate": [good.split_lists(train="p1\np2\n", val="\n")],
    "`SPLIT_BY` (`--split-by`) finds nothing in a name": [chain()],
    "`SPLIT_BY` is no pattern": [chain()],
    "a file goes bad after a good run": [chain(checked_once, write("data/images/p2.png", b"this is text"))],
    "files were changed since the last run": [chain(to_convert, checked_once, write_mask("data/masks/p2.gif", 4))],
    "your own files in `data.prepared/`": [
        chain(to_convert, OF_A_WEEK), chain(to_convert, checked_once, OF_A_WEEK, write_mask("data/masks/p2.gif", 4)),
    ],
    "a copy there that you changed": [chain(to_convert, checked_once, write_mask("data.prepared/masks/p2.png", 4))],
    "the disk is full": [chain(to_convert, fill)],
    "no place where one may write": [to_convert],
    "killed while it prepares": [to_convert],
    "`demo`, where one may not write": [chain()],
    "`camvid` of Kaggle without its list": [camvid],
    "`lyft` with a bad file": [lyft],
    "`ARCHIVE` is no zip": [write("a.zip", b"half")],
    "`predict`: no such image": [network],
    "`predict`: a file that is no image": [network],
    "`predict`: its file is there already": [chain(network, write("../cwd/out/p1_ids.png", b"of yesterday"))],
}  # fmt: skip


# ---- what is left ----

NEW = {  # what is left: which folders and files are new, and what is changed besides
    "nothing new": ([], None),
    "`data.prepared/`, whole": (["mine/data.prepared"], None),
    "`data.prepared/` of before": ([], None),
    "`data.prepared/`, anew": ([], "mine/data.prepared"),
    "`data.prepared.partial-NUMBER/`; the next run deletes it": (["mine/data.prepared"], None),
    "the masks of the other images": (["cwd/out"], None),
    "an empty `data/`": (["cwd/data"], None),
}


def assert_whole(folder: Path) -> None:
    pairs = json.loads((folder / "prepared.json").read_text())["pairs"]
    written = {name for *names, _ in pairs for name in names if name}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert len(pairs) == 6
    assert there == written | {"prepared.json"}


def assert_left(left: str, before: dict, after: dict, place: Path) -> None:
    """Only what the row names has changed or is new."""
    new, changed = NEW[left]
    assert [name for name in after.keys() - before.keys() if str(Path(name).parent) in before] == new
    for name, (time, content) in before.items():
        is_mine, is_file = Path(name).is_relative_to("mine/data"), content is not False
        if is_mine or (is_file and not (changed and Path(name).is_relative_to(changed))):
            assert after.get(name) == (time, content), name
    if "prepared" in left:
        assert_whole(place / "mine" / "data.prepared")
        assert changed is None or after[f"{changed}/prepared.json"] != before[f"{changed}/prepared.json"]
    if "masks" in left:
        written = {path.name for path in (place / "cwd" / "out").iterdir()}
        assert written == {"classes.txt", "legend.png", *(f"p1_{what}.png" for what in ("ids", "colors", "overlay"))}


def assert_said(said: str, output: str) -> None:
    """The parts of a row occur one after another in the output; line breaks do not count, and `check` says warning."""
    output = " ".join(re.sub(r"^warning ", "note: ", output, flags=re.MULTILINE).split())
    parts = said.removeprefix("... ").removesuffix(" ...").split(" ... ")
    assert re.search(".*?".join(map(re.escape, parts)), output), output


TABLE = read_table()


def test_each_row_is_a_case_and_each_case_a_row():
    assert list(TABLE) == list(CASES)
    assert {left for _, left in TABLE.values()} == NEW.keys()
    assert RUNS.keys() | PLACES.keys() | NEEDS.keys() < CASES.keys()


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory):
    """The user nobody may not read all that root imports, so it is imported before."""
    assert check(good.write_folder(tmp_path_factory.mktemp("first") / "data", good.array(".gif"))) == 0


NEEDS = {
    "a pipe or a device, or a link to one, in the place of a file": needs_links,
    "no place where one may write": needs_users,
    "killed while it prepares": needs_sigkill,
    "`demo`, where one may not write": needs_users,
}  # what Windows lacks


@pytest.mark.parametrize(
    ("row", "number"),
    [pytest.param(row, n, marks=NEEDS.get(row, ())) for row, cases in CASES.items() for n in range(len(cases))],
)
def test_a_row_is_true(tmp_path, capsys, row, number):
    said, left = TABLE[row]
    with PLACES.get(row, contextlib.nullcontext)(tmp_path) as place, contextlib.chdir(place):
        (place / "cwd").mkdir()
        (place / "mine").mkdir()
        with contextlib.chdir(place / "cwd"):
            root = good.write_folder(place / "mine" / "data")
            CASES[row][number](root)
            before = good.look_at(place)
            capsys.readouterr()
            code = RUNS.get(row, check)(root)
        assert_said(said, "".join(capsys.readouterr()))
        assert code == (0 if said.startswith(("note: ", "converting ")) else 1)
        assert_left(left, before, good.look_at(place), place)
