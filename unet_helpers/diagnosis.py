"""Why a training came to nothing: what its batches, files, log and predictions show."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
import numpy as np

from .evaluation import Scores, confusion_matrices
from .images import decode_image
from .labels import VOID, LabelMap, Pair
from .model import PreciseStatistics
from .pipeline import PairReader
from .prediction import predict_logits

# Are looked at: batches, those that the network predicts, mask files, pairs whose edges are compared.
N_BATCHES, N_ASKED, N_FILES, N_EDGES = 50, 4, 100, 48


@dataclass
class Answers:
    """What a network says to a few batches. ids, true: {id: pixels} of its answers, and of the masks, without void.

    accuracy: share of the right pixels of the first batch, 0..1; the same if its pictures, of -1..1 or 0..1, are scaled
        back to 0..255.
    spread: how much the logits differ between pixels, as a share of the largest; 0: the answer depends on nothing.
    finite: whether all weights are finite numbers. rescales: whether the network rescales the pictures by itself.
    miou: of these batches, 0..1; and with the statistics of batch normalization estimated anew from them, nan without.
    """

    finite: bool
    rescales: bool
    ids: Counter = field(default_factory=Counter)
    true: Counter = field(default_factory=Counter)
    accuracy: tuple[float, float] = (0.0, 0.0)
    spread: float = 0.0
    miou: tuple[float, float] = (math.nan, math.nan)

    @property
    def lags(self) -> bool:
        """Whether the moving averages of batch normalization lag so far behind the weights that it costs 0.15 mIoU."""
        return self.miou[1] > self.miou[0] + 0.15


@dataclass
class Alignment:
    """How the boundaries in masks lie to the edges in their images: what is certain, or that nothing is.

    n_images: that were compared; 0 if they are too few, or hold no numbers.
    shift: (rows, columns) in pixels by which all masks lie beside their images, or None.
    n_others: images which the mask of another image fits, and not their own.
    """

    n_images: int
    shift: tuple[int, int] | None = None
    n_others: int = 0


@dataclass
class Evidence:
    """labels: the K classes. log: {"loss": (n_epochs,) float, ...}, {} if not known. answers: None if not known.

    n_pictures: that were looked at. low, high: of their values, nan if one is no number.
    ids: {id: pixels} of the masks in the batches. values: {value: pixels} in mask files, {} if not known.
    """

    labels: LabelMap
    log: dict[str, np.ndarray]
    answers: Answers | None = None
    alignment: Alignment | None = None
    n_pictures: int = 0
    low: float = math.inf
    high: float = -math.inf
    ids: Counter = field(default_factory=Counter)
    values: Counter = field(default_factory=Counter)

    @property
    def present(self) -> list[int]:
        """Ids of the classes that occur in the batches."""
        return [k for k in sorted(self.ids) if 0 <= k < self.labels.n_classes]

    @property
    def shares(self) -> np.ndarray:
        """Shares of the classes that occur, of all pixels that are not void."""
        counts = np.array([self.ids[k] for k in self.present], float)
        return counts / max(1, counts.sum())


def gather(
    batches: Iterable, labels: LabelMap, log: Mapping[str, Sequence[float]] | None, model: keras.Model | None,
    pairs: Sequence[Pair],
) -> Evidence:  # fmt: skip
    """Look at all of it once; the arguments are those of `diagnosis.diagnose`, and so is what is raised."""
    if model is not None and model.output_shape[-1] != labels.n_classes:
        found = f"it tells {model.output_shape[-1]} classes apart, the labels have {labels.n_classes}"
        raise ValueError(f"model: {found}; give the labels that it was trained with")
    log = {name: np.atleast_1d(np.asarray(values, float)) for name, values in (log or {}).items()}
    evidence = Evidence(labels, log if np.size(log.get("loss", ())) else {})
    first = _look_at_batches(evidence, batches)
    if model is not None:
        evidence.answers = _ask(model, first[:N_ASKED], labels)
    readers = getattr(batches, "readers", None)  # those of `make_batches` know their pairs
    pairs = pairs or (readers.reader.pairs if readers else ())
    if pairs:  # as they are in the files: augmentation would turn one shift into many
        reader = PairReader(pairs[:N_EDGES], labels, first[0][0].shape[1:3], cache=False)
        evidence.alignment = compare_edges(*zip(*map(reader.read, range(len(reader.pairs))), strict=True))
    else:
        alike = [part for part in first if part[0].shape[1:] == first[0][0].shape[1:]]
        evidence.alignment = compare_edges(*(np.concatenate(part)[:N_EDGES] for part in zip(*alike, strict=True)))
    for pair in pairs[:: 1 + len(pairs) // N_FILES]:
        evidence.values += count(decode_image(pair.mask)[..., 0])  # red, which training reads
    return evidence


def count(ids: np.ndarray) -> Counter:
    """{id: how many pixels have it}."""
    return Counter(dict(zip(*(part.tolist() for part in np.unique(ids, return_counts=True)), strict=True)))


def _look_at_batches(evidence: Evidence, batches: Iterable) -> list[tuple[np.ndarray, np.ndarray]]:
    """Fill in what the batches tell, and return the first few of them."""
    first = []
    for images, masks, *_ in itertools.islice(batches, N_BATCHES):
        images, masks = keras.ops.convert_to_numpy(images), keras.ops.convert_to_numpy(masks)
        if masks.ndim != 4 or masks.shape[-1] != 1:
            raise ValueError(f"batches: found masks of the shape {masks.shape}, expected class ids, (B, H, W, 1)")
        evidence.n_pictures += len(images)
        evidence.low = float(np.minimum(evidence.low, images.min()))  # Python's min would drop nan
        evidence.high = float(np.maximum(evidence.high, images.max()))
        evidence.ids += count(masks)
        first += [(images, masks)] * (len(first) < N_ASKED or sum(len(part) for part, _ in first) < N_EDGES)
    if not first:
        raise ValueError("batches: found none, expected at least one batch of pictures and masks")
    return first


def _ask(model: keras.Model, batches: Sequence[tuple[np.ndarray, np.ndarray]], labels: LabelMap) -> Answers:
    finite = all(np.isfinite(weights).all() for weights in model.get_weights())
    answers = Answers(finite, any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers))
    for images, masks in batches:
        logits = predict_logits(model, images)
        answers.ids += count(logits.argmax(axis=-1))
        answers.true += count(masks[masks != VOID])
        if np.isfinite(logits).all():
            spread = logits.std(axis=(0, 1, 2), dtype=float).max() / max(1, np.abs(logits).max())
            # An activation after the logits, such as a softmax, hides how much they differ.
            answers.spread = max(answers.spread, float(spread) if logits.min() < 0 else 1.0)
    images, masks = batches[0]
    whole = (images + 1) * np.float32(127.5) if images.min() < 0 else images * np.float32(255)
    scores = [_score(model, [(x, masks)], labels) for x in (images, whole)]
    if scores[0].confusion.any():
        answers.accuracy = tuple(score.accuracy for score in scores)
        anew = _score_anew(model, batches, labels)
        answers.miou = _score(model, batches, labels).miou, anew.miou if anew else math.nan
    return answers


def _score(model: keras.Model, batches: Sequence[tuple[np.ndarray, np.ndarray]], labels: LabelMap) -> Scores:
    """One matrix a batch; the logits are resized to the masks, and ids that the labels do not know count as void."""
    matrices = []
    for images, masks in batches:
        logits = keras.ops.image.resize(predict_logits(model, images), masks.shape[1:3])
        predicted = keras.ops.convert_to_numpy(keras.ops.argmax(logits, axis=-1))
        true = np.where(masks[..., 0] < labels.n_classes, masks[..., 0], VOID)
        matrices.append(confusion_matrices(true, predicted, labels.n_classes).sum(axis=0))
    return Scores(labels, np.array(matrices))


def _score_anew(
    model: keras.Model, batches: Sequence[tuple[np.ndarray, np.ndarray]], labels: LabelMap
) -> Scores | None:
    """The score with statistics of these batches, see `PreciseStatistics`; None without batch normalization.

    The model is left as it was, also the states of its random numbers, and also if something raises.
    """
    if not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers):
        return None
    before = [(variable, 1 * keras.ops.convert_to_numpy(variable)) for variable in model.variables]  # 1 *: a copy
    statistics = PreciseStatistics(batches)
    statistics.set_model(model)
    try:
        statistics.estimate()
        return _score(model, batches, labels)
    finally:
        for variable, value in before:
            variable.assign(value)


# ---- edges of images, boundaries in masks ----


def compare_edges(images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Alignment:
    """images: N of (H, W, 3), 0..255 or any other scale. masks: N of (H', W', 1) ids, of the same parts of the scenes.

    Where edges are faint, masks coarse, or images fewer than 8, nothing is certain, and nothing is claimed.
    """
    edges, boundaries = _edges(np.stack(images)), _boundaries(np.stack(masks), images[0].shape[:2])
    if len(edges) < 8 or not np.isfinite(edges).all():
        return Alignment(0)
    shift = _common_shift(edges, boundaries)
    return Alignment(len(edges), shift, 0 if shift else _count_others(edges, boundaries))


def _edges(images: np.ndarray) -> np.ndarray:
    rows, columns = np.gradient(images.astype(np.float32).mean(axis=-1), axis=(1, 2))
    return _distinct(np.sqrt(np.hypot(rows, columns)))  # the root: no few strong edges decide all


def _boundaries(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (np.arange(side) * own // side for side, own in zip(size, masks.shape[1:3], strict=True))
    ids = masks[:, rows[:, None], columns, 0]  # as large as the images
    found = np.zeros(ids.shape, np.float32)
    for axis in (1, 2):
        one, next_ = (np.take(ids, np.arange(ids.shape[axis] - 1) + step, axis) for step in (0, 1))
        differs = (one != next_) & (one != VOID) & (next_ != VOID)  # void begins where images end, whatever they show
        pads = np.zeros((3, 2), int)
        pads[axis] = 0, 1
        found = np.maximum(found, np.pad(differs, pads))
        found = np.maximum(found, np.pad(differs, pads[:, ::-1]))
    return _distinct(found)


def _distinct(maps: np.ndarray) -> np.ndarray:
    """(N, H, W) without what all N share, such as a bonnet or a frame, each of mean 0 and of length 1."""
    maps = maps - maps.mean(axis=0)
    maps -= maps.mean(axis=(1, 2), keepdims=True)
    return maps / np.maximum(np.linalg.norm(maps, axis=(1, 2), keepdims=True), 1e-9)


def correlate(edges: np.ndarray, boundaries: np.ndarray) -> np.ndarray:
    """(H, W): the mean correlation if masks are moved by (row, column), negative ones counted from the end."""
    product = np.fft.rfft2(edges) * np.conj(np.fft.rfft2(boundaries))
    return np.fft.irfft2(product.mean(axis=0), edges.shape[1:])


def _common_shift(edges: np.ndarray, boundaries: np.ndarray) -> tuple[int, int] | None:
    """(rows, columns) by which all masks lie beside their images: one sharp peak, in both halves of the images."""
    correlation = correlate(edges, boundaries)

    def near(row: int, column: int) -> float:
        return np.roll(correlation, (2 - row, 2 - column), axis=(0, 1))[:5, :5].max()

    row, column = peak = _peak(correlation)
    halves = [_peak(correlate(edges[half::2], boundaries[half::2])) for half in (0, 1)]
    sharp = near(*peak) > correlation.mean() + 8 * correlation.std() and np.abs(np.subtract(halves, peak)).max() <= 1
    # Masks drawn too large have a peak on each side of (0, 0); those that were moved have one.
    if sharp and max(map(abs, peak)) > 3 and near(*peak) > max(2 * near(0, 0), 3 * near(-row, -column)):
        return -row, -column
    return None


def _peak(correlation: np.ndarray) -> tuple[int, int]:
    indices = np.unravel_index(correlation.argmax(), correlation.shape)
    return tuple(int((i + side // 2) % side - side // 2) for i, side in zip(indices, correlation.shape, strict=True))


def _count_others(edges: np.ndarray, boundaries: np.ndarray) -> int:
    """How many images another image's mask fits, one to one, said by left and right halves alike; 0 if not certain."""
    middle, own = edges.shape[2] // 2, np.arange(len(edges))
    halves = np.s_[:middle], np.s_[middle:]
    fits = [np.einsum("ihw,jhw->ij", edges[..., half], boundaries[..., half]) for half in halves]
    best, again = (fit.argmax(axis=1) for fit in fits)
    others = (best == again) & (best != own)
    fit = sum(fits)
    certain = 3 * others.sum() >= 2 * len(own) and 5 * len(set(best[others])) >= 4 * others.sum()
    return int(others.sum()) if certain and 2 * fit[own, own].mean() < fit[own, best][others].mean() else 0


