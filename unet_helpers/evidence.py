"""What a training shows of itself: the values in its batches and mask files, its log, its network's answers."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from .decoding import decode_image
from .evaluation import Scores, confusion_matrices
from .labels import VOID, LabelMap, Pair
from .normalization import PreciseStatistics
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
        evidence.values += count(decode_image(str(pair.mask)).numpy()[..., 0])  # red, which training reads
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
