"""Scores: one confusion matrix over a whole split, and what follows from it."""

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np

from .images import decode_image, decode_mask, fit_image
from .labels import VOID, LabelMap, Pair
from .prediction import average_with_flipped, predict_logits, write_prediction


@dataclass(frozen=True)
class Scores:
    """Scores of N images; void pixels are left out everywhere."""

    labels: LabelMap  # the K classes
    per_image: np.ndarray  # (N, K, K) int64, pixels of each image: row = true class, column = predicted class
    without_tta: "Scores | None" = None  # the scores without test-time augmentation, if it was used

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) int64: the confusion matrix of all images together."""
        return self.per_image.sum(axis=0)

    @property
    def accuracy(self) -> float:
        """Share of the pixels with the right class, 0..1."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def iou(self) -> np.ndarray:
        """(K,) intersection over union of each class, 0..1; NaN if it is neither in the ground truth nor predicted."""
        return _iou(self.confusion)

    @property
    def miou(self) -> float:
        """Mean of iou over the classes present, 0..1, as in `keras.metrics.MeanIoU`."""
        return float(np.nanmean(self.iou))

    @property
    def image_miou(self) -> np.ndarray:
        """(N,) mIoU of each image over the classes present in it, NaN if it is all void: to sort by, not to report."""
        return np.array([np.nanmean(_iou(c)) if c.any() else np.nan for c in self.per_image])

    @property
    def worst_first(self) -> np.ndarray:
        """Indices of the images, that with the lowest mIoU first, without those that are all void."""
        miou = self.image_miou
        return np.argsort(miou)[: np.count_nonzero(~np.isnan(miou))]

    def baseline(self, class_id: int) -> "Scores":
        """The scores of predicting class_id everywhere on the same images: the baseline to beat."""
        constant = np.zeros_like(self.per_image)
        constant[:, :, class_id] = self.per_image.sum(axis=2)
        return Scores(self.labels, constant)

    def table(self) -> str:
        """One line per class: its share of the true pixels and its IoU, the rarest class last."""
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
    Raises ValueError if the shapes differ or an id is out of range: a wrong id must not vanish from the scores."""
    if true.shape != predicted.shape:
        raise ValueError(f"true and predicted masks differ in shape: {true.shape} and {predicted.shape}")
    valid = true != VOID
    for name, ids in (("true", true[valid]), ("predicted", predicted[valid])):
        if ids.size and ids.max() >= n_classes:
            raise ValueError(f"{name}: found class id {ids.max()}, expected 0..{n_classes - 1}")
    image = np.repeat(np.arange(len(true)), np.count_nonzero(valid, axis=tuple(range(1, valid.ndim))))
    cell = (image * n_classes + true[valid]) * n_classes + predicted[valid]
    counts = np.bincount(cell, minlength=len(true) * n_classes**2)
    return counts.reshape(len(true), n_classes, n_classes)


def evaluate_model(
    model: keras.Model, pairs: Iterable[Pair], labels: LabelMap, image_size: tuple[int, int], *,
    tta: bool = True,
) -> Scores:  # fmt: skip
    """Scores of a network on pairs of files, one at a time, each at its mask's own size, as by `predict_mask`.
    image_size: (height, width) of the network's input; images are letterboxed into it.
    tta: test-time augmentation, the mean with the prediction for the flipped image; Scores.without_tta is without.
    Raises ValueError if there are no pairs, or, naming the file, if image and mask differ in size."""
    found, without_tta = [], []
    for pair in pairs:
        image, true = decode_image(pair.image), decode_mask(pair.mask, labels)[..., 0]
        if image.shape[:2] != true.shape:
            raise ValueError(f"{pair.mask}: found {true.shape}, expected {image.shape[:2]} as its image; check both")
        letterboxed, predicted = fit_image(image, image_size)[None], np.empty_like(true)
        logits = predict_logits(model, letterboxed)
        if tta:
            write_prediction(logits[0], image_size, predicted)
            without_tta.append(confusion_matrices(true[None], predicted[None], labels.n_classes))
            logits = average_with_flipped(model, letterboxed, logits)
        write_prediction(logits[0], image_size, predicted)
        found.append(confusion_matrices(true[None], predicted[None], labels.n_classes))
    if not found:
        raise ValueError("pairs: found none, expected at least one image with its mask")
    return Scores(labels, np.concatenate(found), Scores(labels, np.concatenate(without_tta)) if tta else None)
