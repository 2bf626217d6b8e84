"""Three questions that one run of the lesson can't answer, each measured with several seeds.

What do skip connections gain, how much do neighbouring frames leak, what does scaling images twice cost?

    python benchmarks/lesson.py --seeds 0,1,2

Trains part 1's network on the drawn scenes as part 1 does, with and without skip connections, and once with a division
by 255 before its own rescaling, in training and prediction alike. Trainings are measured in epochs, not minutes, so
other work on the machine changes nothing. After each of --epochs the network is scored on the validation drives and on
the frames of the training drives that were set aside. Rewrites --out, which the notebook reads, after each training.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
from learning import notebook_recipe

from unet_helpers.datasets import Dataset, load_dataset
from unet_helpers.evaluation import evaluate_model
from unet_helpers.labels import VOID
from unet_helpers.model import PLAIN, unet_model
from unet_helpers.pipeline import make_batches
from unet_helpers.recipe import Recipe
from unet_helpers.storage import write_json

FILE = Path(__file__).resolve().parent / "lesson_demo.json"


def train(
    recipe: Recipe, dataset: Dataset, skips: bool, seed: int, epochs: list[int], scaled_twice: bool = False
) -> dict:
    """{"skips", "seed", "new drives": mIoU after each of epochs, "set aside": the same}, without TTA."""
    labels, size = dataset.labels, recipe.output_size
    splits = {"new drives": dataset.validation, "set aside": dataset.train[9::10]}
    learned = [pair for pair in dataset.train if pair not in splits["set aside"]]
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    network = unet_model(
        (*size, 3), recipe.n_filters, labels.n_classes, skip_connections=skips, **PLAIN
    )  # fmt: skip
    if scaled_twice:
        network = keras.Sequential([keras.Input((*size, 3)), keras.layers.Rescaling(1 / 255), network])
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID)
    network.compile(keras.optimizers.Adam(1e-3), cross_entropy, jit_compile=False)
    batches = make_batches(learned, labels, size, recipe.batch_size, shuffle=True, seed=seed)
    result: dict = {"skips": skips, "seed": seed} | {name: [] for name in splits}
    for begun, end in zip([0, *epochs], epochs, strict=False):
        network.fit(batches, initial_epoch=begun, epochs=end, shuffle=False, verbose=0)
        for name, pairs in splits.items():
            scores = evaluate_model(network, pairs, labels, size, tta=False)
            result[name].append(round(scores.miou, 4))
    return result


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data", help="where the drawn scenes are, or go (default: data)")
    parser.add_argument("--epochs", default="10,20", help="after which to score, rising (default: 10,20)")
    parser.add_argument("--seeds", default="0,1,2", help="such as 0,1,2, which is the default")
    parser.add_argument("--out", type=Path, default=FILE, help="default: %(default)s")
    options = parser.parse_args(arguments)
    recipe, epochs = notebook_recipe("demo"), [int(text) for text in options.epochs.split(",")]
    dataset = load_dataset("demo", options.data, frames_per_drive=recipe.frames_per_drive)
    record = {"data": f"demo, {len(dataset.validation)} images of new drives", "epochs": epochs}
    record |= {"trainings": [], "scaled twice": []}
    for seed in map(int, options.seeds.split(",")):
        for skips, scaled_twice in ((True, False), (False, False), (True, True)):
            part = record["scaled twice" if scaled_twice else "trainings"]
            part.append(train(recipe, dataset, skips, seed, epochs, scaled_twice))
            print(part[-1], flush=True)
            write_json(options.out, record)
    return record


if __name__ == "__main__":
    main()
