"""Why a training came to nothing: what its batches, files, log and predictions show."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np

from .evaluation import Scores, confusion_matrices
from .images import decode_image
from .labels import VOID, LabelMap, Pair
from .model import PreciseStatistics
from .naming import counted
from .pipeline import PairReader
from .prediction import predict_logits

# How many are examined: batches, batches given to the network, mask files, pairs whose edges are compared.
N_BATCHES, N_PREDICTED, N_FILES, N_EDGES = 50, 4, 100, 48


class Predictions(NamedTuple):  # of a network for a few batches
    finite: bool  # whether all weights are finite numbers
    rescales: bool  # whether the network rescales the images itself
    varies: bool  # whether logits differ between pixels
    scores: Scores
    anew: Scores  # with batch normalization's statistics estimated anew from these batches

    @property
    def lags(self) -> bool:
        """Whether the moving averages of batch normalization lag so far behind the weights that it costs 0.15 mIoU."""
        return bool(self.scores.confusion.any()) and self.anew.miou > self.scores.miou + 0.15


class Alignment(NamedTuple):  # how the boundaries in masks lie to the edges in their images, as far as it is certain
    n_images: int  # that were compared; 0 if they are too few or not all finite
    shift: tuple[int, int] | None = None  # (rows, columns) in pixels by which all masks lie beside their images
    n_others: int = 0  # images that the mask of another image fits, and not their own


class Evidence(NamedTuple):  # what was found in the batches, files, log and predictions
    labels: LabelMap  # the K classes
    log: dict[str, np.ndarray]  # {"loss": (n_epochs,) float, ...}, {} if not known
    n_images: int
    low: float  # smallest value of the images, nan if one is no number
    high: float  # the largest
    ids: Counter  # {id: pixels} of the masks in the batches
    present: list[int]  # ids of the classes that occur in them
    shares: np.ndarray  # of these, of all pixels that are not void
    guess: float  # the loss of random predictions: their cross-entropy, and at most 1 for Dice
    values: Counter  # {value: pixels} in mask files, {} if not known
    predictions: Predictions | None  # None without a network
    alignment: Alignment


def _gather(batches, labels: LabelMap, log, model, pairs) -> Evidence:
    """Examine everything once; arguments and errors are those of `diagnose`."""
    if model is not None and model.output_shape[-1] != labels.n_classes:
        found = f"it has {counted(model.output_shape[-1], 'class')}, the labels have {labels.n_classes}"
        raise ValueError(f"model: {found}; give the labels that it was trained with")
    log = {name: np.atleast_1d(np.asarray(values, float)) for name, values in (log or {}).items()}
    first, n_images, low, high, ids, values, alignment = [], 0, math.inf, -math.inf, Counter(), Counter(), Alignment(0)
    for images, masks, *_ in itertools.islice(batches, N_BATCHES):
        images, masks = keras.ops.convert_to_numpy(images), keras.ops.convert_to_numpy(masks)
        if masks.ndim != 4 or masks.shape[-1] != 1:
            raise ValueError(f"batches: found masks of the shape {masks.shape}, expected class ids, (B, H, W, 1)")
        n_images += len(images)
        low, high = np.minimum(low, images.min()), np.maximum(high, images.max())  # Python's min would drop nan
        ids += _count(masks)
        if len(first) < N_PREDICTED:
            first.append((images, masks))
    if not first:
        raise ValueError("batches: found none, expected at least one batch of images and masks")
    if pairs := pairs or getattr(batches, "pairs", ()):  # in the files: augmentation would turn one shift into many
        reader = PairReader(pairs[:N_EDGES], labels, first[0][0].shape[1:3], cache=False)
        compared = [reader.read(n) for n in range(len(reader.pairs))]
        alignment = compare_edges(*zip(*compared, strict=True))
    for pair in pairs[:: 1 + len(pairs) // N_FILES]:
        values += _count(decode_image(pair.mask)[..., 0])  # red, which training reads
    present = [k for k in sorted(ids) if 0 <= k < labels.n_classes]
    pixels = np.array([ids[k] for k in present], float)
    return Evidence(
        labels, log if np.size(log.get("loss", ())) else {}, n_images, float(low), float(high), ids, present,
        shares=pixels / max(1, pixels.sum()), guess=math.log(labels.n_classes) + 1, values=values, alignment=alignment,
        predictions=None if model is None else _predict(model, first, labels),
    )  # fmt: skip


def _count(ids: np.ndarray) -> Counter:
    return Counter(dict(zip(*np.unique(ids, return_counts=True), strict=True)))


def _predict(model: keras.Model, batches: Sequence[tuple], labels: LabelMap) -> Predictions:
    """The model is left as it was, including the states of its random numbers, even if something raises."""
    logits = [predict_logits(model, images) for images, _ in batches]
    before = [(variable, 1 * keras.ops.convert_to_numpy(variable)) for variable in model.variables]  # 1 *: a copy
    statistics = PreciseStatistics(batches)
    statistics.set_model(model)
    try:
        statistics.estimate()
        anew = [predict_logits(model, images) for images, _ in batches]
    finally:
        for variable, value in before:
            variable.assign(value)
    return Predictions(
        finite=all(np.isfinite(weights).all() for weights in model.get_weights()),
        rescales=any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers),
        # An activation after the logits, such as a softmax, hides how much they differ. False if none is finite.
        varies=any(x.min() >= 0 or x.std(axis=(0, 1, 2)).max() >= 1e-3 * max(1, np.abs(x).max()) for x in logits),
        scores=_score(logits, batches, labels), anew=_score(anew, batches, labels),
    )  # fmt: skip


def _score(predicted: Sequence[np.ndarray], batches: Sequence[tuple], labels: LabelMap) -> Scores:
    """The logits are resized to the masks, and ids that the labels do not know count as void."""
    matrices = []
    for logits, (_, masks) in zip(predicted, batches, strict=True):
        ids = keras.ops.argmax(keras.ops.image.resize(logits, masks.shape[1:3]), axis=-1)
        true = np.where(masks[..., 0] < labels.n_classes, masks[..., 0], VOID)
        matrices.append(confusion_matrices(true, keras.ops.convert_to_numpy(ids), labels.n_classes))
    return Scores(labels, np.concatenate(matrices))


def compare_edges(images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Alignment:
    """images: N of (H, W, 3), 0..255 or any other scale. masks: N of (H, W, 1) ids, of the same parts of the scenes.
    Claims nothing if edges are faint, masks coarse, or images fewer than 8."""
    rows, columns = np.gradient(np.stack(images).astype(np.float32).mean(axis=-1), axis=(1, 2))
    edges = _distinct(np.sqrt(np.hypot(rows, columns)))  # the root: no few strong edges decide all
    ids = np.stack(masks)[..., 0]
    boundaries = np.zeros(ids.shape, np.float32)
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[..., :-1], np.s_[..., 1:])):
        known = (ids[one] != VOID) & (ids[other] != VOID)  # void begins where images end, whatever they show
        differs = known & (ids[one] != ids[other])
        boundaries[one][differs] = boundaries[other][differs] = 1
    boundaries = _distinct(boundaries)
    if len(edges) < 8 or not np.isfinite(edges).all():
        return Alignment(0)
    shift = _common_shift(edges, boundaries)
    return Alignment(len(edges), shift, 0 if shift else _count_others(edges, boundaries))


def _distinct(maps: np.ndarray) -> np.ndarray:
    """(N, H, W) without what all N share, such as a bonnet or a frame, each of mean 0 and of length 1."""
    maps = maps - maps.mean(axis=0)
    maps -= maps.mean(axis=(1, 2), keepdims=True)
    return maps / np.maximum(np.linalg.norm(maps, axis=(1, 2), keepdims=True), 1e-9)


def _common_shift(edges: np.ndarray, boundaries: np.ndarray) -> tuple[int, int] | None:
    """(rows, columns) by which all masks lie beside their images: where their correlation has one sharp peak."""
    product = np.fft.rfft2(edges) * np.conj(np.fft.rfft2(boundaries))
    correlation = np.fft.irfft2(product.mean(axis=0), edges.shape[1:])  # [row, column]: with the masks moved by them

    def near(row: int, column: int) -> float:
        return np.roll(correlation, (2 - row, 2 - column), axis=(0, 1))[:5, :5].max()

    peak = np.unravel_index(correlation.argmax(), correlation.shape)
    row, column = (int((n + side // 2) % side - side // 2) for n, side in zip(peak, correlation.shape, strict=True))
    sharp = correlation.max() > correlation.mean() + 8 * correlation.std()
    # Masks drawn too large have a peak on each side of (0, 0); those that were moved have one.
    single = correlation.max() > max(2 * near(0, 0), 3 * near(-row, -column))
    return (-row, -column) if sharp and single and max(abs(row), abs(column)) > 3 else None


def _count_others(edges: np.ndarray, boundaries: np.ndarray) -> int:
    """How many images another image's mask fits, one to one, by left and right halves alike; 0 if not certain."""
    middle, own = edges.shape[2] // 2, np.arange(len(edges))
    halves = np.s_[:middle], np.s_[middle:]
    best, again = (np.einsum("ihw,jhw->ij", edges[..., h], boundaries[..., h]).argmax(axis=1) for h in halves)
    others = best[(best == again) & (best != own)]
    return len(others) if 3 * len(others) >= 2 * len(own) and 5 * len(set(others)) >= 4 * len(others) else 0


