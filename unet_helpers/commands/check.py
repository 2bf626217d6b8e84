"""check: every file of a data set decoded as training will, and a table of what was found, with all its problems."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from ..custom_data import Report, ValidationError
from ..datasets import Dataset, check_pair, load_dataset
from ..labels import SPLITS, LabelMap, Pair
from . import say_error, with_progress


def check(data_dir: str, dataset: str, seed: int, split_by: str | None) -> int:
    """Print a `Report` of the data set as a table; returns how many kinds of problems there are."""
    try:
        report = _examine(load_dataset(dataset, data_dir, seed=seed, split_by=split_by, skip_bad=True), data_dir)
    except ValidationError as error:  # no pair is left
        report = error.report
    print(report.table(min(100, max(60, shutil.get_terminal_size((100, 24)).columns))))
    if report.errors:
        say_error(f"{data_dir}: errors in the table: {len(report.errors)}; correct them, and check again")
    else:
        print("all pairs are fine")
    return len(report.errors)


def _examine(data: Dataset, data_dir: str) -> Report:
    """The data set's report, completed with what `check_files` finds in the pairs of its splits."""
    report = data.report or Report(str(data_dir))
    pixels = {}
    for split in SPLITS:
        good, counts = check_files(getattr(data, split), data.labels, split, report.errors.append)
        report.pairs[split] = len(good)
        n_pixels = 0
        for pair in good:
            with Image.open(pair.mask) as mask:
                n_pixels += mask.width * mask.height
        pixels[split] = [*counts.tolist(), n_pixels - int(counts.sum())]  # the others are void
    report.count(data.labels.names, pixels)
    return report


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
