"""How good the masks are: one confusion matrix over a whole split, and what follows from it."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np

from .images import decode_image, decode_mask, fit_image
from .labels import VOID, LabelMap, Pair
from .prediction import average_with_flipped, predict_logits, write_prediction


@dataclass(frozen=True)
class Scores:
    """Scores of N pictures; void pixels are left out everywhere.

    labels: the K classes.
    per_image: (N, K, K) int64, each picture's confusion matrix in pixels: row = true class, column = predicted.
    without_tta: the scores without the mirrored picture's answer, where both were taken.
    without_ego: the scores without the pixels of the camera's own car, where they are known.
    """

    labels: LabelMap
    per_image: np.ndarray
    without_tta: "Scores | None" = None
    without_ego: "Scores | None" = None

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) int64: the confusion matrix of all pictures together."""
        return self.per_image.sum(axis=0)

    @property
    def accuracy(self) -> float:
        """Share of the pixels with the right class, 0..1."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def iou(self) -> np.ndarray:
        """(K,) intersection over union of each class, 0..1; NaN if it is neither in the truth nor predicted."""
        return _iou(self.confusion)

    @property
    def miou(self) -> float:
        """Mean of iou over the classes present, 0..1, as `keras.metrics.MeanIoU` has it."""
        return float(np.nanmean(self.iou))

    @property
    def image_miou(self) -> np.ndarray:
        """(N,) mIoU of each picture alone, over the classes present in it: to sort pictures by, not to report.

        NaN for a picture that is void everywhere.
        """
        return np.array([np.nanmean(_iou(c)) if c.any() else np.nan for c in self.per_image])

    @property
    def worst_first(self) -> np.ndarray:
        """Numbers of the pictures, the one with the lowest mIoU first, without those that are void everywhere."""
        miou = self.image_miou
        return np.argsort(miou)[: np.count_nonzero(~np.isnan(miou))]

    def baseline(self, class_id: int) -> "Scores":
        """What always answering class_id would score on the same pictures: the score to beat."""
        constant = np.zeros_like(self.per_image)
        constant[:, :, class_id] = self.per_image.sum(axis=2)
        return Scores(self.labels, constant)

    def table(self) -> str:
        """One line a class: its share of the true pixels and its IoU, the rarest class last."""
        share = self.confusion.sum(axis=1) / self.confusion.sum()
        lines = [f"{'class':<16}{'pixels %':>10}{'IoU':>8}"]
        for k in np.argsort(-share):
            iou = "absent" if np.isnan(self.iou[k]) else f"{self.iou[k]:.3f}"
            lines.append(f"{self.labels.names[k]:<16}{100 * share[k]:>10.3f}{iou:>8}")
        return "\n".join(lines)


def _iou(confusion: np.ndarray) -> np.ndarray:
    intersection = np.diag(confusion).astype(float)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def confusion_matrices(true: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """(N, H, W) true ids (255 = void, left out) and predicted ids 0..K-1 -> (N, K, K) int64, a row for each true class.

    Raises ValueError if the shapes differ or an id is out of range: a wrong id must not vanish from the scores.
    """
    if true.shape != predicted.shape:
        raise ValueError(f"true and predicted masks differ in shape: {true.shape} and {predicted.shape}")
    valid = true != VOID
    for name, ids in (("true", true[valid]), ("predicted", predicted[valid])):
        if ids.size and ids.max() >= n_classes:
            raise ValueError(f"{name}: found class id {ids.max()}, expected 0..{n_classes - 1}")
    picture = np.broadcast_to(np.arange(len(true)).reshape(-1, *[1] * (true.ndim - 1)), true.shape)[valid]
    cell = (picture * n_classes + true[valid]) * n_classes + predicted[valid]
    counts = np.bincount(cell, minlength=len(true) * n_classes**2)
    return counts.reshape(len(true), n_classes, n_classes)


def evaluate_model(
    model: keras.Model, pairs: Iterable[Pair], labels: LabelMap, image_size: tuple[int, int], *,
    ego_mask: np.ndarray | None = None, tta: bool = True,
) -> Scores:  # fmt: skip
    """Scores of a network on pairs of files, one after another, each at its mask's own size, as `predict_mask` answers.

    image_size: (height, width) at which the network looks at a picture, whose proportions are kept.
    ego_mask: (H, W) bool, the camera's own car. If all masks are as large, Scores.without_ego leaves it out.
    tta: take the mean of the answers about the picture and its mirror image; Scores.without_tta does without.
    Raises ValueError if there are no pairs, or, naming the file, if picture and mask differ in size.
    """
    found = {"both": [], "without_tta": [], "without_ego": []}

    def count(name: str, true: np.ndarray, predicted: np.ndarray) -> None:
        found[name].append(confusion_matrices(true[None], predicted[None], labels.n_classes))

    for pair in pairs:
        image, true = decode_image(str(pair.image)).numpy(), decode_mask(str(pair.mask), labels).numpy()[..., 0]
        if image.shape[:2] != true.shape:
            raise ValueError(f"{pair.mask}: found {true.shape}, expected {image.shape[:2]} as its picture; check both")
        letterboxed, predicted = fit_image(image, image_size)[None], np.empty_like(true)
        logits = predict_logits(model, letterboxed)
        if tta:
            count("without_tta", true, write_prediction(logits[0], image_size, predicted))
            logits = average_with_flipped(model, letterboxed, logits)
        count("both", true, write_prediction(logits[0], image_size, predicted))
        if ego_mask is not None and ego_mask.shape != true.shape:
            ego_mask = None  # from pictures of several sizes nobody knows where the car is
            found["without_ego"].clear()
        if ego_mask is not None:
            count("without_ego", np.where(ego_mask, VOID, true), predicted)
    if not found["both"]:
        raise ValueError("pairs: found none, expected at least one picture with its mask")
    without_tta, without_ego = (
        Scores(labels, np.concatenate(found[name])) if found[name] else None for name in ("without_tta", "without_ego")
    )
    return Scores(labels, np.concatenate(found["both"]), without_tta, without_ego)
