"""How fast does a recipe learn? Trains recipes on the same images for the same time and scores them alike.

    python benchmarks/learning.py --data data/camvid --minutes 5 --recipes assignment@30,tutorial --seeds 0,1,2

NAME@MINUTES gives a recipe its own time. `ladder` stands for the textbook recipe and all those that add one more change
to it, `left-out` for the whole recipe with each of its changes left out in turn. Only training counts as time: building
the graph in the first step and scoring do not. Scores come from `evaluate_model`, at the masks' own size and without
void: the curves without test-time augmentation (TTA), the last score with and without it.
Writes learning.md (tables), learning.json, changes.json (read by the notebook) and learning.png (mIoU against time)
to --out and prints the tables. --join builds them from the learning.json of several runs and trains nothing.
"""

import argparse
import ast
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's path begins with its own folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the notebook

import keras
import matplotlib
import numpy as np
import tensorflow as tf

from benchmarks.copy_paste import CopyPaste
from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.datasets import Dataset, check_pairs, load_dataset
from unet_helpers.evaluation import Scores, confusion_matrices, evaluate_model
from unet_helpers.images import decode_mask
from unet_helpers.labels import VOID, Pair
from unet_helpers.losses import class_weights
from unet_helpers.model import PLAIN, PreciseStatistics, unet_model
from unet_helpers.optimizers import WarmupStableDecay
from unet_helpers.pipeline import make_batches, with_class_weights, without_autotune
from unet_helpers.prediction import predict_logits, write_prediction
from unet_helpers.recipe import Recipe, make_recipe, stage_of
from unet_helpers.training import ProgressiveResizing, compile_unet

NOTEBOOK = ROOT / "segmentation_unet.ipynb"
TARGETS = (0.2, 0.3, 0.4, 0.5, 0.6)
# What the tutorial's recipe adds to the textbook's, in the order of the lesson. TTA needs no training of its own.
# TRIED was tried after that, and is not in the recipe.
CHANGES = (
    "normalization", "Dice", "tuned Adam", "AdamW", "Muon", "high rate", "schedule", "output stride 2",
    "progressive resizing", "augmentation",
)  # fmt: skip
TRIED = "copy-paste"
TEXTBOOK, TUNED = {"rate": 1e-3, "beta_2": 0.999}, {"rate": 5e-3, "beta_2": 0.95}  # Adam; README.md has other rates
# What is left out along with a change: without Muon the optimizer is the tuned AdamW.
LEFT_OUT = {name: (name,) for name in CHANGES if name not in ("tuned Adam", "AdamW", "high rate")}
LEFT_OUT["Muon"] = ("Muon", "high rate")


class ByClock(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that ends when the time is up instead of after a number of steps.

    share: variable, 0..1, how much of the training is over.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int, share: tf.Variable):
        self.schedule, self.steps, self.share = schedule, steps, share

    def __call__(self, step):
        return self.schedule(self.share * self.steps)


@dataclass
class Training:
    """What a recipe hands over: a compiled model, its batches, and how to score it on pairs."""

    model: keras.Model
    batches: tf.data.Dataset
    score: Callable[[bool], Scores]  # True: with TTA
    epochs: int = 10**6  # the clock ends it earlier
    resizing: ProgressiveResizing | None = None


def scorer(model, dataset: Dataset, pairs: list[Pair], image_size: tuple[int, int]):
    """`Training.score` of a network whose input has image_size."""
    return lambda tta: evaluate_model(model, pairs, dataset.labels, image_size, tta=tta)