class Finding(NamedTuple):
    symptom: str  # what the reader sees
    cause: str  # its name
    evidence: str  # what was measured
    cure: str  # what to do, or ""


class Diagnosis(NamedTuple):
    findings: list[Finding]  # the likely causes, problems of the data first; none if nothing is wrong
    looked_at: list[str]  # what was measured

    def __str__(self) -> str:
        found = [f"{f.symptom}: {f.cause}. {f.evidence}" + f"\n  Cure: {f.cure}." * bool(f.cure) for f in self.findings]
        return "\n".join([*(found or ["nothing wrong was found"]), "looked at:", *(f"  {x}" for x in self.looked_at)])


def diagnose(
    batches: Iterable, labels: LabelMap, log: Mapping[str, Sequence[float]] | None = None,
    model: keras.Model | None = None, pairs: Sequence[Pair] = (),
) -> Diagnosis:  # fmt: skip
    """Name the likely cause of "all black", "nan", "stuck" or a low mIoU. Print what is returned.
    batches: (images, masks) or (images, masks, weights), as `model.fit` gets them: images (B, H, W, 3), masks
        (B, H', W', 1) ids. The first N_BATCHES are examined. labels: the K classes.
    log: loss and, where known, mIoU, val_loss and val_mIoU of each epoch: `history.history`, or columns of log.csv.
    model: the trained network, which predicts a few batches and is left as it was.
    pairs: of the batches, whose files tell ids and shifts of the masks; batches of `make_batches` know them.
    Raises ValueError if there is no batch, masks hold no ids, or the network has another number of classes."""
    seen = _gather(batches, labels, log, model, pairs)
    findings = [*_image_problems(seen), *_mask_problems(seen), *_alignment_problems(seen)]
    # Bad data explain a useless network, and some a loss of nan: nothing else is blamed for these.
    explained = {"all black", "stuck", "low mIoU"} if findings else set()
    if any(problem.cause in ("no numbers", "all void") for problem in findings):
        explained.add("nan")
    for symptom, measured in [item for item in dict(_symptoms(seen)).items() if item[0] not in explained][:1]:
        findings.append(_training_problem(seen, symptom, measured))
    return Diagnosis(findings, _looked_at(seen))