USELESS = {"all black", "stuck", "low mIoU"}  # what a network looks like that knows next to nothing


class Finding(NamedTuple):
    """symptom: what the reader sees. cause: its name. evidence: what was measured. cure: what to do, or ""."""

    symptom: str
    cause: str
    evidence: str
    cure: str


class Diagnosis(NamedTuple):
    """findings: the likely causes, faults of the data first; none if nothing is wrong. looked_at: what was measured."""

    findings: list[Finding]
    looked_at: list[str]

    def __str__(self) -> str:
        found = [f"{f.symptom}: {f.cause}. {f.evidence}" + f"\n  Cure: {f.cure}." * bool(f.cure) for f in self.findings]
        return "\n".join([*(found or ["nothing wrong was found"]), "looked at:", *(f"  {x}" for x in self.looked_at)])


def diagnose(
    batches: Iterable, labels: LabelMap, log: Mapping[str, Sequence[float]] | None = None,
    model: keras.Model | None = None, pairs: Sequence[Pair] = (),
) -> Diagnosis:  # fmt: skip
    """Name the likely cause of "all black", "nan", "stuck" or a low mIoU. Print what is returned.

    batches: (images, masks) or (images, masks, weights), those that `model.fit` was given, for they are what the
        network sees: images (B, H, W, 3), masks (B, H', W', 1) ids. Some dozens are looked at. labels: the K classes.
    log: loss and, where known, mIoU, val_loss and val_mIoU of each epoch: `history.history`, or columns of log.csv.
    model: the trained network, which predicts a few batches and is left as it was.
    pairs: of the batches, for the values and the boundaries in the mask files; batches of `make_batches` tell them.
    Raises ValueError if there is no batch, masks hold no ids, or the network has another number of classes.
    """
    seen = gather(batches, labels, log, model, pairs)
    faults = [*_faults_of_pictures(seen), *_faults_of_masks(seen), *_faults_of_alignment(seen)]
    symptoms = dict(_symptoms(seen))
    findings = [fault._replace(symptom=_shown(fault, symptoms)) for fault in faults]
    explained = set().union(*(_explains(fault) for fault in faults))
    left = {symptom: measured for symptom, measured in symptoms.items() if symptom not in explained}
    if left:
        findings.append(_fault_of_training(seen, *next(iter(left.items()))))
    return Diagnosis(findings, _looked_at(seen, faults))


