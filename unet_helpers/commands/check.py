"""check: every file of a data set decoded as training will, and a table of what was found, with all its problems."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from ..custom_data import Report, ValidationError
from ..datasets import Dataset, check_pair, find_rare, find_suspicious, load_dataset
from ..images import decode_image, decode_mask, resize_image
from ..labels import SPLITS, LabelMap, Pair
from ..naming import counted
from ..plots import show_pairs
from ..storage import write_whole
from . import say_error, with_progress

N_SHOWN, ROWS, LARGEST = 12, 4, 800  # pairs that are shown; of them in each figure; pixels of an image's side there


def check(
    data_dir: str, dataset: str, seed: int, split_by: str | None, show: Path | None = None, overwrite: bool = False
) -> int:
    """Print a `Report` of the data set as a table; returns how many kinds of problems there are.
    show: a folder for figures of up to N_SHOWN pairs, `datasets.find_suspicious` ones first. overwrite: replace it."""
    shown: Mapping[Pair, str] = {}
    try:
        data = load_dataset(dataset, data_dir, seed=seed, split_by=split_by, skip_bad=True)
        report, shown = _examine(data, data_dir)
    except ValidationError as error:  # no pair is left
        report = error.report
    print(report.table(min(100, max(60, shutil.get_terminal_size((100, 24)).columns))))
    if show and shown:
        paths = write_pairs(show, shown, data.labels, overwrite)
        print(f"{counted(len(shown), 'pair')} shown in {', '.join(map(str, paths))}")
    if report.errors:
        say_error(f"{data_dir}: errors in the table: {len(report.errors)}; correct them, and check again")
    else:
        print("all pairs are fine")
    return len(report.errors)


def _examine(data: Dataset, data_dir: str) -> tuple[Report, dict[Pair, str]]:
    """The data set's report, completed with what `check_files` finds; and the pairs worth a look, with the reasons."""
    report = data.report or Report(str(data_dir))
    pixels, good, counts = {}, [], []
    for split in SPLITS:
        fine, of_each = check_files(getattr(data, split), data.labels, split, report.errors.append)
        report.pairs[split] = len(fine)
        n_pixels = 0
        for pair in fine:
            with Image.open(pair.mask) as mask:
                n_pixels += mask.width * mask.height
        pixels[split] = [*of_each.sum(axis=0).tolist(), n_pixels - int(of_each.sum())]  # the others are void
        good, counts = good + fine, [*counts, of_each]
    report.count(data.labels.names, pixels)
    counts = np.concatenate(counts)
    rare = [f"{k} {data.labels.names[k]!r} ({share:.2g} %)" for k, share in find_rare(counts)]
    if rare:
        sentence = f"classes with less than 0.01 % of the pixels: {', '.join(rare)}; masks that were a JPEG or resized "
        report.warnings.append(f"{sentence}once have such ids, look at them (--show)")
    suspicious = find_suspicious(good, counts, data.labels, report)
    others = [pair for pair in good if pair not in suspicious]
    evenly = others[:: 1 + len(others) // N_SHOWN]
    return report, dict([*suspicious.items(), *((pair, "") for pair in evenly)][:N_SHOWN])


def write_pairs(folder: Path, shown: Mapping[Pair, str], labels: LabelMap, overwrite: bool) -> list[Path]:
    """Write pairs_1.png, pairs_2.png ...: images, masks and masks over images, and beside each why it is shown.
    Raises ValueError for a figure that is there already, unless overwrite."""
    pairs = list(shown)
    paths = [folder / f"pairs_{1 + start // ROWS}.png" for start in range(0, len(pairs), ROWS)]
    if there := [path for path in paths if path.exists() and not overwrite]:
        raise ValueError(f"{there[0]}: it is there already; give another --show, or --overwrite to replace it")
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        part = pairs[number * ROWS :][:ROWS]
        images, masks = zip(*(_read_small(pair, labels) for pair in part), strict=True)
        titles = [f"{pair.image.name}: {shown[pair]}".removesuffix(": ") for pair in part]
        write_whole(path, show_pairs(images, masks, labels, titles).as_png())
    return paths


def _read_small(pair: Pair, labels: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) image and (H, W) mask, of LARGEST pixels at most."""
    image, mask = decode_image(pair.image), decode_mask(pair.mask, labels)[..., 0]
    step = -(-max(mask.shape) // LARGEST)
    mask = mask[::step, ::step]
    return resize_image(image, mask.shape).numpy() if step > 1 else image, mask


def check_files(
    pairs: Sequence[Pair], labels: LabelMap, what: str, say: Callable[[str], None] = say_error
) -> tuple[list[Pair], np.ndarray]:
    """`check_pair` for all, on all cores; say(message) for each bad one, and lines of progress that begin with what.
    Returns the good pairs, and how many pixels of each class each of them has, (N, K) int64."""

    def look(pair: Pair) -> np.ndarray | str:
        try:
            return check_pair(pair, labels)
        except ValueError as error:
            return str(error)

    good, pixels = [], []
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for pair, found in zip(pairs, with_progress(pool.map(look, pairs), len(pairs), what), strict=True):
            if isinstance(found, str):
                say(found)
            else:
                good.append(pair)
                pixels.append(found)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for all other files
    return good, np.array(pixels, np.int64).reshape(-1, labels.n_classes)
