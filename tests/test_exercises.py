"""The exercises of the committed notebooks, with tiny networks and images, and the numbers of their solutions."""

import json
import math
import re
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LABELS, write_pair_to
from PIL import Image

from benchmarks import exercises
from unet_helpers import exercises as checks
from unet_helpers.datasets import Dataset, check_pairs, sequence_of
from unet_helpers.evaluation import Scores
from unet_helpers.exercises import CHECKS, check
from unet_helpers.labels import VOID
from unet_helpers.model import PLAIN, unet_model
from unet_helpers.pipeline import make_batches
from unet_helpers.plots import receptive_fields

pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")
CELLS = exercises.read_cells()
NAMES = [cell_id.removeprefix("solution-") for cell_id in CELLS if cell_id.startswith("solution-")]


def part_1(folder) -> dict:
    """The names that docs/exercises.ipynb has: its network has few filters and has taken a few steps."""
    keras.utils.set_random_seed(0)
    drives = ["02_00", "02_01", "03_00", "03_01", "09_00"]
    pairs = [write_pair_to(folder, f"{drives[n // 5]}_{n % 5:03}", (32, 32), seed=n) for n in range(25)]
    dataset = Dataset("folder", LABELS, tuple(pairs[:20]), tuple(pairs[20:]), ())
    recipe = SimpleNamespace(batch_size=4, seed=0, n_filters=4, short_epochs=4, short_minutes=math.inf)
    names = {
        "np": np, "dataset": dataset, "recipe": recipe, "labels": LABELS, "size": (32, 32),
        "pixels": check_pairs(dataset.train, LABELS), "SLOW": keras.optimizers.Adam(1e-5),  # easy to beat
    }  # fmt: skip
    for cell in ("network", "train-function", "score"):
        exec(CELLS[cell].replace("train_network(network)\n", "train_network(network, optimizer=SLOW)\n"), names)
    return names


@pytest.fixture(scope="module")
def lesson(tmp_path_factory):
    tf.config.run_functions_eagerly(True)  # a graph takes longer to build than these few steps take
    yield part_1(tmp_path_factory.mktemp("lesson"))
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def solved(lesson):
    """All exercises solved as their solutions do: the names afterwards, what the checks answered, and the numbers."""
    weights = lesson["network"].get_weights()
    names = dict(lesson)
    record = exercises.solve_all(CELLS, names)
    assert all(map(np.array_equal, weights, lesson["network"].get_weights())), "the lesson's network was changed"
    return SimpleNamespace(names=names, **record)


@pytest.fixture
def fill_in(solved, capsys):
    """Run an exercise with an answer of its own; `was` are the names after all solutions."""

    def run(name: str, answer: str | None, **changes):
        answers = []
        names = {**solved.names, "was": SimpleNamespace(**solved.names), "SimpleNamespace": SimpleNamespace, **changes}
        names["check"] = lambda *given, **context: answers.append(check(*given, **context))
        exec(exercises.with_answer(CELLS, name, answer), names)
        return answers[0], capsys.readouterr().out.splitlines()[-1]

    return run


