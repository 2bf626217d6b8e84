"""train: the recipe of the notebook's part 3, from its cells `recipe-batches`, `recipe-network` and `train`."""

import time
from importlib.util import find_spec
from pathlib import Path

import keras

from ..augmentation import RandomResizedCrop
from ..checkpoints import RunCheckpoint, load_best, make_plan, run_folder
from ..datasets import Dataset, load_dataset
from ..devices import alone, device_report, share, use_all
from ..labels import SPLITS
from ..model import PLAIN, PreciseStatistics, unet_model
from ..naming import counted
from ..networks import transfer_weights
from ..optimizers import WarmupStableDecay
from ..pipeline import make_batches
from ..plots import write_run_figures
from ..processes import expect_file, from_first, is_first, join
from ..recipe import Recipe, make_recipe, note_better_size
from ..storage import read_json
from ..training import EpochLine, ProgressiveResizing, compile_unet
from . import WrongOption, find_network
from .check import check_files

AUGMENT = [RandomResizedCrop()]


def train(*, runs: str, start_from: str | None, **options) -> int:
    """Train a network, or resume its training, and print where it is.
    The options are the notebook's parameters, in lower case, with RUN_DIR as runs: the same ones and the same data have
    the same run folder as in the notebook. Returns 0. Raises ValueError if a file is bad: then nothing is trained."""
    if start_from not in (None, "demo", "scratch"):
        start_from = str(find_network(Path(start_from)))
    parameters = {name.upper(): value for name, value in options.items()} | {"RUN_DIR": runs, "START_FROM": start_from}
    join()
    device = device_report()
    keras.config.set_dtype_policy(device["precision"])
    use_all()
    try:
        recipe = make_recipe(device["kind"], share().n_devices, **parameters)
    except ValueError as error:
        raise WrongOption(str(error)) from None
    height, width = recipe.image_size
    print(f"device: {device['name']}, precision: {device['precision']}; images of {height}x{width}", flush=True)
    data, sizes = from_first(lambda: _load(recipe))
    for path, size in sizes.items():
        expect_file(path, "DATA_DIR", size)
    run_dir = _fit(recipe, data)
    best = from_first(lambda: read_json(run_dir / "best.json"))
    if best is None:
        raise ValueError(f"{run_dir}: no network could be saved; make room on the disk and run the command again")
    print(f"validation mIoU {best['val_mIoU']:.3f} in epoch {best['epoch']}; the network: {run_dir / 'best.keras'}")
    return 0


def _load(recipe: Recipe) -> tuple[Dataset, dict[Path, int]]:
    """The data set, after each of its files was decoded once, and how many bytes the files have that training reads."""
    data = load_dataset(recipe.dataset, recipe.data_dir, **recipe.data_options)
    n_bad = 0
    for split in SPLITS:
        pairs = getattr(data, split)
        n_bad += len(pairs) - len(check_files(pairs, data.labels, split)[0])
        print(f"{split:>10}: {counted(len(pairs), 'pair')}")
    if n_bad:
        raise ValueError(f"{recipe.data_dir}: {counted(n_bad, 'bad pair')}, nothing is trained; correct or remove them")
    for split in ("train", "validation"):
        if not getattr(data, split):
            raise ValueError(f"{recipe.data_dir}: the {split} split is empty, expected at least one pair; add pairs")
    note_better_size(data.train, recipe)
    return data, {path: path.stat().st_size for pair in (*data.train, *data.validation) for path in pair}


def prepare(recipe: Recipe, data: Dataset):
    """The compiled network, its schedule, the batches of training and of validation, and what resizes them."""
    resizing = ProgressiveResizing(recipe.image_size, recipe.size_stages)
    options = {"mask_size": recipe.output_size, "resizing": resizing, "seed": recipe.seed}
    batches = make_batches(
        data.train, data.labels, recipe.image_size, recipe.batch_size, shuffle=True, augment=AUGMENT, **options
    )
    validation = make_batches(data.validation, data.labels, recipe.image_size, recipe.batch_size, **options)

    keras.utils.set_random_seed(recipe.seed)
    switches = PLAIN | {"normalization": "batch", "half_resolution": recipe.half_resolution}
    model = unet_model((None, None, 3), recipe.n_filters, data.labels.n_classes, **switches)
    if recipe.start_from:
        transfer_weights(model, data.labels, recipe.start_from, recipe.freeze_encoder)
    schedule = WarmupStableDecay(1, recipe.learning_rate)
    compile_unet(model, data.labels.n_classes, schedule)
    return model, schedule, batches, validation, resizing


def _fit(recipe: Recipe, data: Dataset) -> Path:
    """The training itself; returns the run's folder. A test compares it with the notebook's cells."""
    model, schedule, batches, validation, resizing = prepare(recipe, data)
    run_dir = from_first(lambda: run_folder(recipe, model, data, augment=AUGMENT))
    expect_file(run_dir / "settings.json", "RUN_DIR")
    plan = make_plan(run_dir, recipe, model, batches, validation, resizing, recipe.minutes)
    resizing.epochs = plan.epochs
    schedule.set_steps(plan.steps * plan.epochs)
    checkpoint = RunCheckpoint(run_dir, resizing, labels=data.labels)
    callbacks = [
        resizing, PreciseStatistics(batches), checkpoint, EpochLine(resizing, plan.speed),
        *([keras.callbacks.TensorBoard(run_dir / "tensorboard")] if is_first() and find_spec("tensorboard") else []),
    ]  # fmt: skip
    started = time.perf_counter()
    with checkpoint.interruptible():
        model.fit(
            batches.take(plan.steps), validation_data=validation, initial_epoch=checkpoint.resume(model),
            epochs=plan.epochs, callbacks=callbacks, shuffle=False, verbose=0,
        )  # fmt: skip
    print(f"trained in {time.perf_counter() - started:.0f} s")
    if is_first() and (run_dir / "best.json").is_file() and not (run_dir / "best_and_worst.png").is_file():
        resizing.on_epoch_begin(0)  # for the first batch of the first epoch
        try:
            with alone():
                best, size = load_best(run_dir, recipe.image_size)
                figures = write_run_figures(run_dir, best, data, size, next(iter(batches)), resizing.changes)
            print(f"figures: {', '.join(path.name for path in figures)}")
        except OSError as error:  # the training itself is saved
            print(f"{run_dir}: the figures can't be written ({error.strerror or error}); make room and run again")
    return run_dir
