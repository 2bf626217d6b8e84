"""From drawn to real: what does transfer learning from drawn scenes gain on photographs?

    python benchmarks/transfer.py --data path/to/camvid --trainings scratch,drawn,long --seeds 0,1,2

Trains the notebook's recipe on CamVid, by epochs, not minutes, so that other work on the machine changes nothing:
`scratch`; `drawn`, transfer learning from the network of the drawn scenes; `frozen`, the same with a frozen encoder;
`long`, from scratch, for as many extra pixels as the training on drawn scenes saw. NAME@RATE gives a training another
learning rate; --network and --note try another network. After each epoch the network is scored on all validation
photographs, at that epoch's image size and without TTA; after the last one also with TTA. Each training is added to
trainings.json in --out, from which transfer.json, read by the notebook, is written.
"""

import argparse
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import keras
import numpy as np
from learning import notebook_recipe

from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.datasets import Dataset, load_dataset
from unet_helpers.evaluation import evaluate_model
from unet_helpers.model import PLAIN, PreciseStatistics, unet_model
from unet_helpers.networks import DRAWN_SCENES, transfer_weights
from unet_helpers.optimizers import WarmupStableDecay
from unet_helpers.pipeline import make_batches
from unet_helpers.recipe import Recipe, stage_of
from unet_helpers.storage import read_json, write_json
from unet_helpers.training import ProgressiveResizing, compile_unet

TRAININGS = {
    "scratch": "from scratch", "drawn": "from the drawn scenes", "frozen": "from the drawn scenes, encoder frozen",
    "long": "long: from scratch",
}  # fmt: skip
DRAWN_EPOCHS, DRAWN_IMAGES = 48, 380  # of the training that made DRAWN_SCENES


class ScoreEpochs(keras.callbacks.Callback):
    """Scores the network after each epoch: mIoU without TTA."""

    def __init__(self, dataset: Dataset, resizing: ProgressiveResizing):
        super().__init__()
        self.dataset, self.resizing, self.miou = dataset, resizing, []

    def on_epoch_end(self, epoch, logs=None):
        size = self.resizing.sizes[self.resizing.stage]
        scores = evaluate_model(self.model, self.dataset.validation, self.dataset.labels, size, tta=False)
        self.miou.append(round(scores.miou, 4))


def pixels_seen(recipe: Recipe, n_images: int, epochs: int) -> float:
    """Pixels of all images of a training."""
    stages = [stage_of(epoch, epochs, recipe.size_stages) for epoch in range(epochs)]
    return n_images * float(np.prod(recipe.image_size)) * sum(recipe.size_stages[k][1] ** 2 for k in stages)


def long_epochs(dataset: Dataset, epochs: int) -> int:
    """The fewest epochs with as many pixels as the training on drawn scenes and these epochs together."""
    recipe = notebook_recipe("camvid")
    both = pixels_seen(notebook_recipe("demo"), DRAWN_IMAGES, DRAWN_EPOCHS)
    both += pixels_seen(recipe, len(dataset.train), epochs)
    return next(n for n in itertools.count(epochs) if pixels_seen(recipe, len(dataset.train), n) >= both)


def train(name: str, rate: str, network: Path, dataset: Dataset, seed: int, epochs: int) -> dict:
    """One training: {"name", "seed", "epochs", "curve": mIoU of each epoch, "without_tta", "miou"}.

    name: one of TRAININGS. rate: as typed; "": the notebook's.
    """
    recipe, labels = notebook_recipe("camvid"), dataset.labels
    epochs = long_epochs(dataset, epochs) if name == "long" else epochs
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    resizing = ProgressiveResizing(recipe.image_size, recipe.size_stages, epochs)
    model = unet_model(
        (None, None, 3), recipe.n_filters, labels.n_classes,
        **PLAIN | {"normalization": "batch", "half_resolution": recipe.half_resolution},
    )  # fmt: skip
    if name in ("drawn", "frozen"):
        transfer_weights(model, labels, network, freeze_encoder=name == "frozen")
    batches = make_batches(
        dataset.train, labels, recipe.image_size, recipe.batch_size, mask_size=recipe.output_size, shuffle=True,
        augment=[RandomResizedCrop()], seed=seed, resizing=resizing,
    )  # fmt: skip
    compile_unet(model, labels.n_classes, WarmupStableDecay(len(batches) * epochs, float(rate or recipe.learning_rate)))
    scoring = ScoreEpochs(dataset, resizing)
    callbacks = [resizing, PreciseStatistics(batches), scoring]
    model.fit(batches, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=False)
    scores = evaluate_model(model, dataset.validation, labels, recipe.image_size)
    return {
        "name": TRAININGS[name] + f", rate {rate}" * bool(rate), "seed": seed, "epochs": epochs, "curve": scoring.miou,
        "without_tta": round(scores.without_tta.miou, 4), "miou": round(scores.miou, 4),
    }  # fmt: skip


def summary(results: list[dict], data: str) -> dict:
    """What the notebook reads: for each training the mIoU with TTA of each seed, and the mean of its curves."""
    trainings: dict[str, list[dict]] = {}
    for result in results:
        trainings.setdefault(result["name"], []).append(result)
    rows = [
        {
            "name": name, "epochs": group[0]["epochs"], "seeds": [one["seed"] for one in group],
            "miou": [one["miou"] for one in group],
            "curve": np.mean([one["curve"] for one in group], axis=0).round(4).tolist(),
        }
        for name, group in trainings.items()
    ]  # fmt: skip
    return {"data": data, "trainings": rows}


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data", help="folder of CamVid (default: data)")
    parser.add_argument("--network", type=Path, default=DRAWN_SCENES, help="of drawn scenes (default: the project's)")
    parser.add_argument("--note", default="", help="what is special about --network, added to the trainings' names")
    parser.add_argument("--trainings", default="scratch,drawn,long", help=f"NAME or NAME@RATE: {', '.join(TRAININGS)}")
    parser.add_argument("--epochs", type=int, default=12, help="of photographs (default: 12)")
    parser.add_argument("--seeds", default="0,1,2", help="such as 0,1,2, which is the default")
    parser.add_argument("--out", type=Path, default=Path("build/transfer"), help="default: build/transfer")
    options = parser.parse_args(arguments)
    trainings = [text.partition("@") for text in options.trainings.split(",")]
    if unknown := {name for name, _, _ in trainings} - set(TRAININGS):
        parser.error(f"--trainings: found {', '.join(unknown)}, expected some of {', '.join(TRAININGS)}")
    dataset = load_dataset("camvid", options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    results = read_json(options.out / "trainings.json") or []
    for seed in map(int, options.seeds.split(",")):
        for name, _, rate in trainings:
            result = train(name, rate, options.network, dataset, seed, options.epochs)
            results.append(result | {"name": result["name"] + options.note})
            print({key: value for key, value in results[-1].items() if key != "curve"}, flush=True)
            found = summary(results, f"CamVid, validation: {len(dataset.validation)} photographs")
            write_json(options.out / "trainings.json", results)
            write_json(options.out / "transfer.json", found)
    return found


if __name__ == "__main__":
    main()