def notebook_recipe(dataset: str, **changes) -> Recipe:
    """The notebook's parameters for this data set on a CPU, but from scratch; changes replace others."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    cell = next(cell for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    nodes = [node for node in ast.parse("".join(cell["source"])).body if isinstance(node, ast.Assign)]
    parameters = {node.targets[0].id: ast.literal_eval(node.value) for node in nodes}
    parameters |= parameters.pop("OPTIONS")
    return make_recipe("CPU", **parameters | {"DATASET": dataset, "START_FROM": "scratch"} | changes)


def tutorial(
    dataset: Dataset, pairs: list[Pair], seed: int, share: tf.Variable, *, paste: bool = False, augment: bool = True,
    power: float | None = None, normalization: str | None = "batch", adamw: bool = False, like: str | None = None,
    **changes,
) -> Training:  # fmt: skip
    """The notebook's recipe, or with a part of it changed.

    power: of class weights. like: the data set that the recipe is meant for. changes: parameters of the notebook.
    """
    recipe, labels = notebook_recipe(like or dataset.name, **changes), dataset.labels
    resizing = ProgressiveResizing(recipe.image_size, recipe.size_stages)
    model = unet_model(
        (None, None, 3), recipe.n_filters, labels.n_classes,
        **PLAIN | {"normalization": normalization, "half_resolution": recipe.half_resolution},
    )  # fmt: skip
    steps = 10_000
    rate = ByClock(WarmupStableDecay(steps, recipe.learning_rate), steps, share)
    compile_unet(model, labels.n_classes, rate)
    if adamw:  # with the same metric, which takes its time too
        metric = keras.metrics.MeanIoU(labels.n_classes, sparse_y_pred=False, ignore_class=VOID)
        optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-2, beta_2=0.95)
        model.compile(optimizer, model.loss, metrics=[metric], jit_compile=False)
    pixels = check_pairs(dataset.train, labels)
    pasting = [CopyPaste(np.flatnonzero(pixels < np.median(pixels)))] if paste else []
    batches = make_batches(
        dataset.train, labels, recipe.image_size, recipe.batch_size, mask_size=recipe.output_size, shuffle=True,
        augment=[RandomResizedCrop(), *pasting] if augment else [], seed=seed, resizing=resizing,
    )  # fmt: skip
    if power is not None:
        batches = with_class_weights(batches, class_weights(pixels, power))
    score = scorer(model, dataset, pairs, recipe.image_size)
    return Training(model, batches, score, resizing=resizing)


def textbook(
    dataset: Dataset, pairs: list[Pair], seed: int, share: tf.Variable, *, changes: tuple = (),
    rate: float | None = None,
) -> Training:  # fmt: skip
    """The textbook recipe, Adam at 0.001, cross-entropy, one size and no normalization, with some of CHANGES.

    The work per image stays the same: without "output stride 2" the network sees images of half the size, which is
    that of the predictions with it. With all of CHANGES it is `tutorial`; changes may include TRIED.
    """
    recipe, labels = notebook_recipe(dataset.name), dataset.labels
    size, step = (recipe.image_size, 32) if "output stride 2" in changes else (recipe.output_size, 16)
    stages = recipe.size_stages if "progressive resizing" in changes else ((1, 1),)
    resizing = ProgressiveResizing(size, stages, step=step)
    model = unet_model(
        (None, None, 3), recipe.n_filters, labels.n_classes,
        **PLAIN | {
            "normalization": "batch" if "normalization" in changes else None,
            "half_resolution": "output stride 2" in changes and recipe.half_resolution,
        },
    )  # fmt: skip
    if rate is None:
        rate = (TUNED if "tuned Adam" in changes else TEXTBOOK)["rate"]
        rate = recipe.learning_rate if "high rate" in changes else rate
    beta_2 = (TUNED if "tuned Adam" in changes else TEXTBOOK)["beta_2"]
    steps = 10_000
    rate = ByClock(WarmupStableDecay(steps, rate), steps, share) if "schedule" in changes else rate
    compile_unet(model, labels.n_classes, rate)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID)
    metric = keras.metrics.MeanIoU(labels.n_classes, sparse_y_pred=False, ignore_class=VOID)
    optimizer = keras.optimizers.Adam(rate, beta_2=beta_2)
    if "AdamW" in changes:  # as Muon has it for biases
        optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-2, beta_2=beta_2)
    model.compile(
        model.optimizer if "Muon" in changes else optimizer, model.loss if "Dice" in changes else cross_entropy,
        metrics=[metric], jit_compile=False,
    )  # fmt: skip
    pixels = check_pairs(dataset.train, labels)
    augment = [RandomResizedCrop()] * ("augmentation" in changes)
    augment += [CopyPaste(np.flatnonzero(pixels < np.median(pixels)).tolist())] * (TRIED in changes)
    batches = make_batches(
        dataset.train, labels, size, recipe.batch_size, mask_size=recipe.output_size, shuffle=True, augment=augment,
        seed=seed, resizing=resizing,
    )  # fmt: skip
    return Training(model, batches, scorer(model, dataset, pairs, size), resizing=resizing)


def ladder_step(n_changes: int) -> Callable[..., Training]:
    """The textbook's recipe with the first n_changes of CHANGES."""
    return lambda *args: textbook(*args, changes=(*CHANGES, TRIED)[:n_changes])