def test_every_check_has_its_exercise():
    assert sorted(CHECKS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_is_right_and_without_an_answer_nothing_is_computed(name, solved, fill_in):
    right = solved.right[name]
    if name == "own":  # a network that took one step has learned nothing, so it is given perfect scores
        perfect = Scores(LABELS, np.diag(solved.names["pixels"])[None])
        right, _ = fill_in(name, None, score=lambda network: perfect)
    assert right is True
    costly = dict.fromkeys(["score", "train_network", "fresh_network"])
    answer, said = fill_in(name, "", **costly)
    assert answer is None
    assert said.startswith(f"{name}: nothing filled in yet")


def test_no_exercise_writes_over_the_lesson(lesson, solved):
    for name, value in lesson.items():
        assert solved.names[name] is value
    cells = [source for cell_id, source in CELLS.items() if not cell_id.startswith(("exercise", "solution"))]
    for name in solved.names.keys() - lesson.keys():
        assert not re.search(rf"^{name}\b.* = ", "\n".join(cells), re.MULTILINE), name


BLOCK = """
def my_conv_block(inputs, n_filters):
    x = keras.layers.Conv2D(n_filters, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.Conv2D(n_filters, 3, padding="same", activation="relu")(x)
    return keras.layers.MaxPooling2D(2)(x), x
"""
FRAMES = """
my_learned, my_held_out, my_frames_network = was.my_learned, was.my_held_out, was.my_frames_network
my_frames_miou, my_drives_miou = was.my_frames_miou, was.my_drives_miou
"""
FRAMES_OF = "my_frames_network = fresh_network()\ntrain_network(my_frames_network, training_batches({}))\n"
SCORES = "my_frames_miou, my_drives_miou = score(my_frames_network, my_held_out).miou, score(my_frames_network).miou"
WEIGHTS = "my_class, my_weighted_network = was.my_class, fresh_network()\n"
WEIGHTS += "train_network(my_weighted_network, with_class_weights(training_batches({}), {}))"
BETTER = "my_change, my_better = 'the loss', fresh_network()\n"
TRAIN = "train_network(my_better)\n"
TRAIN_ON = "train_network(my_better, {})\n"
OWN = "my_own_network = fresh_network()\ntrain_network(my_own_network, training_batches(dataset.validation))"
MISTAKES = [
    ("iou", "my_iou = 5 / 13", "counts the intersection twice"),
    ("iou", "my_iou = 0.63", "this is rounded"),
    ("iou", "my_iou = 0.62", "this is rounded"),
    ("iou", "my_iou = 5 / 7", "divided by the true pixels"),
    ("iou", "my_iou = 62.5", "in percent"),
    ("parameters", "my_parameters = 9 * 16 * 24 + 9 * 24 * 24", "forgot the biases"),
    ("parameters", "my_parameters = 9 * 16 * 24 + 24", "9ab weights and b biases"),
    ("parameters", "my_parameters = '8688'", "expected a number, found str"),
    ("resize", "my_new_id = 9", "is in the small mask"),
    ("resize", "my_new_id = 8.5", "a class id is a whole number"),
    ("resize", "my_new_id = [8]", "expected a number, found list"),
    ("bottleneck", "my_size, my_bottleneck = (600, 800), (37, 50)", "600 can't be halved 4 times"),
    ("bottleneck", "my_size, my_bottleneck = (800, 608), (50, 38)", r"\(800, 608\) has its sides swapped"),
    ("bottleneck", "my_size, my_bottleneck = (608, 800), (50, 38)", r"\(50, 38\) has its sides swapped"),
    ("bottleneck", "my_size, my_bottleneck = (624, 800), (39, 50)", "624 can be halved"),
    ("bottleneck", "my_size, my_bottleneck = (608, 800), (76, 100)", "halve each side 4 times"),
    ("bottleneck", "my_size, my_bottleneck = 608, (38, 50)", r"expected \(height, width\), found 608"),
    ("baseline", "my_accuracy, my_baseline_miou = 0.6, 0.6", "take the mean"),
    ("baseline", "my_accuracy, my_baseline_miou = 1 / 3, 0.2", "the majority class has"),
    ("baseline", "my_accuracy = 0.6", "1 of 2 answers"),
    ("block", BLOCK.replace(', padding="same"', ""), 'padding="same" loses no pixels'),
    ("block", BLOCK.replace("keras.layers.MaxPooling2D(2)(x), x", "x, keras.layers.MaxPooling2D(2)(x)"), "swapped"),
    ("block", BLOCK.replace(', activation="relu")(inputs)', ")(inputs)"), "a ReLU follows each"),
    ("block", BLOCK.replace("MaxPooling", "AveragePooling"), "the pooling is max pooling"),
    ("block", BLOCK.replace('"relu")(x)', '"relu6")(x)'), "a ReLU follows each"),
    ("block", BLOCK.replace(', activation="relu")(x)', ")(x)").replace("(2)(x)", "(2)(keras.layers.ReLU()(x))"),
     "only skip_connection is wrong: .* Pooling before that ReLU gives the same next_layer"),
    ("depth", "my_field, my_deeper_field = 140 - 15, 284", "forgot the poolings"),
    ("depth", "my_field, my_deeper_field = 140, 284 - 128", "forgot the bottleneck's own"),
    ("depth", "my_field, my_deeper_field = 25, 30", "twice as many pixels"),
    ("depth", "my_field, my_deeper_field = 140, 140", "depth 5: a 3x3 convolution adds two steps"),
    ("frames", FRAMES + "my_held_out = my_held_out + my_learned[:1]", "into one only"),
    ("frames", FRAMES + "my_learned, my_held_out = dataset.train[:15], dataset.train[15:]", "whole stretches"),
    ("frames", FRAMES + "my_frames_miou, my_drives_miou = my_drives_miou, my_frames_miou", "the first mIoU is not"),
    ("frames", FRAMES + "my_frames_network = network\n" + SCORES, r"trained on \d of the frames that you hold out"),
    ("frames", FRAMES + FRAMES_OF.format("my_held_out") + SCORES, "trained on 4 of the frames that you hold out"),
    ("frames", FRAMES + FRAMES_OF.format("[*my_learned[:8], *dataset.validation]") + SCORES,
     "trained on 13 pairs, 8 of them among the 16 to learn from"),
    ("weights", "my_weighted_network, my_class = was.my_better, labels.names[0]", "trained without weights"),
    ("weights", WEIGHTS.format("", "np.ones(3)"), "equal weights for all classes, 1:"),
    ("weights", WEIGHTS.format("", "1 / class_weights(pixels)"), "other weights than class_weights.*: car had"),
    ("weights", WEIGHTS.format("dataset.validation", "class_weights(pixels)"), "trained on 5 of the validation pairs"),
    ("weights", "my_weighted_network, my_class = was.my_weighted_network, labels.names[np.nanargmin(was.my_gain)]",
     "gained .*, another more"),
    ("better", "my_better, my_change = was.my_better, ' '", "no text says what you changed"),
    ("better", "my_better, my_change = network, 'nothing'", "another seed may give 0.05 as well"),
    ("better", BETTER, "has not been trained"),
    ("better", BETTER + "my_better = 5", "expected the network itself, found int"),
    ("better", BETTER + "my_better.set_weights(was.my_better.get_weights())", "not trained by train_network"),
    ("better", BETTER + TRAIN * 2, "trained before, and then for 5 steps"),
    ("better", BETTER + TRAIN + "my_better.fit(training_batches(), shuffle=False, verbose=0)",
     "changed since train_network gave it 5 steps"),
    ("better", BETTER + TRAIN_ON.format("training_batches().repeat(2)"), "its batches do not tell their pairs"),
    ("better", BETTER + TRAIN_ON.format("training_batches(dataset.train + dataset.validation)"),
     "5 of the validation"),
    ("better", BETTER + TRAIN_ON.format("training_batches(2 * dataset.train)"), "on 40 pairs, 20 of them among"),
    ("better", BETTER + "recipe.short_epochs = 5\n" + TRAIN,
     r"it had 25 steps \(limit: inf s or 5 epochs\), the first network 20 steps \(limit: inf s or 4 epochs\)"),
    ("own", "my_own_network = fresh_network()", "learned: no class"),
    ("own", "my_own_network, dataset = network, SimpleNamespace(name='demo')", 'set DATASET = "folder"'),
    ("own", "my_own_network = network_scores", "expected the network itself, found Scores"),
    ("own", OWN, "it was trained on 5 of the validation pairs"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "mistake", "hint"), MISTAKES, ids=[f"{name}: {hint}" for name, _, hint in MISTAKES])
def test_a_mistake_gets_its_hint(name, mistake, hint, fill_in, solved, monkeypatch):
    monkeypatch.setattr(solved.names["recipe"], "short_epochs", 1)  # of what is trained here; a hint must tell it
    answer, said = fill_in(name, mistake)
    assert answer is False
    assert re.match(f"{name}: not yet. Hint: .*{hint}", said), said


POOLED_FIRST = """
def my_conv_block(inputs, n_filters):
    x = keras.layers.Conv2D(n_filters, 3, padding="same", activation="relu")(inputs)
    x = keras.layers.Conv2D(n_filters, 3, padding="same")(x)
    return keras.layers.ReLU()(keras.layers.MaxPooling2D(2)(x)), keras.layers.ReLU()(x)
"""


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("iou", "my_iou = np.float32(0.6251)"),
        ("iou", "import fractions\nmy_iou = fractions.Fraction(5, 8)"),
        ("bottleneck", "my_size, my_bottleneck = [608.0, 800.0], np.array([38.0, 50.0])"),
        ("block", POOLED_FIRST),
        ("depth", "my_field, my_deeper_field = 140.0, np.int64(284)"),
    ],
)
def test_the_same_in_another_form_is_right(name, answer, fill_in):
    assert fill_in(name, answer)[0] is True


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_filled_in_nothing_is_raised(name, fill_in):
    names = re.findall(r"my_\w+(?=[^=\n]*= None)", CELLS[f"exercise-{name}"])
    for nonsense in ("object()", "'x'", "1e400", "np.zeros(3)"):
        answer = f"def my_conv_block(inputs, n_filters):\n    return {nonsense}\n" if name == "block" else ""
        answer += "".join(f"{my_name} = {nonsense}\n" for my_name in names)
        found, said = fill_in(name, answer)
        assert found is False, nonsense
        assert len(said.split("Hint: ")[1]) > 10


