"""check: every file of a data set decoded as training will, and a table of what was found, with all that spoils it."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from ..custom_data import Report, ValidationError
from ..datasets import Dataset, check_pair, load_dataset
from ..labels import LabelMap, Pair
from . import say_error, with_progress

SPLITS = ("train", "validation", "test")
MIN_WIDTH, MAX_WIDTH = 60, 100  # columns of the table; between them, those of the terminal


def check(data_dir: str, dataset: str, seed: int, split_by: str | None) -> int:
    """Print a table: the pairs of each split, kinds and sizes of the files, each class's share of the pixels, what
    was converted, and each fault. Returns how many kinds of faults there are.
    """
    try:
        report = look_at(load_dataset(dataset, data_dir, seed=seed, split_by=split_by, skip_bad=True), data_dir)
    except ValidationError as faulty:  # no pair is left
        report = faulty.report
    print(report.table(min(MAX_WIDTH, max(MIN_WIDTH, shutil.get_terminal_size((MAX_WIDTH, 24)).columns))))
    if report.errors:
        say_error(f"{data_dir}: errors in the table: {len(report.errors)}; mend them, and check again")
    else:
        print("all pairs are fine")
    return len(report.errors)


def look_at(data: Dataset, data_dir: str) -> Report:
    """What was found in a data set: its report, with what `check_files` finds in the pairs that are in its splits."""
    report = data.report or Report(str(data_dir))
    pixels = {}
    for split in SPLITS:
        pairs = getattr(data, split)
        good, counts = check_files(pairs, data.labels, split, report.errors.append)
        report.pairs[split] = len(good)
        pixels[split] = [*counts.tolist(), sum(map(_n_pixels, good)) - int(counts.sum())]  # the others are void
    report.count(data.labels.names, pixels)
    return report


def _n_pixels(pair: Pair) -> int:
    with Image.open(pair.mask) as mask:
        return mask.width * mask.height


def check_splits(data: Dataset) -> int:
    """`check_files` for each split, and a line about it. Returns how many pairs are bad."""
    print(f"{data.name}: {data.labels.n_classes} classes")
    n_bad = 0
    for split in SPLITS:
        pairs = getattr(data, split)
        bad = len(pairs) - len(check_files(pairs, data.labels, split)[0])
        print(f"{split:>10}: {len(pairs)} pairs" + f", {bad} of them bad" * bool(bad))
        n_bad += bad
    return n_bad


def check_files(
    pairs: Sequence[Pair], labels: LabelMap, what: str, say: Callable[[str], None] = say_error
) -> tuple[list[Pair], np.ndarray]:
    """`check_pair` for all, on all cores; say(message) for each bad one, and lines of progress that begin with what.

    Returns the good pairs, and how many pixels of each class they have together, (K,) int64.
    """

    def look(pair: Pair) -> np.ndarray | str:
        try:
            return check_pair(pair, labels)
        except ValueError as error:
            return str(error)

    good, pixels = [], np.zeros(labels.n_classes, np.int64)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for pair, found in zip(pairs, with_progress(pool.map(look, pairs), len(pairs), what), strict=True):
            if isinstance(found, str):
                say(found)
            else:
                good.append(pair)
                pixels += found
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for all other files
    return good, pixels