def _looked_at(seen: Evidence) -> list[str]:
    predictions, loss, void = seen.predictions, seen.log.get("loss"), seen.ids[VOID] / seen.ids.total()
    classes = np.count_nonzero(predictions.scores.confusion.sum(axis=0)) if predictions else 0
    lines = [
        f"images: {seen.n_images}, values {seen.low:.3g} to {seen.high:.3g}",
        f"masks: {len(seen.present)} of {seen.labels.n_classes} classes, {void:.1%} void, values "
        + (f"{_some(seen.values)} in the files" if seen.values else "not known"),
        f"log: {counted(len(loss), 'epoch')}, loss {loss[0]:.3g} to {loss[-1]:.3g}" if seen.log else "log: not given",
        f"predictions: {counted(classes, 'class')}" if predictions else "predictions: no network was given",
        f"edges: of {seen.alignment.n_images} images, compared with the boundaries in their masks",
    ]
    if max(seen.present, default=32) < 32:
        black = f"ids up to {max(seen.present)} look black in a grey image"
        lines.append(f"{black}: unet_helpers.labels.colorize(mask, labels) shows them")
    return lines


def _some(values: Iterable[int]) -> str:
    values = sorted(values)
    return ", ".join(map(str, values[:16])) + f" and {len(values) - 16} more" * (len(values) > 16)