def without(name: str) -> Callable[..., Training]:
    """The recipe with all of CHANGES, but one and what goes with it."""
    return lambda *args: textbook(*args, changes=tuple(each for each in CHANGES if each not in LEFT_OUT[name]))


def at_rate(rate: float, changes: tuple) -> Callable[..., Training]:
    return lambda *args: textbook(*args, changes=changes, rate=rate)


LADDER = ("textbook", *(f"+ {name}" for name in (*CHANGES, TRIED)))
GROUPS = {"ladder": LADDER[:-1], "left-out": tuple(f"without {name}" for name in LEFT_OUT)}


def assignment(dataset: Dataset, pairs: list[Pair], *_) -> Training:
    """The recipe of the DeepLearning.AI assignment, errors included: they are marked below.

    96x128 pixels, 32 filters, batches of 32, Adam at 0.001, 40 epochs, no augmentation, no validation. Its scoring is
    lenient in three ways: of its 23 classes it can predict only those that exist, its logits are enlarged to the masks'
    size before the largest is chosen, and TTA is used as everywhere.
    """
    size = (96, 128)

    def prepare(image_path):
        image = tf.image.decode_png(tf.io.read_file(image_path), channels=3)
        image = tf.image.convert_image_dtype(image, tf.float32)
        image = tf.image.resize(image, size, method="nearest")  # error: aliasing
        image = image / 255  # error: convert_image_dtype has already done this
        return 127.5 * (image + 1)  # undoes the rescaling inside unet_model, which the assignment's network lacks

    def load(image_path, mask_path):
        mask = tf.image.decode_png(tf.io.read_file(mask_path), channels=3)
        mask = tf.reduce_max(mask, axis=-1, keepdims=True)  # error: an id is in one channel, not in the largest
        return prepare(image_path), tf.image.resize(mask, size, method="nearest")

    images, masks = (as_listed([str(pair[i]) for pair in dataset.train]) for i in (0, 1))  # error: not sorted
    batches = tf.data.Dataset.from_tensor_slices((images, masks)).map(load).cache().shuffle(500).batch(32)
    batches = without_autotune(batches)  # lenient: it would wait at the end of an epoch
    model = unet_model((*size, 3), 32, 23, normalization=None)  # error: 23 classes whatever the data has; void is one
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])

    labels = dataset.labels
    known = keras.Model(model.inputs, model.outputs[0][..., : labels.n_classes])

    def score(tta: bool) -> Scores:
        found = {False: [], True: []}
        for pair in pairs:
            true = decode_mask(pair.mask, labels)[..., 0]
            image = prepare(str(pair.image))[None]
            for flipped in found:
                logits = predict_logits(known, image, tta=flipped and tta)[0]
                predicted = write_prediction(logits, size, np.empty_like(true))
                found[flipped].append(confusion_matrices(true[None], predicted[None], labels.n_classes))
        without_tta, with_tta = (Scores(labels, np.concatenate(found[flipped])) for flipped in (False, True))
        return Scores(labels, with_tta.per_image, without_tta if tta else None)

    return Training(model, batches, score, epochs=40)