def _explains(fault: Finding) -> set[str]:
    """The symptoms that a fault of the data explains, so that nothing else is blamed for them."""
    return USELESS | ({"nan"} if fault.cause in ("no numbers", "all void") else set())


def _shown(fault: Finding, symptoms: Mapping[str, str]) -> str:
    explained = (symptom for symptom in symptoms if symptom in _explains(fault))
    return next(explained, fault.symptom) if fault.symptom in USELESS else fault.symptom


def _looked_at(seen: Evidence, faults: list[Finding]) -> list[str]:
    n, losses = seen.labels.n_classes, seen.log.get("loss")
    files = f"{_some(seen.values)} in the files" if seen.values else "not known"
    lines = [
        f"pictures: {seen.n_pictures}, values {seen.low:.3g} to {seen.high:.3g}",
        f"masks: {len(seen.present)} of {n} classes, {seen.ids[VOID] / seen.ids.total():.1%} void, values {files}",
        f"log: {len(losses)} epochs, loss {losses[0]:.3g} to {losses[-1]:.3g}" if seen.log else "log: not given",
        f"answers: {len(seen.answers.ids)} classes" if seen.answers else "answers: no network was given",
        f"edges: of {seen.alignment.n_images} images, compared with the boundaries in their masks",
    ]  # fmt: skip
    if not faults and max(seen.present) < 32:
        black = f"as grey pictures, ids up to {max(seen.present)} look black, and that is fine"
        lines.append(f"{black}: unet_helpers.labels.colorize(mask, labels) shows them")
    return lines


