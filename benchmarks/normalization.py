"""What is batch normalization worth to the whole recipe?

    python benchmarks/normalization.py --data data --dataset demo --epochs 16 --seeds 0,1,2
    python benchmarks/normalization.py --data path/to/camvid --dataset camvid --epochs 12 --seeds 0,1,2

Trains the notebook's recipe from scratch with and without batch normalization; without it also at lower rates
(--rates). Trainings are measured in epochs, not minutes, so other work on the machine changes nothing. Prints the
validation mIoU with and without TTA.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
from learning import notebook_recipe

from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.datasets import Dataset, load_dataset
from unet_helpers.evaluation import Scores, evaluate_model
from unet_helpers.model import PLAIN, PreciseStatistics, unet_model
from unet_helpers.optimizers import WarmupStableDecay
from unet_helpers.pipeline import make_batches
from unet_helpers.training import ProgressiveResizing, compile_unet


def train(dataset: Dataset, normalization: str | None, rate: float, seed: int, epochs: int) -> Scores:
    """Scores on the validation split."""
    recipe, labels = notebook_recipe(dataset.name), dataset.labels
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    resizing = ProgressiveResizing(recipe.image_size, recipe.size_stages, epochs)
    model = unet_model(
        (None, None, 3), recipe.n_filters, labels.n_classes,
        **PLAIN | {"normalization": normalization, "half_resolution": recipe.half_resolution},
    )  # fmt: skip
    batches = make_batches(
        dataset.train, labels, recipe.image_size, recipe.batch_size, mask_size=recipe.output_size, shuffle=True,
        augment=[RandomResizedCrop()], seed=seed, resizing=resizing,
    )  # fmt: skip
    compile_unet(model, labels.n_classes, WarmupStableDecay(len(batches) * epochs, rate))
    model.fit(batches, epochs=epochs, verbose=0, shuffle=False, callbacks=[resizing, PreciseStatistics(batches)])
    return evaluate_model(model, dataset.validation, labels, recipe.image_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data", help="folder of the data set (default: data)")
    parser.add_argument("--dataset", default="demo", help="demo or camvid (default: demo)")
    parser.add_argument("--epochs", type=int, default=16, help="default: 16")
    parser.add_argument("--rates", default="0.02,0.005", help="without normalization (default: 0.02,0.005)")
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    options = parser.parse_args()
    dataset = load_dataset(options.dataset, options.data)
    recipe = notebook_recipe(dataset.name)
    trainings = [("batch", recipe.learning_rate), *((None, float(rate)) for rate in options.rates.split(","))]
    for seed in map(int, options.seeds.split(",")):
        for normalization, rate in trainings:
            scores = train(dataset, normalization, rate, seed, options.epochs)
            name = f"{dataset.name}, {options.epochs} epochs, normalization {normalization}, rate {rate:g}, seed {seed}"
            print(f"{name}: mIoU {scores.miou:.3f}, without TTA {scores.without_tta.miou:.3f}", flush=True)


if __name__ == "__main__":
    main()