RECIPES: dict[str, Callable[..., Training]] = {
    "assignment": assignment,
    "tutorial": tutorial,
    # The tutorial's with one part removed or replaced: what is that part worth?
    "pasting": lambda *args: tutorial(*args, paste=True),
    "no-augmentation": lambda *args: tutorial(*args, augment=False),
    "no-normalization": lambda *args: tutorial(*args, normalization=None),
    "adamw": lambda *args: tutorial(*args, adamw=True, LEARNING_RATE=5e-3),  # its best rate
    "low-rate": lambda *args: tutorial(*args, LEARNING_RATE=4e-3),
    "large-batches": lambda *args: tutorial(*args, BATCH_SIZE=32),
    "full-resolution": lambda *args: tutorial(*args, HALF_RESOLUTION=False),
    "full-size-always": lambda *args: tutorial(*args, SIZE_STAGES=((1, 1),)),
    "small-size-always": lambda *args: tutorial(*args, SIZE_STAGES=((1, 0.5),)),
    "class-weights": lambda *args: tutorial(*args, power=0.5),  # another remedy for rare classes
    "small-images": lambda *args: tutorial(*args, like="demo"),  # as for the demo's small scenes
    **{name: ladder_step(number) for number, name in enumerate(LADDER)},
    **{f"without {name}": without(name) for name in LEFT_OUT},
    **{f"Adam at {rate:g}": at_rate(rate, CHANGES[:2]) for rate in (2e-3, 5e-3, 1e-2, 2e-2)},
    **{f"AdamW at {rate:g}": at_rate(rate, CHANGES[:4]) for rate in (5e-3, 1e-2)},
}


def as_listed(paths: list[str]) -> list[str]:
    """The paths in the order of os.listdir, folder by folder: the file system's own, in general not sorted."""
    wanted = set(paths)
    folders = dict.fromkeys(os.path.dirname(path) for path in paths)
    found = (os.path.join(folder, name) for folder in folders for name in os.listdir(folder))
    return [path for path in found if path in wanted]


def seconds_per_step(training: Training, stage: int) -> float:
    """Median time of a training step in this stage. Changes the weights."""
    training.resizing.stage = stage
    times = []
    for batch in training.batches.repeat().take(10):
        started = time.perf_counter()
        training.model.train_on_batch(*batch)
        times.append(time.perf_counter() - started)
    return float(np.median(times[2:]))


def time_shares(training: Training) -> tuple[list[float], list[float]]:
    """The share of the steps done at each share of the time: points of a line with a bend for each size.

    Sizes change after a share of the steps, but only the time is given, and a step on large images takes longer.
    """
    shares = [share for share, _ in training.resizing.stages]
    steps = np.diff([0, *shares])
    seconds = steps * [seconds_per_step(training, stage) for stage in range(len(steps))]
    return [0, *(np.cumsum(seconds) / seconds.sum())], [0, *shares]


def mask_size(pairs: list[Pair], dataset: Dataset) -> tuple[int, int]:
    """(height, width) of the masks' files."""
    return tuple(decode_mask(pairs[0].mask, dataset.labels).shape[:2])