def _some(values: Iterable[int]) -> str:
    values = sorted(values)
    return ", ".join(map(str, values[:16])) + (f" and {len(values) - 16} more" if len(values) > 16 else "")


# ---- faults of the data ----


def _faults_of_pictures(seen: Evidence) -> Iterator[Finding]:
    if not math.isfinite(seen.low + seen.high):
        cure = "look for a division by 0 where you scale the pictures, or give them as they are, 0 to 255"
        yield Finding("nan", "no numbers", "The pictures hold values that are no finite numbers.", cure)
    elif (seen.low < 0 or seen.high <= 1) and (seen.answers is None or seen.answers.rescales):
        evidence = f"The pictures' values are {seen.low:.3g} to {seen.high:.3g}; the network scales 0 to 255 itself"
        cure = "give the pictures as they are, 0 to 255, and train anew"
        scaled, whole = seen.answers.accuracy if seen.answers else (0, 0)
        if whole > scaled + 0.1:  # it knows pictures of 0..255
            evidence += f": {scaled:.0%} of its answers are right, and {whole:.0%} with the pictures scaled back"
            cure = "give the pictures as they are, 0 to 255; they were so in the training, which is fine"
        yield Finding("stuck", "scaled twice", f"{evidence}.", cure)


def _faults_of_masks(seen: Evidence) -> Iterator[Finding]:
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


