"""What a training shows of itself: the values in its batches and mask files, its log, its network's answers."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from .decoding import decode_image
from .labels import VOID, LabelMap, Pair
from .prediction import predict_logits

N_BATCHES, N_ASKED, N_FILES = 50, 4, 100  # are looked at: batches, those that the network answers, mask files


@dataclass
class Answers:
    """What a network says to a few batches. ids, true: {id: pixels} of its answers, and of the masks, without void.

    accuracy: share of the right pixels of the first batch, 0..1; the same if its pictures, of -1..1 or 0..1, are scaled
        back to 0..255.
    spread: how much the logits differ between pixels, as a share of the largest; 0: the answer depends on nothing.
    finite: whether all weights are finite numbers. rescales: whether the network rescales the pictures by itself.
    """

    finite: bool
    rescales: bool
    ids: Counter = field(default_factory=Counter)
    true: Counter = field(default_factory=Counter)
    accuracy: tuple[float, float] = (0.0, 0.0)
    spread: float = 0.0


@dataclass
class Evidence:
    """labels: the K classes. log: {"loss": (n_epochs,) float, ...}, {} if not known. answers: None if not known.

    n_pictures: that were looked at. low, high: of their values, nan if one is no number.
    ids: {id: pixels} of the masks in the batches. values: {value: pixels} in mask files, {} if not known.
    """

    labels: LabelMap
    log: dict[str, np.ndarray]
    answers: Answers | None = None
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
        evidence.answers = _ask(model, first)
    readers = getattr(batches, "readers", None)  # those of `make_batches` know their pairs
    pairs = pairs or (readers.reader.pairs if readers else ())
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
        first += [(images, masks)] * (len(first) < N_ASKED)
    if not first:
        raise ValueError("batches: found none, expected at least one batch of pictures and masks")
    return first


def _ask(model: keras.Model, batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> Answers:
    finite = all(np.isfinite(weights).all() for weights in model.get_weights())
    answers = Answers(finite, any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers))
    for images, masks in batches:
        logits = predict_logits(model, images)
        answers.ids += count(logits.argmax(axis=-1))
        answers.true += count(masks[masks != VOID])
        if np.isfinite(logits).all():
            spread = logits.std(axis=(0, 1, 2), dtype=float).max() / max(1, np.abs(logits).max())
            answers.spread = max(answers.spread, float(spread))
    images, masks = batches[0]
    known = masks[..., 0] != VOID
    whole = (images + 1) * np.float32(127.5) if images.min() < 0 else images * np.float32(255)
    asked = (keras.ops.image.resize(predict_logits(model, x), masks.shape[1:3]) for x in (images, whole))
    right = [keras.ops.convert_to_numpy(keras.ops.argmax(logits, axis=-1)) == masks[..., 0] for logits in asked]
    answers.accuracy = tuple(float(both[known].mean()) if known.any() else 0.0 for both in right)
    return answers