class Clock(keras.callbacks.Callback):
    """Measures training time alone, scores the network at intervals, and stops the training when its time is up.

    points: (seconds of training, epochs, Scores) of each scoring.
    """

    def __init__(self, seconds: float, training: Training, share: tf.Variable, shares: tuple, n_scores: int):
        super().__init__()
        self.seconds, self.training, self.share, self.shares = seconds, training, share, shares
        self.marks = list(seconds * (np.arange(1, n_scores + 1) / n_scores) ** 2)  # often where it learns fastest
        self.points: list[tuple[float, float, Scores]] = []
        self.started, self.paused, self.steps = None, 0.0, 0
        self.statistics = PreciseStatistics(training.batches)

    def set_model(self, model):
        super().set_model(model)
        self.statistics.set_model(model)

    def on_epoch_begin(self, epoch, logs=None):
        if self.training.resizing:
            self.training.resizing.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.started is None:
            self.started = time.perf_counter()  # the first step is not counted: it builds the graph
        self.steps += 1
        elapsed = self.elapsed()
        share = float(np.interp(elapsed / self.seconds, *self.shares))
        self.share.assign(share)
        if self.training.resizing:  # within an epoch, too: in five minutes there are few epochs
            self.training.resizing.stage = stage_of(share * 1e9, 1e9, self.training.resizing.stages)
        if elapsed >= self.seconds:
            self.model.stop_training = True
        elif elapsed >= self.marks[0]:
            self.add_point(elapsed)

    def on_train_end(self, logs=None):
        self.add_point(self.elapsed(), tta=True)

    def elapsed(self) -> float:
        """Seconds of training until now."""
        return time.perf_counter() - self.started - self.paused

    def add_point(self, elapsed: float, tta: bool = False) -> None:
        before = time.perf_counter()
        self.statistics.estimate()
        self.points.append((elapsed, self.steps / len(self.training.batches), self.training.score(tta)))
        self.marks = [mark for mark in self.marks if mark > elapsed] or [float("inf")]
        self.paused += time.perf_counter() - before


@dataclass
class Result:
    """One training of one recipe. miou, accuracy and iou, of each class or None: at the end, with TTA.

    without_tta, iou_without_tta: the same without it. curve: [seconds, mIoU without TTA].
    """

    recipe: str
    seed: int
    minutes: float
    parameters: int
    seconds: float
    epochs: float
    images_per_second: float
    miou: float
    without_tta: float
    accuracy: float
    iou: dict[str, float | None]
    curve: list[tuple[float, float]] = field(default_factory=list)
    iou_without_tta: dict[str, float | None] = field(default_factory=dict)

    def seconds_to(self, target: float) -> float | None:
        """Seconds of training until a scoring first showed an mIoU of target."""
        return next((seconds for seconds, miou in self.curve if miou >= target), None)


def train(recipe: str, minutes: float, dataset: Dataset, pairs: list[Pair], seed: int, n_scores: int = 12) -> Result:
    """Train a recipe for so many minutes and score it on pairs, n_scores times."""
    share = tf.Variable(0.0)

    def prepare() -> Training:
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        return RECIPES[recipe](dataset, pairs, seed, share)

    training, shares = prepare(), ([0, 1], [0, 1])
    if training.resizing is not None and len(training.resizing.stages) > 1:
        shares = time_shares(training)
        training = prepare()  # measuring has changed the weights
    clock = Clock(60 * minutes, training, share, shares, n_scores)
    training.model.fit(training.batches, epochs=training.epochs, callbacks=[clock], verbose=0, shuffle=False)
    seconds, epochs, scores = clock.points[-1]
    return Result(
        recipe, seed, minutes, training.model.count_params(), round(seconds, 1), round(epochs, 2),
        round(epochs * len(dataset.train) / seconds, 1), scores.miou, scores.without_tta.miou, scores.accuracy,
        iou_by_name(scores), [(round(s, 1), float((each.without_tta or each).miou)) for s, _, each in clock.points],
        iou_by_name(scores.without_tta),
    )  # fmt: skip


def iou_by_name(scores: Scores) -> dict[str, float | None]:
    """IoU of each class, None for one that is absent."""
    return {name: None if np.isnan(k) else float(k) for name, k in zip(scores.labels.names, scores.iou, strict=True)}


def _mean(values: list[float | None]) -> float | None:
    """Mean, or None if a value is missing: a target that one seed missed was not reached."""
    return None if None in values else float(np.mean(values))