def _image_problems(seen: Evidence) -> Iterator[Finding]:
    if not math.isfinite(seen.low + seen.high):
        cure = "look for a division by 0 where you scale the images, or give them as they are, 0 to 255"
        yield Finding("nan", "no numbers", "The images hold values that are no finite numbers.", cure)
    elif (seen.low < 0 or seen.high <= 1) and (seen.predictions is None or seen.predictions.rescales):
        evidence = f"The images' values are {seen.low:.3g} to {seen.high:.3g}; the network scales 0 to 255 itself."
        cure = "give the images as they are, 0 to 255; if the training had them scaled, too, train anew"
        yield Finding("stuck", "scaled twice", evidence, cure)


def _mask_problems(seen: Evidence) -> Iterator[Finding]:
    values, where = (seen.values, "mask files") if seen.values else (seen.ids, "batches")
    n, names, held = seen.labels.n_classes, seen.labels.names, f"The {where} hold {_some(values)}"
    known = {*range(n), VOID, *(seen.labels.void_values if seen.values else ())}
    unknown = [value for value in values if value not in known]
    if not seen.present:
        evidence = f"{held}: no pixel is of one of the {n} classes, so nothing is learned."
        yield Finding("stuck", "all void", evidence, f"give masks whose classes have the ids 0 to {n - 1}")
    elif set(values) == {0, VOID} and seen.present == [0]:
        evidence = f"{held}: 255 means void, so {names[0]!r} is the only class, and always right."
        yield Finding("all black", "0/255", evidence, "divide the masks by 255: 0 for the background, 1 for the thing")
    elif 0 not in seen.present and n in values and (n in unknown or len(seen.present) == n - 1):
        evidence = f"{held}, but the {n} classes have the ids 0 to {n - 1}: all are shifted, and the last is void."
        yield Finding("wrong classes", "off by one", evidence, "subtract 1 from the ids in the masks")
    elif unknown:
        share = sum(values[value] for value in unknown) / values.total()
        evidence = f"{held}; {_some(unknown)} ({share:.1%} of the pixels) are no ids of {n} classes, and become void."
        cure = "name all classes; make masks smaller by nearest neighbour only, and never as a JPEG"
        yield Finding("wrong classes", "unknown ids", evidence, cure)
    elif len(seen.present) == 1:
        evidence = f"{held}: {names[seen.present[0]]!r} is the only class, and always right."
        yield Finding("all black", "one class", evidence, "label the others; if they were lost, save ids as 8-bit PNG")


def _alignment_problems(seen: Evidence) -> Iterator[Finding]:
    n_images, shift, n_others = seen.alignment
    measured = f"In {n_images} pairs the edges of the images were compared with the boundaries in the masks"
    if shift:
        ways = [(shift[0], "down", "up"), (shift[1], "right", "left")]
        ways = " and ".join(f"{counted(abs(n), 'pixel')} {more if n > 0 else less}" for n, more, less in ways if n)
        evidence = f"{measured}: the masks lie {ways} of where they fit, at the network's image size."
        yield Finding("low mIoU", "shifted masks", evidence, "export the masks anew, each with the crop of its image")
    elif n_others:
        evidence = f"{measured}: {n_others} images fit the mask of another image, and not their own."
        cure = "look at the pairs (plots.show_pairs), and give each mask the name of its image"
        yield Finding("low mIoU", "masks of other images", evidence, cure)


def _symptoms(seen: Evidence) -> Iterator[tuple[str, str]]:
    """What is wrong, the worst first: (symptom, what was measured). Of two for one symptom, the second tells more."""
    predictions, loss = seen.predictions, seen.log.get("loss")
    if predictions and not predictions.finite:
        yield "nan", "Weights of the network are no finite numbers"
    for name in ("val_loss", "loss"):
        for epoch in np.flatnonzero(~np.isfinite(seen.log.get(name, ())))[:1]:
            yield "nan", f"The {name} is {seen.log[name][epoch]} in epoch {epoch + 1} of {len(loss)}"
    if predictions and predictions.scores.confusion.any():
        confusion = predictions.scores.confusion / predictions.scores.confusion.sum()
        k = confusion.sum(axis=0).argmax()
        share, true = confusion.sum(axis=0)[k], confusion.sum(axis=1)[k]
        if 1 - share <= 0.1 * (1 - true):
            yield "all black", f"{seen.labels.names[k]!r} is {share:.1%} of the prediction and {true:.1%} of the masks"
    if predictions and predictions.lags:
        yield "low mIoU", f"The network's mIoU on training batches is {predictions.scores.miou:.2f}"
    if seen.log and _knows_little(seen, "mIoU"):
        symptom = "stuck" if _is_flat(loss) or loss[-1] > seen.guess else "low mIoU"
        yield symptom, f"The loss is {loss[0]:.3g} in the first epoch and {loss[-1]:.3g} in the last of {len(loss)}"
    elif {"mIoU", "val_mIoU"} <= seen.log.keys() and (_overfits(seen) or _knows_little(seen, "val_mIoU")):
        scores = f"{seen.log['mIoU'][-1]:.2f} in training and {seen.log['val_mIoU'][-1]:.2f} in validation"
        yield "low mIoU", f"In the last epoch the mIoU is {scores}"


