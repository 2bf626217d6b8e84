"""The data sets that the tutorial knows: where their pairs of files are, their labels, their splits, and the check."""

import contextlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from . import custom_data, drawing
from .download import check_whole, download_dataset, find_layout
from .images import InvalidFile, decode_mask, examine_image, naming_file, read_channels, read_orientation
from .labels import CAMVID, CARLA, DATASETS, LabelMap, Pair, class_pixels
from .naming import counted, named
from .storage import find_changes, write_whole

SLUGS = {"lyft": "kumaresanmanickavelu/lyft-udacity-challenge", "camvid": "carlolepelaars/camvid"}  # on Kaggle
RARE = 1e-4  # share of all pixels: a class with less is worth a look
DATA_DIR = "data"  # made where it does not exist; any other folder has to be there, for it may be misspelt

# Each of the Kaggle set's folders holds frames of every drive, so the split is by drive; look-alikes stay together.
DRIVE = re.compile(r"\d\d_\d\d(?=_)|F\d+(?=-)")  # in a frame's name: 02_00 in 02_00_017, F61 in F61-1
TEST_DRIVES = {"F1", "F3", "F62", "F63", "F64", "F69", "F8"}
VALIDATION_DRIVES = {"09_00", "F2", "F6", "F66", "F68", "F70"}


@dataclass(frozen=True)
class Dataset:
    """Pairs of files in three disjoint lists, and what their class ids mean."""

    name: str
    labels: LabelMap
    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]  # may be empty
    # What `custom_data` found in "folder" and in Kaggle's "camvid"; None for the others.
    report: custom_data.Report | None = field(default=None, compare=False, repr=False)
    bits: int | None = None  # in use, 8..16, of its 16-bit images, of which the highest 8 are read; None without any

    @property
    def held_out(self) -> tuple[str, tuple[Pair, ...]]:
        """("test", its pairs), or ("validation", ...) where there is no test split: what scores are given on."""
        return ("test", self.test) if self.test else ("validation", self.validation)


def load_dataset(
    name: str, data_dir: str | Path = DATA_DIR, *, seed: int = 0, frames_per_drive: int = 20,
    archive: str | Path | None = None, split_by: str | None = None, skip_bad: bool = False, bits: int | None = None,
    to_train: bool = True,
) -> Dataset:  # fmt: skip
    """Find a data set's pairs in data_dir/name, or in data_dir itself, and split them.
    name: "demo" (drawn on first use: frames_per_drive frames for each of the 32 drives, from seed), "lyft" (Kaggle's
        Lyft/Udacity set) or "camvid" (SegNet's layout or Kaggle's), which are downloaded to data_dir/name where they
        are not there, or "folder" (your own; see data/README.md).
    archive: the data set's zip that you downloaded with a browser: unpacked to data_dir/name in place of a download.
    split_by: "folder" only: regular expression for the group (drive, patient, sequence) in an image's name.
    skip_bad: leave out pairs with invalid files, as far as `custom_data` can; problems and notes are in the report.
    bits: "folder" only: read 16-bit images as a network was trained with them, `Network.bits`; None: as they need it.
    to_train: "folder" only: False for pairs that are only scored, of any number, even of a test part alone.
    Raises ValueError, naming the folder or file, and DownloadError if a download fails or files of one are gone."""
    if name not in DATASETS:
        raise ValueError(f"{named('DATASET')}: {name!r} is not known, expected one of {', '.join(map(repr, DATASETS))}")
    if split_by is not None and name != "folder":
        raise ValueError(f"{named('SPLIT_BY')}: found {split_by!r}, but {name!r} has splits of its own; leave it out")
    if name == "demo":
        root = Path(data_dir) / "demo" / f"v{drawing.VERSION}_seed{seed}_{frames_per_drive}_frames"
        drawing.draw_scenes(root, seed=seed, n_frames=frames_per_drive)
        return _load_lyft(name, root)
    root = Path(data_dir)
    if not root.is_dir() and str(root) != DATA_DIR:
        what = "images/ and masks/" if name == "folder" else repr(name)
        raise ValueError(f"{named('DATA_DIR')}: there is no folder {str(root)!r}; give the folder that holds {what}")
    if name == "folder":
        root = custom_data.find_root(root / name if (root / name).is_dir() else root)
        places, options = custom_data.places_for(root, DATA_DIR), {"skip_bad": skip_bad, "bits": bits}
        prepared = custom_data.prepare_folder(root, *places, split_by=split_by, to_train=to_train, **options)
        return _load_prepared(name, prepared, prepared.labels, skip_bad)
    has_layout = {"lyft": lambda folder: bool(_cameras(folder)), "camvid": _has_camvid}[name]
    found = find_layout(root / name, has_layout, depth=1) or find_layout(root, has_layout, depth=0)
    if not found:
        found = download_dataset(
            root / name, SLUGS[name], archive=archive, has_layout=has_layout,
            keep=lambda member: not re.match(r"(.*/)?data[a-e]/", member),  # lyft's second copy, see _cameras
        )  # fmt: skip
    for folder in (root / name, root):
        check_whole(folder)
    place = root if found == root else root / name
    return _load_lyft(name, found) if name == "lyft" else _load_camvid(name, found, place, skip_bad)