def tables(results: list[Result]) -> str:
    """Two Markdown tables: a row for each recipe, and a row for each class; means over the seeds."""
    groups = {}
    for result in results:
        groups.setdefault(f"{result.recipe}, {result.minutes:g} min", []).append(result)

    lines = ["| recipe | seeds | parameters | images/s | epochs | " + " | ".join(f"s to {t}" for t in TARGETS)]
    lines[0] += " | mIoU | lowest to highest | without TTA |"
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for name, group in groups.items():
        reached = [_mean([result.seconds_to(target) for result in group]) for target in TARGETS]
        mious = [result.miou for result in group]
        cells = [
            name, str(len(group)), f"{group[0].parameters:,}", f"{_mean([r.images_per_second for r in group]):.1f}",
            f"{_mean([r.epochs for r in group]):.1f}", *("-" if s is None else f"{s:.0f}" for s in reached),
            f"{np.mean(mious):.3f}", f"{min(mious):.3f} to {max(mious):.3f}",
            f"{_mean([r.without_tta for r in group]):.3f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")

    lines += ["", f"| IoU | {' | '.join(groups)} |", "|---" * (len(groups) + 1) + "|"]
    for name in results[0].iou:
        means = [_mean([result.iou[name] for result in group]) for group in groups.values()]
        lines.append(f"| {name} | {' | '.join('absent' if m is None else f'{m:.3f}' for m in means)} |")
    return "\n".join(lines)


def summary(results: list[Result], data: str) -> dict:
    """What the notebook reads: for each recipe the mIoU of each seed, the mean IoU of each class, and the mean seconds.

    steps: without TTA until "+ TTA", the same networks as the step before it, scored with it; with it from there on.
    left_out: the recipes without one of CHANGES, with TTA, and "without TTA"; without augmentation, whose networks have
        seen no flipped image, there is no TTA either.
    seconds: of training until it had what the first recipe has at the end; None if a seed never had.
    """
    groups = {}
    for result in results:
        groups.setdefault(result.recipe, []).append(result)
    first, steps, left_out, score, iou = next(iter(groups.values())), [], [], "without_tta", "iou_without_tta"
    goal = _mean([result.without_tta for result in first])

    def row(name: str, group: list[Result]) -> dict:
        ious = {name: _mean([getattr(r, iou)[name] for r in group]) for name in getattr(group[0], iou)}
        ious = {name: k if k is None else round(k, 4) for name, k in ious.items()}
        return {"name": name, "miou": [round(getattr(r, score), 4) for r in group], "iou": ious}

    for name, group in groups.items():
        if name.startswith("without "):
            with_flips = name != "without augmentation"
            score, iou = ("miou", "iou") if with_flips else ("without_tta", "iou_without_tta")
            left_out.append(row(name if with_flips else f"{name} and TTA", group))
            continue
        reached = _mean([result.seconds if group is first else result.seconds_to(goal) for result in group])
        steps.append(row(name, group) | {"seconds": reached})
        if name == f"+ {CHANGES[-1]}":
            left_out.append(row("without TTA", group))
            score, iou = "miou", "iou"
            steps.append(row("+ TTA", group) | {"seconds": reached})
    return {
        "data": data, "minutes": first[0].minutes, "seeds": len(first), "steps": steps, "left_out": left_out,
    }  # fmt: skip