def _faults_of_alignment(seen: Evidence) -> Iterator[Finding]:
    alignment = seen.alignment
    measured = f"In {alignment.n_images} pairs the edges of the images were compared with the boundaries in the masks"
    if alignment.shift:
        down, right = alignment.shift
        ways = [f"{abs(down)} pixels {'down' if down > 0 else 'up'}"] * bool(down)
        ways += [f"{abs(right)} pixels {'right' if right > 0 else 'left'}"] * bool(right)
        evidence = f"{measured}: the masks lie {' and '.join(ways)} of where they fit, at the network's image size."
        yield Finding("low mIoU", "shifted masks", evidence, "export the masks anew, each with the crop of its image")
    elif alignment.n_others:
        evidence = f"{measured}: {alignment.n_others} images fit the mask of another image, and not their own."
        cure = "look at the pairs (plots.show_pairs), and give each mask the name of its image"
        yield Finding("low mIoU", "masks of other images", evidence, cure)


# ---- symptoms, and what they mean where no fault of the data explains them ----


def _symptoms(seen: Evidence) -> Iterator[tuple[str, str]]:
    """What is wrong, the worst first: (symptom, what was measured). Of two for one symptom, the second tells more."""
    answers, loss = seen.answers, seen.log.get("loss")
    if answers and not answers.finite:
        yield "nan", "Weights of the network are no finite numbers"
    for name in ("val_loss", "loss"):
        bad = np.flatnonzero(~np.isfinite(seen.log.get(name, ())))
        if bad.size:
            yield "nan", f"The {name} is {seen.log[name][bad[0]]} in epoch {bad[0] + 1} of {len(loss)}"
    if answers:
        k, pixels = answers.ids.most_common(1)[0]
        share, truth = pixels / answers.ids.total(), answers.true[k] / max(1, answers.true.total())
        if 1 - share <= 0.1 * (1 - truth):
            yield "all black", f"{seen.labels.names[k]!r} is {share:.1%} of the answers and {truth:.1%} of the truth"
    if answers and answers.lags:
        yield "low mIoU", f"The network's mIoU on training batches is {answers.miou[0]:.2f}"
    if seen.log and _knows_little(seen, "mIoU"):
        symptom = "stuck" if _is_flat(loss) or loss[-1] > _guess(seen) else "low mIoU"
        yield symptom, f"The loss is {loss[0]:.3g} in the first epoch and {loss[-1]:.3g} in the last of {len(loss)}"
    elif {"mIoU", "val_mIoU"} <= seen.log.keys() and (_overfits(seen) or _knows_little(seen, "val_mIoU")):
        scores = f"{seen.log['mIoU'][-1]:.2f} in training and {seen.log['val_mIoU'][-1]:.2f} in validation"
        yield "low mIoU", f"In the last epoch the mIoU is {scores}"


def _is_flat(loss: np.ndarray) -> bool:
    return len(loss) > 1 and loss[-1] >= 0.95 * loss[0]


def _guess(seen: Evidence) -> float:
    """The loss of answering at random: cross-entropy, and at most 1 for Dice."""
    return math.log(seen.labels.n_classes) + 1


