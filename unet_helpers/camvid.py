"""Kaggle's CamVid: its masks are colours of 32 classes; written once as ids of the 11 classes that papers score."""

import csv
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from .labels import CAMVID, VOID

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


def write_id_masks(root: Path, folder: Path) -> Path:
    """Write folder/SPLIT/NAME.png, ids 0..10 and 255, for each root/SPLIT_labels/NAME_L.png; whole or not at all.

    root is not changed: in a Kaggle notebook nobody can. What is there already is used if it has the same names.
    Raises ValueError, naming the file or folder, if it has others, a mask is damaged or its colours are not listed.
    """
    names = {
        (split, path.stem.removesuffix("_L")): path
        for split in ("train", "val", "test")
        for path in sorted((root / f"{split}_labels").glob("*.png"))
    }
    if {(path.parent.name, path.stem) for path in folder.glob("*/*.png")} == names.keys():
        return folder
    if folder.exists():  # not ours to delete: it may hold somebody's work
        raise ValueError(f"{folder}: its files are not the masks of {root}; move it away or delete it and run again")
    tables = [path for path in (root / "class_dict.csv", root.parent / "class_dict.csv") if path.is_file()]
    if not tables:
        raise ValueError(f"{root / 'class_dict.csv'}: not found; it tells the masks' colours, get it again")
    print(f"{folder.name}: writing {len(names)} masks with class ids, once")
    table, partial = read_colors(tables[0]), folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for split, _ in names:
            (partial / split).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda key: _write(names[key], partial / key[0] / f"{key[1]}.png", table), names))
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


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