def plot(results: list[Result], title: str, path: Path) -> None:
    """mIoU against seconds of training: one colour for each recipe, one line for each seed."""
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    recipes = list(dict.fromkeys((result.recipe, result.minutes) for result in results))
    for result in results:
        number = recipes.index((result.recipe, result.minutes))
        first = next(r for r in results if (r.recipe, r.minutes) == recipes[number]) is result
        label = f"{result.recipe}, {result.minutes:g} min" if first else None
        axes.plot(*zip(*result.curve, strict=True), f"C{number}o-", markersize=3, alpha=0.8, label=label)
    axes.set(xscale="log", xlabel="seconds of training", ylabel="mIoU", title=title, ylim=(0, None))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data", help="folder of the data set (default: data)")
    parser.add_argument("--dataset", default="camvid", help="camvid, demo, lyft or folder (default: camvid)")
    parser.add_argument("--minutes", type=float, default=5, help="time of each training (default: 5)")
    parser.add_argument("--recipes", default="assignment,tutorial", help=f"some of {', '.join([*GROUPS, *RECIPES])}")
    parser.add_argument("--scores", type=int, default=12, help="how often each training is scored (default: 12)")
    parser.add_argument("--seeds", default="0", help="such as 0,1,2 (default: 0)")
    parser.add_argument("--join", nargs="+", type=Path, help="learning.json of several runs, of any recipes and seeds")
    parser.add_argument("--split", default="validation", choices=("validation", "test"), help="images to score on")
    parser.add_argument("--out", default="build/learning", help="folder for the results (default: build/learning)")
    options = parser.parse_args(arguments)
    try:
        options.seeds = [int(seed) for seed in options.seeds.split(",")]
        pattern = rf"(?<![^,])({'|'.join(GROUPS)})(@[^,]*|)"
        names = re.sub(pattern, lambda found: ",".join(f"{n}{found[2]}" for n in GROUPS[found[1]]), options.recipes)
        recipes = [recipe.partition("@") for recipe in names.split(",")]
        options.recipes = [(name, float(own or options.minutes)) for name, _, own in recipes]
    except ValueError as error:
        parser.error(f"--seeds, --recipes: expected 0,1,2 and NAME or NAME@MINUTES: {error}")
    for name, minutes in options.recipes:
        if name not in RECIPES:
            parser.error(f"--recipes: there is no {name!r}, expected some of {', '.join(RECIPES)}")
        if not minutes > 0:
            parser.error(f"--minutes: expected more than 0, found {minutes:g}")
    return options


def main(arguments: list[str] | None = None) -> list[Result]:
    options = parse_arguments(arguments)
    if options.join:
        records = [json.loads(path.read_text(encoding="utf-8")) for path in options.join]
        results = [Result(**result) for record in records for result in record["results"]]
        order = list(RECIPES)
        results.sort(key=lambda result: (order.index(result.recipe), result.seed))
        return write(results, records[0] | {"results": [asdict(result) for result in results]}, options.out)
    dataset = load_dataset(options.dataset, options.data)
    pairs = getattr(dataset, options.split)
    if not pairs:
        raise SystemExit(f"--split: {options.data} has no {options.split} images")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    height, width = mask_size(pairs, dataset)
    title = f"{options.dataset}, {options.split}: {len(pairs)} images at {height}x{width}"
    record = {
        "data": title, "training images": len(dataset.train), "cores": os.cpu_count(),
        "gpus": len(tf.config.list_physical_devices("GPU")), "python": platform.python_version(),
        "tensorflow": tf.__version__, "keras": keras.__version__,
    }  # fmt: skip
    results = []
    # Seed by seed, so that a slow spell of the machine does not hit one recipe alone.
    for seed in options.seeds:
        for recipe, minutes in options.recipes:
            results.append(train(recipe, minutes, dataset, pairs, seed, options.scores))
            last = results[-1]
            print(f"{recipe}, seed {seed}: mIoU {last.miou:.3f} after {last.seconds:.0f} s", flush=True)
            record["results"] = [asdict(result) for result in results]
            (out / "learning.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return write(results, record, options.out)


def write(results: list[Result], record: dict, folder: str) -> list[Result]:
    """Write all files to the folder, and print the tables."""
    out, title = Path(folder), record["data"]
    out.mkdir(parents=True, exist_ok=True)
    for name, content in {"learning": record, "changes": summary(results, title)}.items():
        (out / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (out / "learning.md").write_text(f"{title}\n\n{tables(results)}\n", encoding="utf-8")
    plot(results, title, out / "learning.png")
    print(f"\n{title}\n\n{tables(results)}\n\nWritten to {out}/: learning.md, learning.json, learning.png")
    return results


if __name__ == "__main__":
    main()