def test_the_right_answers_computed_in_another_way(solved):
    was = SimpleNamespace(**solved.names)
    iou = keras.metrics.IoU(3, [1])
    iou.update_state(was.true_ids, was.predicted_ids)
    assert was.my_iou == pytest.approx(float(iou.result()))
    block = keras.Sequential([keras.Input((None, None, 16)), *[keras.layers.Conv2D(24, 3) for _ in range(2)]])
    assert was.my_parameters == block.count_params()
    larger = Image.fromarray(was.small_mask.astype(np.float32)).resize((8, 8), Image.Resampling.BILINEAR)
    assert set(np.round(larger).ravel()) - {7, 9} == {was.my_new_id}
    height, width = 600, 800
    assert was.my_size == (next(n for n in range(height, 9999) if n % 16 == 0), width)
    poolings = [layer for layer in unet_model((*was.my_size, 3), 1, 2).layers if "max_pooling" in layer.name]
    assert was.my_bottleneck == poolings[-1].output.shape[1:3]
    deep = {"depth": 5, **PLAIN}
    networks = was.network, unet_model((32, 32, 3), 1, 2, **deep)
    fields = [receptive_fields(network)["bottleneck"] for network in networks]
    assert [was.my_field, was.my_deeper_field] == fields == [140, 284]
    baseline = Scores(LABELS, np.diag(was.class_counts)[None]).baseline(0)
    assert (was.my_accuracy, was.my_baseline_miou) == pytest.approx((baseline.accuracy, baseline.miou))


