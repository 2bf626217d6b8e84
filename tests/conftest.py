import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the notebook
os.environ.setdefault("MPLBACKEND", "agg")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

from unet_helpers.labels import LabelMap, Pair  # noqa: E402
from unet_helpers.notebook import hold_back_stderr  # noqa: E402

with hold_back_stderr():  # else what TensorFlow logs there comes from each worker, behind the last line of pytest
    import keras


LONGEST = (
    "test_notebook", "test_notebook_kernel", "test_notebook_data", "test_commands", "test_model", "test_training",
)  # fmt: skip

# What CI leaves out: `lesson` where it tests the helpers alone, on each system, and both with Colab's versions.
# pyproject.toml says what the marks mean; no file has two of them.
MARKS = {
    "lesson": ("benchmarks", "exercises", "make", "notebook", "notebook_data", "notebook_kernel", "workflows"),
    "once": (
        "commands", "commands_predict", "devices", "distribution", "drawing", "fuzz", "gpu", "resuming", "speed",
        "storage", "windows",
    ),
}


# Tests of what only TensorFlow has: the fused kernel, exports, the tests' own networks that compute with tf or NumPy.
TENSORFLOW_ONLY = {
    "test_commands_need_neither_jupyter_nor_kaggle_nor_tensorboard",
    "test_it_computes_what_keras_computes",
    "test_the_kernel_is_used_also_after_a_reload_and_not_on_backends_that_fuse_by_themselves",
    "test_statistics_are_those_of_the_batches_under_the_present_weights",
    "test_images_come_without_augmentation_and_if_they_are_few_with_it_too",
    "test_the_printed_lines_predict_as_predict_does",
    "test_evaluate_model_scores_at_the_size_of_the_masks_and_leaves_void_pixels_out",
    "test_pairs_that_can_not_be_scored_are_named",
    "test_a_wrong_prediction_shows_at_the_size_where_it_occurs",
    "test_each_format_is_measured_or_its_missing_packages_are_named",
    "test_a_loss_without_a_known_pixel_is_zero",
    "test_an_exported_network_predicts_as_keras_does",
    "test_a_network_in_half_precision_is_exported_in_single",
    "test_an_image_of_the_trainings_proportions_is_enlarged_once",
    "test_a_letterboxed_image_is_predicted_from_the_logits_that_lie_on_it",
}


def pytest_collection_modifyitems(items):
    """Marks the files; the longest first, so that parallel processes end at about the same time."""
    for item in items:
        if keras.backend.backend() != "tensorflow" and getattr(item, "originalname", item.name) in TENSORFLOW_ONLY:
            item.add_marker(pytest.mark.skip(reason="it tests what only TensorFlow has"))
        for mark, names in MARKS.items():
            if item.path.stem.removeprefix("test_") in names:
                item.add_marker(mark)
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _forget_the_networks():
    """Otherwise the graphs of all networks of a process would add up to gigabytes."""
    yield
    keras.utils.clear_session()
    gc.collect()


# Three classes; 3 and 255 are void in the files.
LABELS = LabelMap(("sky", "road", "car"), ((0, 0, 255), (128, 64, 128), (255, 0, 0)), void_values=(3, 255))


@pytest.fixture
def labels():
    return LABELS


def write_pair_to(folder, stem="a", size=(32, 48), values=None, image_suffix=".png", seed=0):
    """Writes an image whose colours tell its classes, and its mask: real PNG files."""
    rng = np.random.default_rng(seed)
    if values is None:
        values = np.zeros(size, np.uint8)
        values[size[0] // 2 :] = 1
        row, column = rng.integers(2, size[0] // 2), rng.integers(2, size[1] // 2)
        values[row : row + size[0] // 3, column : column + size[1] // 3] = 2
    palette = np.uint8([[90, 130, 220], [90, 90, 90], [200, 40, 40], [0, 0, 0]])
    image = palette[np.minimum(values, 3)] + rng.integers(0, 20, (*values.shape, 3)).astype(np.uint8)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    pair = Pair(folder / "images" / f"{stem}{image_suffix}", folder / "masks" / f"{stem}.png")
    Image.fromarray(image).save(pair.image)
    Image.fromarray(values).save(pair.mask)
    return pair


@pytest.fixture
def write_pair(tmp_path):
    def write(stem="a", size=(32, 48), folder=tmp_path, **options):
        return write_pair_to(folder, stem, size, **options)

    return write
