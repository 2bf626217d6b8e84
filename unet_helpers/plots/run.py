"""The figures in a run's folder, for people: what a training saw, how it went, and what came of it."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from ..checkpoints import read_log
from ..datasets import Dataset
from ..evaluation import evaluate_model
from ..images import decode_image, decode_mask
from ..prediction import predict_mask
from ..storage import write_whole
from .charts import plot_confusion, plot_curves
from .columns import show_columns, show_predictions

MOST = 100  # validation images that are scored, evenly spaced
N_SHOWN, N_OF_BATCH = 3, 4  # best images and worst images; images of the first batch


def write_run_figures(
    run_dir: str | Path, model: keras.Model, dataset: Dataset, image_size: tuple[int, int], batch,
    changes: Sequence[tuple[float, str]] = (),
) -> list[Path]:  # fmt: skip
    """Write curves.png, confusion.png, first_batch.png and best_and_worst.png to a run's folder; returns their paths.
    model, image_size: from `checkpoints.load_best`; scored on at most MOST validation images, without TTA.
    batch: (images, masks), the training's first, as `pipeline.make_batches` gives it. changes: of `plot_curves`."""
    run_dir, labels, pairs = Path(run_dir), dataset.labels, dataset.validation[:: 1 + len(dataset.validation) // MOST]
    scores = evaluate_model(model, pairs, labels, image_size, tta=False)
    order = scores.worst_first.tolist()
    worst = order[: min(N_SHOWN, len(order) // 2)]
    best = order[::-1][: min(N_SHOWN, len(order) - len(worst))]
    images = [decode_image(pairs[k].image) for k in best + worst]
    true = [decode_mask(pairs[k].mask, labels)[..., 0] for k in best + worst]
    predicted = [predict_mask(model, image, image_size, tta=False) for image in images]
    titles = [f"{kind}: {pairs[k].image.stem}" for kind, some in (("best", best), ("worst", worst)) for k in some]
    first_images, first_masks = (keras.ops.convert_to_numpy(part)[:N_OF_BATCH] for part in batch)
    columns = {"image": first_images.round().astype(np.uint8), "mask": first_masks[..., 0]}
    figures = {
        "curves": plot_curves(read_log(run_dir), changes, loss_name="cross-entropy + Dice"),
        "confusion": plot_confusion(scores), "first_batch": show_columns(columns, labels),
        "best_and_worst": show_predictions(images, true, predicted, labels, titles),
    }  # fmt: skip
    for name, figure in figures.items():
        write_whole(run_dir / f"{name}.png", figure.as_png())
    return [run_dir / f"{name}.png" for name in figures]
