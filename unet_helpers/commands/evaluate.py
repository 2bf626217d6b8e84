"""evaluate: a network's scores on a data set, as in section 10 of the notebook."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..custom_data import make_labels, read_names
from ..datasets import Dataset, load_dataset
from ..evaluation import Scores, evaluate_model
from ..labels import SPLITS, LabelMap, Pair
from ..naming import counted
from ..networks import Network, load_network
from ..prediction import predict_mask
from ..storage import write_json
from . import WrongOption, find_network, say_error, with_progress
from .check import check_files


def evaluate(
    network: Path, data_dir: str, dataset: str, seed: int, split: str | None, split_by: str | None,
    image_size: tuple[int, int] | None, classes: Path | None, json: Path | None,
) -> int:  # fmt: skip
    """Print mIoU and accuracy, those of the baseline, and a line for each class. Bad pairs are named and left out.
    split: None: "test", or "validation" where there is no test split; "all": all pairs.
    json: a file to write, too: the scores, those of each class, and those of each image.
    Returns how many files are bad. Raises ValueError or WrongOption."""
    if json and json.exists():
        raise WrongOption(f"--json: {json} is there already; give another name")
    trained = load_checked(network, classes, image_size)
    size = trained.image_size
    data = load_dataset(
        dataset, data_dir, seed=seed, split_by=split_by, skip_bad=True, bits=trained.bits, to_train=False
    )
    problems = data.report.errors if data.report else []
    if data.report and data.report.warnings:
        print(data.report.notes())
    for line in problems:
        say_error(f"{data_dir}: left out: {line}")
    labels = _match_classes(network, trained.labels, data, data_dir)
    parts = {part: getattr(data, part) for part in SPLITS}
    parts["all"] = sum(parts.values(), ())
    name, pairs = (split, parts[split]) if split else data.held_out
    good, _ = check_files(pairs, data.labels, f"checking {name}")
    if not good:
        raise ValueError(f"{data_dir}: the {name} split has no pair that can be scored; try another --split")
    scores = evaluate_model(trained.model, with_progress(good, len(good), "scoring"), labels, size)
    majority_class = int(np.argmax(scores.confusion.sum(axis=1)))
    rows = {"the network": scores, "without TTA": scores.without_tta}
    rows[f"baseline (always {labels.names[majority_class]})"] = scores.baseline(majority_class)
    print(f"{data.name}, {name}: {counted(len(good), 'image')}, seen at {size[0]}x{size[1]}, scored at mask size")
    for title, row in rows.items():
        print(f"{title:<34} mIoU {row.miou:.3f}   accuracy {row.accuracy:.3f}")
    print(f"\n{scores.table()}")
    if json:
        about = {"network": str(network), "data": str(data_dir), "data_set": data.name, "split": name}
        write_json(json, about | {"image_size": list(size)} | as_json(scores, good))
        print(f"\n{json}: written")
    return len(pairs) - len(good) + len(problems)


def _match_classes(network: Path, trained: LabelMap, data: Dataset, data_dir: str) -> LabelMap:
    """The network's names for the data's ids: the names must be equal, or the data's be "class 0", "class 1" ..., which
    `custom_data` calls classes that no list names. Raises ValueError."""
    names = data.labels.names
    unnamed = len(names) <= len(trained.names) and names == tuple(f"class {k}" for k in range(len(names)))
    if not unnamed and names != trained.names:
        found, expected = (", ".join(each) for each in (trained.names, names))
        found = f"its classes are {found}, but the data set {data.name!r} in {data_dir} has {expected}"
        raise ValueError(f"{network}: {found}; give one with the same classes in the same order")
    return replace(data.labels, names=trained.names, colors=trained.colors)


def as_json(scores: Scores, pairs: list[Pair]) -> dict:
    """Scores as JSON holds them: mIoU, accuracy, of each class and of each image; null for a class that is absent."""
    shares = (scores.confusion.sum(axis=1) / scores.confusion.sum()).tolist()
    ious, mious = ([None if np.isnan(x) else float(x) for x in each] for each in (scores.iou, scores.image_miou))
    rows = enumerate(zip(scores.labels.names, ious, shares, strict=True))
    return {
        "miou": scores.miou, "accuracy": scores.accuracy, "miou_without_tta": scores.without_tta.miou,
        "classes": [{"id": k, "name": name, "iou": iou, "share": share} for k, (name, iou, share) in rows],
        "images": [{"image": str(p.image), "miou": miou} for p, miou in zip(pairs, mious, strict=True)],
    }  # fmt: skip


def load_checked(path: Path, classes: Path | None, image_size: tuple[int, int] | None) -> Network:
    """`load_network` of a file or a run's folder, tried once, so that a size that does not fit is said at once.
    classes: a file like classes.txt. Raises ValueError, naming the file or option."""
    names = classes and read_names(classes)
    network = load_network(find_network(path), names and make_labels(names), image_size)
    predict_mask(network, np.zeros((*network.image_size, 3), np.uint8), tta=False)
    return network
