"""check: every file of a data set decoded as training will, with a message for each that would spoil it."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..checking import check_pair
from ..datasets import Dataset, load_dataset
from ..labels import LabelMap, Pair
from . import say_error, with_progress

SPLITS = ("train", "validation", "test")


def check(data_dir: str, dataset: str, seed: int) -> int:
    """Print how many pairs each split has, each class's share of the pixels, and a message for each bad pair.

    Returns how many pairs are bad.
    """
    data = load_dataset(dataset, data_dir, seed=seed)
    pixels, n_bad = check_splits(data)
    print(share_table(data.labels, pixels))
    print(f"{n_bad} bad pairs: mend or remove them" if n_bad else "all pairs are fine")
    return n_bad


def check_splits(data: Dataset) -> tuple[dict[str, np.ndarray], int]:
    """`check_files` for each split, and a line about it: ({split: pixels of each class, (K,) int64}, bad pairs)."""
    print(f"{data.name}: {data.labels.n_classes} classes")
    pixels, n_bad = {}, 0
    for split in SPLITS:
        pairs = getattr(data, split)
        good, pixels[split] = check_files(pairs, data.labels, split)
        n_bad += len(pairs) - len(good)
        print(f"{split:>10}: {len(pairs)} pairs" + f", {len(pairs) - len(good)} of them bad" * (len(good) < len(pairs)))
    return pixels, n_bad


def check_files(pairs: Sequence[Pair], labels: LabelMap, what: str) -> tuple[list[Pair], np.ndarray]:
    """`check_pair` for all, on all cores, with a message for each bad one and lines of progress that begin with what.

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
                say_error(found)
            else:
                good.append(pair)
                pixels += found
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C need not wait for all other files
    return good, pixels


def share_table(labels: LabelMap, pixels: dict[str, np.ndarray]) -> str:
    """A line a class: its share of each split's pixels in percent, the commonest in training first."""
    width = max(16, *(len(name) + 2 for name in labels.names))
    lines = [f"{'pixels %':<{width}}" + "".join(f"{split:>12}" for split in pixels)]
    shares = {split: 100 * counts / max(1, counts.sum()) for split, counts in pixels.items()}
    for k in np.argsort(-shares["train"], kind="stable"):
        lines.append(f"{labels.names[k]:<{width}}" + "".join(f"{share[k]:>12.3f}" for share in shares.values()))
    return "\n".join(lines)