def mean_iou(network, pairs) -> float:
    metric = keras.metrics.MeanIoU(LABELS.n_classes, sparse_y_pred=False, ignore_class=VOID)
    for images, masks in make_batches(pairs, LABELS, (32, 32), 4):
        metric.update_state(masks, network(images))
    return float(metric.result())


def test_the_trained_answers_computed_in_another_way(solved):
    was = SimpleNamespace(**solved.names)
    assert not set(was.my_learned) & set(was.my_held_out)
    assert len(was.my_learned) == 16
    assert set(map(sequence_of, was.my_held_out)) & set(map(sequence_of, was.my_learned))
    assert was.my_frames_miou == pytest.approx(mean_iou(was.my_frames_network, was.my_held_out))
    assert was.my_drives_miou == pytest.approx(mean_iou(was.my_frames_network, was.dataset.validation))
    for _, masks, weights in was.my_weighted_batches:
        weights, ids = np.asarray(weights), np.asarray(masks)
        assert weights[ids == np.argmin(was.pixels)].min() > weights[ids == was.majority_class].max()
    gains = dict(zip(LABELS.names, was.score(was.my_weighted_network).iou - was.network_scores.iou, strict=True))
    assert was.my_class == max(gains, key=lambda name: np.nan_to_num(gains[name], nan=-1))
    assert mean_iou(was.my_better, was.dataset.validation) > mean_iou(was.network, was.dataset.validation) + 0.04


def stated(name: str) -> list[str]:
    """What stands in backticks in the sentence "Result: ..." of a solution."""
    text = CELLS[f"solution-{name}"].split("\n```\n")[1]
    sentences = re.findall(r"^Result: (.*?)\.\s", text, re.MULTILINE | re.DOTALL)
    return [value for sentence in sentences for value in re.findall(r"`([^`]*)`", sentence)]


def test_the_solutions_state_what_was_measured(solved):
    record = json.loads(exercises.FILE.read_text(encoding="utf-8"))
    for name in NAMES:
        assert stated(name) == list(record["results"].get(name, {}).values())
        assert record["right"][name] or name == "own"  # nobody's own images were measured
    for name in ("iou", "parameters", "resize", "bottleneck", "baseline", "depth"):  # untrained: the same everywhere
        assert stated(name) == list(solved.results[name].values())


def test_a_bias_of_the_logits_that_was_set_by_hand_is_no_training():
    network = unet_model((32, 32, 3), 2, 3, normalization=None)
    network.layers[-1].bias.assign([1, 2, 3])
    assert not checks._is_trained(network)
    first = next(layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D))
    first.bias.assign([1, 2])
    assert checks._is_trained(network)
