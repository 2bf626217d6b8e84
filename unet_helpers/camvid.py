"""Kaggle's CamVid: its masks are colours of 32 classes; written once as ids of the 11 classes that papers score."""

import csv
import hashlib
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from .labels import CAMVID, VOID
from .locking import hold_lock, remove_partial_folders

# Which of the 32 classes make one of the 11, as SegNet's authors grouped them; what is not here is void.
GROUPS = {
    "sky": ("Sky",),
    "building": ("Archway", "Bridge", "Building", "Tunnel", "Wall"),
    "pole": ("Column_Pole", "TrafficCone"),
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "pavement": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "tree": ("Tree", "VegetationMisc"),
    "sign": ("SignSymbol", "Misc_Text", "TrafficLight"),
    "fence": ("Fence",),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "Train", "OtherMoving"),
    "pedestrian": ("Pedestrian", "Child", "CartLuggagePram", "Animal"),
    "bicyclist": ("Bicyclist", "MotorcycleScooter"),
}
ID_OF = {name.lower(): CAMVID.names.index(group) for group, names in GROUPS.items() for name in names}
ORIGIN = "made_of.txt"  # beside the written masks: a note that tells what they were made of
UNLISTED = 254  # for a moment: the colour is not in class_dict.csv
MAX_UNLISTED = 0.01  # share of a mask's pixels; a few are noise and become void, more are another kind of file


def read_colors(path: Path) -> np.ndarray:
    """class_dict.csv -> (2**24,) uint8: colour 65536 r + 256 g + b -> id 0..10, VOID or UNLISTED.

    Raises ValueError, naming the file, if it lacks a column or one of the grouped classes.
    """
    with open(path, encoding="utf-8-sig", newline="") as lines:
        rows = [[cell.strip().lower() for cell in row] for row in csv.reader(lines) if any(map(str.strip, row))]
    try:
        name, *channels = (rows[0].index(column) for column in ("name", "r", "g", "b"))
        colors = {row[name]: [int(row[channel]) for channel in channels] for row in rows[1:]}
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path}: expected the columns name, r, g, b with numbers ({error}); get it again") from None
    missing = sorted(ID_OF.keys() - colors.keys())
    if missing:
        raise ValueError(f"{path}: the class {missing[0]!r} is not listed ({len(missing)} are missing); get it again")
    table = np.full(1 << 24, UNLISTED, np.uint8)
    for class_name, (r, g, b) in colors.items():
        table[r << 16 | g << 8 | b] = ID_OF.get(class_name, VOID)
    return table


def write_id_masks(root: Path, *folders: Path) -> Path:
    """Write folder/SPLIT/NAME.png, ids 0..10 and 255, for each root/SPLIT_labels/NAME_L.png; whole or not at all.

    folders: the first one where one may write is taken, and returned. root is not changed: in a Kaggle notebook nobody
        can. What was written there for the same masks is used again.
    Raises ValueError, naming the file or folder, if the folder holds anything else, none can be written, a mask is
    damaged or its colours are not listed.
    """
    names = {
        (split, path.stem.removesuffix("_L")): path
        for split in ("train", "val", "test")
        for path in sorted((root / f"{split}_labels").glob("*.png"))
    }
    tables = [path for path in (root / "class_dict.csv", root.parent / "class_dict.csv") if path.is_file()]
    origin = _origin(names, tables)
    unwritable = []
    for folder in dict.fromkeys(folders):
        if _is_made_of(folder, root, names, origin):
            return folder
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
        busy = f"another process is writing to {folder}: waiting for it"
        with hold_lock(folder, lambda busy=busy: print(busy, flush=True)) as alone:
            if alone:
                remove_partial_folders(folder)
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
            except OSError as error:
                unwritable.append(f"{folder} ({error.strerror})")
                continue
            try:
                if not _is_made_of(folder, root, names, origin):  # by the process that was waited for
                    _write_whole(root, names, tables, origin, partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return folder
    raise ValueError(
        f"{root}: its masks with class ids can't be written to {' or to '.join(unwritable)}; make one of these "
        "writable, or copy the data to a folder of your own, set DATA_DIR to it and run again"
    )


def _write_whole(root: Path, names: dict, tables: list[Path], origin: str, partial: Path, folder: Path) -> None:
    """All masks, to the folder `partial`, which then becomes `folder`."""
    if folder.exists():  # not ours to delete: it may hold somebody's work
        raise ValueError(f"{folder}: its files are not the masks of {root}; move it away or delete it and run again")
    if not tables:
        raise ValueError(f"{root / 'class_dict.csv'}: not found; it tells the masks' colours, get it again")
    print(f"{folder}: writing {len(names)} masks with class ids, once")
    table = read_colors(tables[0])
    try:
        _write_all(names, table, partial)
        (partial / ORIGIN).write_text(origin, encoding="utf-8")
        os.replace(partial, folder)
    except OSError as error:
        raise ValueError(
            f"{folder}: its {len(names)} masks with class ids can't be written ({error.strerror or error}); make room, "
            "or copy the data to a folder on another disk, set DATA_DIR to it and run again"
        ) from None


def _origin(names: dict[tuple[str, str], Path], tables: list[Path]) -> str:
    """Tells the masks of one data set from those of another with the same names, without reading them all."""
    try:
        digest = hashlib.sha256(tables[0].read_bytes() if tables else b"")
        for (split, name), path in sorted(names.items()):
            digest.update(f"{split}/{name} {path.stat().st_size}\n".encode())
    except OSError as error:
        what = f"{error.filename}: can't be read ({error.strerror})"
        raise ValueError(f"{what}; make it readable or get it again") from None
    return digest.hexdigest()


def _is_made_of(folder: Path, root: Path, names: dict[tuple[str, str], Path], origin: str) -> bool:
    if {(path.parent.name, path.stem) for path in folder.glob("*/*.png")} != names.keys():
        return False
    if (folder / ORIGIN).is_file():
        return (folder / ORIGIN).read_text(encoding="utf-8") == origin
    # Written before there were notes: its place tells whose it is.
    return folder.parent.resolve() in (root.resolve(), *root.resolve().parents)


def _write_all(names: dict[tuple[str, str], Path], table: np.ndarray, folder: Path) -> None:
    for split in {split for split, _ in names}:
        (folder / split).mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda key: _write(names[key], folder / key[0] / f"{key[1]}.png", table), names))


def _write(source: Path, target: Path, table: np.ndarray) -> None:
    try:
        with Image.open(source) as image:
            r, g, b = np.moveaxis(np.asarray(image.convert("RGB"), np.uint32), 2, 0)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more for damaged files
        raise ValueError(f"{source}: can't be read as a picture ({error}); get it again") from error
    ids = table[r << 16 | g << 8 | b]
    unlisted = ids == UNLISTED
    if unlisted.mean() > MAX_UNLISTED:
        y, x = np.argwhere(unlisted)[0]
        raise ValueError(
            f"{source}: {unlisted.mean():.0%} of it has colours that class_dict.csv does not list, such as "
            f"{r[y, x]},{g[y, x]},{b[y, x]}; is it the mask?"
        )
    Image.fromarray(np.where(unlisted, np.uint8(VOID), ids)).save(target)