def _cameras(root: Path) -> list[Path]:
    """The folders with CameraRGB and CameraSeg: dataA/dataA or dataA, up to E. Lower-case folders repeat them."""
    places = ("data[A-E]/data[A-E]/Camera*", "data[A-E]/Camera*")
    return sorted({path.parent for place in places for path in root.glob(place)})


def _has_camvid(folder: Path) -> bool:
    return (folder / "train").is_dir() and any((folder / f"train{end}").is_dir() for end in ("annot", "_labels"))


def sequence_of(pair: Pair) -> str:
    """What an image's name begins with, without the frame's number: "F61" for F61-1, "0016E5" for 0016E5_07959."""
    return re.sub(r"[-_ .]?[a-zA-Z]?\d+$", "", pair.image.stem)


def find_pairs(image_dir: Path, mask_dir: Path) -> list[Pair]:
    """All pairs of an image and its mask in two folders, sorted by stem; see `custom_data.find_in`.
    Raises ValueError, naming the files: a folder is missing or empty, a file has no partner, a stem is not unique."""
    found = custom_data.find_in(image_dir.parent, {None: (image_dir, mask_dir)})
    if found.errors.files_of:
        raise ValueError(f"{image_dir.parent}: " + "\n".join(found.errors.lines()))
    return [Pair(*item.files) for item in found.items]


def _load_lyft(name: str, root: Path) -> Dataset:
    pairs: dict[str, Pair] = {}
    for camera in _cameras(root):
        for pair in find_pairs(camera / "CameraRGB", camera / "CameraSeg"):
            twin = pairs.setdefault(pair.image.stem, pair)
            if twin is not pair:
                raise ValueError(f"{pair.image}: the same frame is also in {twin.image.parent}; keep one of them")
    train, validation, test = [], [], []
    for stem, pair in sorted(pairs.items()):
        if not (drive := DRIVE.match(stem)):
            raise ValueError(f"{stem}: not a frame name of the Lyft set, expected one like '02_00_017' or 'F61-1'")
        (test if drive[0] in TEST_DRIVES else validation if drive[0] in VALIDATION_DRIVES else train).append(pair)
    labels = replace(CARLA, void_pixels=_load_ego_mask(train, CARLA, custom_data.places_for(root, DATA_DIR)))
    return Dataset(name, labels, tuple(train), tuple(validation), tuple(test))


def _load_camvid(name: str, root: Path, place: Path, skip_bad: bool) -> Dataset:
    """SegNet's layout has ids in SPLITannot/, Kaggle's has colours in SPLIT_labels/; ids are written beside place:
    root, or where it would be in DATA_DIR, for Kaggle attaches data read-only."""
    folders = {"train": root / "train", "validation": root / "val"}
    folders |= {"test": root / "test"} if (root / "test").is_dir() else {}
    if (root / "train_labels").is_dir():
        pairs = {split: (folder, root / f"{folder.name}_labels") for split, folder in folders.items()}
        places, classes = custom_data.places_for(place, DATA_DIR), custom_data.camvid_classes(root)
        prepared = custom_data.prepare_folder(root, *places, folders=pairs, classes=classes, skip_bad=skip_bad)
        return _load_prepared(name, prepared, CAMVID, skip_bad)
    pairs = {split: tuple(find_pairs(folder, root / f"{folder.name}annot")) for split, folder in folders.items()}
    return Dataset(name, CAMVID, pairs["train"], pairs["validation"], pairs.get("test", ()))


def _load_prepared(name: str, prepared: custom_data.Prepared, labels: LabelMap, skip_bad: bool) -> Dataset:
    if prepared.report.warnings and not skip_bad:
        print(prepared.report.notes())
    for pair, (notes, counts) in prepared.counts.items():
        _counted[pair] = notes, labels, np.array([counts.get(k, 0) for k in range(labels.n_classes)])
    parts = prepared.train, prepared.validation, prepared.test
    return Dataset(name, labels, *parts, prepared.report, prepared.bits)


def find_ego_mask(pairs: Iterable[Pair], labels: LabelMap) -> np.ndarray | None:
    """(H, W) bool: the camera's own car, alike in all readable masks; None without one, or if sizes differ."""

    def find(pair: Pair) -> np.ndarray | None:
        with contextlib.suppress(ValueError):  # what is wrong with a file is said by the check
            return decode_mask(pair.mask, labels)[..., 0] == labels.ego_class

    ego = None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for own in filter(lambda own: own is not None, pool.map(find, pairs)):
            if ego is not None and own.shape != ego.shape:
                return None
            ego = own if ego is None else ego & own
    return ego if ego is not None and ego.any() else None