def _knows_little(seen: Evidence, name: str) -> bool:
    """Whether the last epoch was hardly better than the baseline; name: "mIoU" or "val_mIoU"."""
    loss = seen.log["loss"]
    if name in seen.log:
        baseline = seen.shares.max(initial=0) / max(1, len(seen.shares))
        return seen.log[name][-1] <= baseline + (0.5 if loss[-1] > _guess(seen) else 0.1) * (1 - baseline)
    return _is_flat(loss) and loss[-1] > 0.8 * _entropy(seen) or loss[-1] > 10 * _guess(seen)


def _entropy(seen: Evidence) -> float:
    """The cross-entropy of predicting the classes' shares everywhere."""
    return float(-np.sum(seen.shares * np.log(seen.shares)))


def _overfits(seen: Evidence) -> bool:
    """Whether validation lost what training won. Statistics that lag look alike in the log, so a network is needed."""
    loss, miou = (seen.log.get(name, np.array([])) for name in ("val_loss", "val_mIoU"))
    if not (loss.size and miou.size and "mIoU" in seen.log and seen.answers) or seen.answers.lags:
        return False
    risen = loss[-1] > 1.5 * loss.min() and loss.argmin() < 0.75 * len(loss)
    # Those of an earlier epoch may lag where the validation mIoU fell as well.
    return bool(risen and miou[-1] > 0.7 * miou.max() and seen.log["mIoU"][-1] > miou[-1] + 0.2)


def _fault_of_training(seen: Evidence, symptom: str, measured: str) -> Finding:
    lower = "divide the learning rate by ten, again and again, until the loss falls"
    highest = {name: max(seen.log.get(name, []), default=0) / _guess(seen) for name in ("loss", "val_loss")}
    too_high = Finding(symptom, "rate far too high", f"{measured}. ", f"{lower}, and train anew")
    if symptom == "nan":
        return too_high._replace(evidence=f"{measured}, though pictures and masks are numbers.")
    # With statistics that lag, or overfitting, the validation loss rises, too: some ten times, and alone.
    learned = "mIoU" in seen.log and not _knows_little(seen, "mIoU")
    if highest["loss"] > 10 or highest["val_loss"] > (1000 if learned else 10):
        rose = max(highest.values()) * _guess(seen)
        evidence = f"The loss rose to {rose:.3g}; answering at random costs {_guess(seen) - 1:.2f}."
        return too_high._replace(evidence=evidence)
    if seen.answers and seen.answers.lags:
        evidence = f"{measured}, and {seen.answers.miou[1]:.2f} with means and variances estimated anew from them."
        cure = "train once more with this version, which estimates them before each validation; all else may stay"
        return Finding(symptom, "statistics that lag", f"{evidence} Those of batch normalization lag.", cure)
    if _overfits(seen):
        low, last = min(seen.log["val_loss"]), seen.log["val_loss"][-1]
        evidence = f"{measured}; the validation loss fell to {low:.3g} and rose to {last:.3g}."
        return Finding(symptom, "overfitting", evidence, "train with more images, with augmentation, or fewer epochs")
    if seen.answers and seen.answers.spread < 1e-3:
        return too_high._replace(evidence=f"{measured}. All pixels get the same logits.")
    return _fault_of_time(seen, symptom, measured)


def _fault_of_time(seen: Evidence, symptom: str, measured: str) -> Finding:
    loss = seen.log.get("loss")
    if loss is None or len(loss) > 1 and not _knows_little(seen, "mIoU"):
        return Finding(symptom, "not found", f"{measured}. Neither images nor masks nor log tell why.", "")
    if len(loss) == 1:
        return Finding(symptom, "too short", f"{measured}: there was one epoch only.", "train longer")
    last = max(1, len(loss) // 4)  # epochs: a quarter of them
    falls = loss[-1] < 0.99**last * loss[-1 - last]
    if seen.shares.max(initial=0) > 0.8 and loss[-1] < min(0.9 * loss[0], 1.2 * _entropy(seen) if falls else math.inf):
        cure = "train longer, with Dice (losses.cross_entropy_and_dice) or losses.class_weights"
        return Finding(symptom, "class imbalance", f"{measured}: the others hardly count in the loss.", cure)
    if falls:
        return Finding(symptom, "too short", f"{measured}; the loss was still falling.", "train longer")
    return Finding(symptom, "not found", f"{measured}. Neither images nor masks nor log tell why.", "")