def _is_flat(loss: np.ndarray) -> bool:
    return len(loss) > 1 and loss[-1] >= 0.95 * loss[0]


def _knows_little(seen: Evidence, name: str) -> bool:
    """Whether the last epoch was hardly better than the baseline; name: "mIoU" or "val_mIoU"."""
    last = seen.log["loss"][-1]
    if name in seen.log:
        baseline = seen.shares.max(initial=0) / max(1, len(seen.shares))
        return seen.log[name][-1] <= baseline + (0.5 if last > seen.guess else 0.1) * (1 - baseline)
    return _is_flat(seen.log["loss"]) and last > 0.5 * seen.guess or last > 10 * seen.guess


def _overfits(seen: Evidence) -> bool:
    """Whether validation lost what training won. Lagging statistics look alike in the log, so a network is needed."""
    loss, miou = (seen.log.get(name, np.array([])) for name in ("val_loss", "val_mIoU"))
    if not (loss.size and miou.size and "mIoU" in seen.log and seen.predictions) or seen.predictions.lags:
        return False
    risen = loss[-1] > 1.5 * loss.min() and loss.argmin() < 0.75 * len(loss)
    # Where the validation mIoU fell as well, statistics of an earlier epoch may have lagged.
    return bool(risen and miou[-1] > 0.7 * miou.max() and seen.log["mIoU"][-1] > miou[-1] + 0.2)


def _training_problem(seen: Evidence, symptom: str, measured: str) -> Finding:
    predictions, loss = seen.predictions, seen.log.get("loss")
    named = functools.partial(Finding, symptom)  # cause, evidence, cure
    slower = "divide the learning rate by ten, again and again, until the loss falls, and train anew"
    if symptom == "nan":
        return named("rate far too high", f"{measured}, though images and masks are numbers.", slower)
    # With lagging statistics, or overfitting, the validation loss rises, too: some ten times, and alone.
    highest, validation = (max(seen.log.get(name, []), default=0) for name in ("loss", "val_loss"))
    learned = "mIoU" in seen.log and not _knows_little(seen, "mIoU")
    if highest > 10 * seen.guess or validation > (1000 if learned else 10) * seen.guess:
        rose = f"The loss rose to {max(highest, validation):.3g}; random predictions cost {seen.guess - 1:.2f}."
        return named("rate far too high", rose, slower)
    if predictions and predictions.lags:
        anew = f"{measured}, and {predictions.anew.miou:.2f} with means and variances estimated anew from them."
        cure = "train once more with this version, which estimates them before each validation; all else may stay"
        return named("statistics that lag", f"{anew} Those of batch normalization lag.", cure)
    if _overfits(seen):
        low, last = min(seen.log["val_loss"]), seen.log["val_loss"][-1]
        evidence = f"{measured}; the validation loss fell to {low:.3g} and rose to {last:.3g}."
        return named("overfitting", evidence, "train with more images, with augmentation, or fewer epochs")
    if predictions and not predictions.varies:
        return named("rate far too high", f"{measured}. All pixels get the same logits.", slower)
    unknown = named("not found", f"{measured}. Neither images nor masks nor log tell why.", "")
    if loss is None or len(loss) > 1 and not _knows_little(seen, "mIoU"):
        return unknown
    if len(loss) == 1:
        return named("too short", f"{measured}: there was one epoch only.", "train longer")
    if seen.shares.max(initial=0) > 0.8 and loss[-1] < 0.9 * loss[0]:
        cure = "train longer, with Dice (losses.cross_entropy_and_dice) or losses.class_weights"
        return named("class imbalance", f"{measured}: the others hardly count in the loss.", cure)
    last = max(1, len(loss) // 4)  # epochs: a quarter of them
    falls = loss[-1] < 0.99**last * loss[-1 - last]
    return named("too short", f"{measured}; the loss was still falling.", "train longer") if falls else unknown