def _load_ego_mask(pairs: Sequence[Pair], labels: LabelMap, folders: Iterable[Path]) -> np.ndarray | None:
    """`find_ego_mask`, found once and kept as a PNG in the first of the folders that can be written to."""
    files = [folder / f"ego_mask_of_{len(pairs)}_frames.png" for folder in folders]
    for file in files:
        with contextlib.suppress(OSError), Image.open(file) as image:
            return np.asarray(image) > 0
    if len(pairs) > 1000:
        print(f"looking once for the camera's own car in {len(pairs)} masks")
    ego = find_ego_mask(pairs, labels)
    if ego is not None:
        content = io.BytesIO()
        Image.fromarray(ego).save(content, "PNG")
        for file in files:
            with contextlib.suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(file, content.getvalue())
                break
    return ego


# Of each pair that `custom_data` examined in this process, so that `check_pair` need not decode it again:
# `storage.note_files` of both files as they were examined, the labels, and the (K,) pixels of each class.
_counted: dict[Pair, tuple[dict[str, list], LabelMap, np.ndarray]] = {}


def check_pair(pair: Pair, labels: LabelMap) -> np.ndarray:
    """Decode both files of a pair as training does and return the pixels of each class, (K,) int64.
    Files that `load_dataset` has examined, and that have not changed since, are not decoded again.
    Raises ValueError, naming the file, if one can't be read, the sizes differ, or the mask is no map of known ids."""
    notes, known_labels, pixels = _counted.get(pair, ({}, None, None))
    with contextlib.suppress(OSError):  # a file that is gone is named below
        if known_labels == labels and not any(find_changes(notes, pair._asdict())):
            return pixels
    with naming_file(pair.image):
        image = examine_image(pair.image)
        if image.bits:
            raise InvalidFile("expected 8 bits a channel; scale it to 0..255 and save it as an 8-bit PNG", image.kind)
    with naming_file(pair.mask):
        values = read_channels(pair.mask)
        if image.size != values.shape[:2]:
            sizes = "{}x{}, {} {}x{}".format(*values.shape[:2], pair.image, *image.size)
            raise InvalidFile("a mask and its image need the same height x width, upright; make it again", sizes)
        if values[..., 1:].any():
            raise InvalidFile("green or blue are not 0, so it holds colours, expected ids in red; convert it")
        unknown = np.flatnonzero(np.bincount(values[..., 0].ravel(), minlength=256) * ~labels.known_values).tolist()
        if unknown:
            expected = f"class ids 0..{labels.n_classes - 1} or void {sorted(labels.void_values)}"
            raise InvalidFile(f"it holds {unknown[:5]}, expected {expected}; wrong label map or a damaged mask?")
    return class_pixels(labels.ids_of(values[..., 0]), labels)


def check_pairs(pairs: Iterable[Pair], labels: LabelMap) -> np.ndarray:
    """`check_pair` for all pairs, on all cores: how many pixels of each class they have together, (K,) int64."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(lambda pair: check_pair(pair, labels), pairs), np.zeros(labels.n_classes, np.int64))


def find_rare(counts: np.ndarray) -> list[tuple[int, float]]:
    """(id, percent of all pixels) of the classes that occur, but in less than RARE of the pixels, (N, K)."""
    shares = counts.sum(axis=0) / max(1, counts.sum())
    return [(int(k), 100 * float(shares[k])) for k in np.flatnonzero((shares > 0) & (shares < RARE))]


def of_different_sequences(pairs: Sequence[Pair], order: Sequence[int], n: int) -> list[int]:
    """The first n indices in this order of the pairs, if possible each of another sequence."""
    first_of: dict[str, int] = {}
    for i in order:
        first_of.setdefault(sequence_of(pairs[i]), i)
    return [*first_of.values(), *(i for i in order if i not in first_of.values())][:n]


def find_suspicious(
    pairs: Sequence[Pair], counts: np.ndarray, labels: LabelMap, report: custom_data.Report | None = None
) -> dict[Pair, str]:
    """The pairs that are worth a look, and why: those that a warning of the report names, those of images that EXIF
    turns, and those with an id of `find_rare`, which a mask that was a JPEG or resized once has.
    counts: (N, K) pixels of each class in each pair, from `check_pair`."""
    warned, rare, found = report.warned if report else {}, find_rare(counts), {}
    for pair, pixels in zip(pairs, counts, strict=True):
        ids = [f"id {k}, {labels.names[k]!r}: {counted(pixels[k], 'pixel')}" for k, _ in rare if pixels[k]]
        turned = ["turned by EXIF"] * (read_orientation(pair.image) > 1)
        if reasons := [*warned.get(str(pair.image), ()), *turned, *ids]:
            found[pair] = "; ".join(reasons)
    return dict(sorted(found.items(), key=lambda item: str(item[0].image) not in warned))  # warnings first
