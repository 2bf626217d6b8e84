"""evaluate: a network's scores on a data set, as in section 11 of the notebook."""

from pathlib import Path

import numpy as np

from ..custom_data import make_labels, read_names
from ..datasets import Dataset, find_ego_mask, load_dataset
from ..evaluation import evaluate_model
from ..labels import LabelMap
from ..networks import Network, load_network
from ..prediction import predict_mask
from . import find_network, say_error, with_progress
from .check import check_files


def evaluate(
    network: Path, data_dir: str, dataset: str, seed: int, split: str | None, split_by: str | None,
    image_size: tuple[int, int] | None, classes: Path | None,
) -> int:  # fmt: skip
    """Print mIoU and accuracy, those of the baseline, and a line for each class. Bad pairs are named and left out.

    split: "test", or "validation" where there is no test split, if None. Returns how many files are bad.
    """
    trained = load_checked(network, classes, image_size)
    labels, size = trained.labels, trained.image_size
    data = load_dataset(dataset, data_dir, seed=seed, split_by=split_by, skip_bad=True, bits=trained.bits)
    n_faults = _say_report(data, data_dir)
    _check_classes(network, labels, data, data_dir)
    name, pairs = (split, getattr(data, split)) if split else data.held_out
    good, _ = check_files(pairs, data.labels, f"checking {name}")
    if not good:
        raise ValueError(f"{data_dir}: the {name} split has no pair that can be scored; try another --split")
    ego_mask, n_bad = _find_ego_mask(data)
    watched = with_progress(good, len(good), "scoring")
    scores = evaluate_model(trained.model, watched, labels, size, ego_mask=ego_mask)
    majority_class = int(np.argmax(scores.confusion.sum(axis=1)))
    rows = {"the network": scores, "one answer a picture": scores.without_tta, "without the bonnet": scores.without_ego}
    rows[f"baseline (always {labels.names[majority_class]})"] = scores.baseline(majority_class)
    print(f"{data.name}, {name}: {len(good)} pictures, seen at {size[0]}x{size[1]}, scored at their masks' size")
    for title, row in rows.items():
        if row is not None:
            print(f"{title:<34} mIoU {row.miou:.3f}   accuracy {row.accuracy:.3f}")
    print(f"\n{scores.table()}")
    return len(pairs) - len(good) + n_bad + n_faults


def load_checked(path: Path, classes: Path | None, image_size: tuple[int, int] | None) -> Network:
    """`load_network` of a file or a training's folder, asked once, so that a size that does not fit is said at once.

    classes: a file as classes.txt. Raises ValueError, naming the file or option.
    """
    names = classes and read_names(classes)
    network = load_network(find_network(path), names and make_labels(names), image_size)
    predict_mask(network, np.zeros((*network.image_size, 3), np.uint8), tta=False)
    return network


def _say_report(data: Dataset, data_dir: str) -> int:
    """The notes, and a message for each kind of fault whose pairs are left out; returns how many kinds there are."""
    if data.report is None:
        return 0
    if data.report.warnings:
        print(data.report.notes(), flush=True)
    for line in data.report.errors:
        say_error(f"{data_dir}: left out: {line}")
    return len(data.report.errors)


def _check_classes(network: Path, known: LabelMap, data: Dataset, data_dir: str) -> None:
    """Raises ValueError unless the network's ids mean what those of the data set mean."""
    there = f"the data set {data.name!r} in {data_dir}"
    if known.n_classes != data.labels.n_classes:
        differs = f"it knows {known.n_classes} classes, but {there} has {data.labels.n_classes}"
    elif known.names != data.labels.names:
        k = next(k for k in range(known.n_classes) if known.names[k] != data.labels.names[k])
        differs = f"its class {k} is {known.names[k]!r}, but in {there} it is {data.labels.names[k]!r}"
    else:
        return
    raise ValueError(
        f"{network}: {differs}; give the data set that it was trained on, or one with the same classes in that order"
    )


def _find_ego_mask(data: Dataset) -> tuple[np.ndarray | None, int]:
    """`find_ego_mask` of the training pairs; (None, 1), and a message, if one of them can't be read."""
    try:
        return find_ego_mask(data.train, data.labels), 0
    except ValueError as error:
        say_error(f"no score without the camera's own car: {error}")
        return None, 1
