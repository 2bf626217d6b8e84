"""The checks of the lesson's exercises: is an answer right, and if not, which mistake does it look like?"""

import math
import numbers

import keras
import numpy as np

from .labels import Pair
from .losses import class_weights
from .model import conv_block
from .naming import counted
from .notebook import interruptible
from .training import TimeLimit, scores_line


class Training(TimeLimit):
    """The time limit of the lesson's `train_network`; prints a line after each epoch. batches: what the network is
    trained on; seconds: see `TimeLimit`. At the end the checks below find it as network.recorded_training."""

    def __init__(self, batches, seconds: float):
        super().__init__(seconds)
        self.pairs = getattr(batches, "pairs", None)  # None: not from `make_batches`
        self.class_weights = getattr(batches, "class_weights", None)  # None: not from `with_class_weights`

    def on_train_begin(self, logs=None):
        self.was_trained = _is_trained(self.model)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        left = counted(self.params["epochs"] - epoch - 1, "epoch")
        if math.isfinite(self.seconds):
            left = f"{0 if self.model.stop_training else self.seconds - self.spent:.0f} s"
        print(f"epoch {epoch + 1}: {scores_line(logs)}, {left} left", flush=True)

    def interruptible(self):
        """During the block, an interrupt becomes one line that says what the network has learned."""
        return interruptible(self._when_interrupted)

    def _when_interrupted(self) -> str:
        n_epochs = len(self.model.history.epoch) if self.model else 0
        if not n_epochs:
            return "no epoch has ended; run the cell again"
        return f"{counted(n_epochs, 'epoch')} trained; score this network, or run the cell again to train a new one"

    def on_train_end(self, logs=None):
        self.epochs, self.steps = self.params["epochs"], int(self.model.optimizer.iterations)
        self.weight_sums = _weight_sums(self.model)
        self.model.recorded_training = self


def _is_trained(network: keras.Model) -> bool:
    biases = [weight for layer in network.layers[:-1] for weight in layer.weights if weight.name == "bias"]
    return any(map(np.any, biases))  # all 0 before training; those of the logits may begin with the classes' shares


def _weight_sums(network: keras.Model) -> list[float]:
    return [float(np.sum(weight)) for weight in network.get_weights()]


def check(name: str, *answers, **context) -> bool | None:
    """Print whether the answers to an exercise are right, or a hint. Returns True, False, or None if none is filled in.
    answers: what the learner filled in; context: what the exercise gives, the keyword arguments of its check below."""
    n_missing = sum(answer is None for answer in answers)
    if n_missing == len(answers):
        print(f"{name}: nothing filled in yet: write your answer above and run the cell again")
        return None
    try:
        _need(not n_missing, f"not all is filled in: {n_missing} of {len(answers)} answers still None.")
        print(f"{name}: right. {CHECKS[name](*answers, **context)}")
        return True
    except Exception as error:  # whatever was filled in, a learner gets a hint and no traceback of ours
        hint = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        print(f"{name}: not yet. Hint: {hint.splitlines()[0]}")
        return False


def _need(fine, hint: str) -> None:
    if not fine:
        raise AssertionError(hint)


def _expect(answer, right: float, mistakes: dict[float, str], otherwise: str, tolerance: float = 0.001) -> None:
    """Unless answer is the right number: hint at the mistake that leads to this number, or give the hint otherwise."""
    _need(isinstance(answer, (numbers.Real, np.number)), f"expected a number, found {type(answer).__name__}.")
    mistakes = {**mistakes, 100 * right: "this is in percent; give a number from 0 to 1."}
    likely = [hint for wrong, hint in mistakes.items() if abs(answer - wrong) <= 0.006]  # also with two digits
    _need(abs(answer - right) <= tolerance, [*likely, otherwise][0])


def _iou(answer, *, true, predicted, class_id) -> str:
    true, predicted = true == class_id, predicted == class_id
    both, n_true, n_predicted = np.sum(true & predicted), np.sum(true), np.sum(predicted)
    mistakes = {
        both / (n_true + n_predicted): "this sum counts the intersection twice; the union counts each pixel once.",
        2 * both / (n_true + n_predicted): "this is Dice; divide the intersection by the union.",
        both / n_true: "you divided by the true pixels; the union also has those that are wrongly predicted.",
    }
    right = both / np.sum(true | predicted)
    mistakes[right] = "this is rounded; give three digits, or the fraction."
    _expect(answer, right, mistakes, "count the pixels of the class in both, and in either.")
    return "A pixel that is wrong in either mask makes the union larger, and so the IoU smaller."


def _parameters(answer, *, n_channels, n_filters) -> str:
    right = sum(9 * channels * n_filters + n_filters for channels in (n_channels, n_filters))
    mistakes = {right - 2 * n_filters: "you forgot the biases: each convolution has one for each of its filters."}
    _expect(answer, right, mistakes, "a 3x3 convolution from a to b channels has 9ab weights and b biases.")
    return "Pooling has nothing to learn, and the image's size plays no part."


def _resize(answer, *, mask, size) -> str:
    larger = np.round(keras.ops.image.resize(mask[..., None].astype("float32"), size, "bilinear"))
    (new,) = set(larger.ravel()) - set(mask.ravel())
    old = dict.fromkeys(mask.ravel(), "this id is in the small mask; look for one that is only in the large one.")
    _expect(answer, new, old, "a class id is a whole number: round the enlarged mask and look what is in it.")
    return "No pixel was labelled so. That is why masks are resized by nearest neighbour."


def _bottleneck(size, bottleneck, *, image_size, depth) -> str:
    step = 2**depth
    right = [-(-side // step) * step for side in image_size]
    for sides, expected in ((size, right), (bottleneck, [side // step for side in right])):
        _need(np.shape(sides) == (2,), f"expected (height, width), found {sides!r}.")
        swapped = list(sides)[::-1] == expected != list(sides)
        _need(not swapped, f"{tuple(sides)} has its sides swapped: first the height, then the width.")
    for side, given in zip(size, image_size, strict=True):
        _need(side % step == 0, f"{side} can't be halved {depth} times: divide it by 2 until it becomes odd.")
        _need(given <= side < given + step, f"{side} can be halved; find the first such from {given} upwards.")
    _need(list(bottleneck) == [side // step for side in size], f"the size is right; halve each side {depth} times.")
    return "Each pooling halves both sides, so both must be divisible by 2 as often as there are poolings."


def _baseline(accuracy, miou, *, counts) -> str:
    share, n_classes = counts.max() / counts.sum(), len(counts)
    _expect(accuracy, share, {}, "the accuracy is the share of the pixels that the majority class has.")
    mistakes = {share: "this is the IoU of the majority class; take the mean with the others, which have 0."}
    _expect(miou, share / n_classes, mistakes, "accuracy right; the union of the predicted class is all pixels.")
    return "The accuracy looks fair; the mIoU says that nothing was learned."


def _block(answer, *, inputs, n_filters) -> str:
    _need(isinstance(answer, (tuple, list)), "return two tensors, next_layer and skip_connection.")
    expected = conv_block(inputs, n_filters, normalization=None)
    half, full = (tensor.shape[1:3] for tensor in expected)
    found = [tensor.shape[1:3] for tensor in answer]
    _need(found != [full, half], "the two are swapped: return next_layer first.")
    sizes = f'expected the sizes {half} and {full}, found {found}: padding="same" loses no pixels, pooling halves both'
    _need(found == [half, full], f"{sizes} sides, and skip_connection is taken before it.")
    try:
        block, reference = keras.Model(inputs, list(answer)), keras.Model(inputs, list(expected))
        block.set_weights(reference.get_weights())
    except ValueError:
        _need(False, f"it takes two 3x3 convolutions of {n_filters} filters with biases, the first on inputs; no more.")
    x = np.random.default_rng(0).normal(size=(1, *inputs.shape[1:]), scale=30).astype(np.float32)
    same = [np.allclose(a, b, atol=1e-3) for a, b in zip(block(x), reference(x), strict=True)]
    hint = "take it after the last ReLU. Pooling before that ReLU gives the same next_layer"
    _need(same != [True, False], f"only skip_connection is wrong: {hint}, so only skip_connection tells.")
    hint = "a ReLU follows each of both convolutions, and the pooling is max pooling."
    _need(all(same), f"only the values are wrong: {hint}")
    return "With the same weights your block computes what conv_block does."


def _depth(*fields, depths) -> str:
    for field, depth in zip(fields, depths, strict=True):
        pixels = 2**depth  # from one value of the bottleneck to the next
        right = 1 + 5 * (pixels - 1) + 4 * pixels
        mistakes = {
            right - (pixels - 1): "you forgot the poolings: each sees one step more, too.",
            right - 4 * pixels: "you forgot the bottleneck's own two convolutions.",
            1 + 5 * depth + 4: "after each pooling it is twice as many pixels from one value to the next.",
        }
        hint = f"depth {depth}: a 3x3 convolution adds two steps to the side, a pooling one and then doubles the step."
        _expect(field, right, mistakes, hint)
    return "One level more, and the bottleneck sees about twice as far."


def _training_of(network) -> Training:
    """What train_network noted, or a hint unless it trained the network from the first step, and nothing else did."""
    _need(isinstance(network, keras.Model), f"expected the network itself, found {type(network).__name__}.")
    _need(_is_trained(network), "this network has not been trained: give it to train_network.")
    training = getattr(network, "recorded_training", None)
    _need(training, "this network was not trained by train_network, or not to the end.")
    again = f"it was trained before, and then for {training.steps} steps by train_network"
    _need(not training.was_trained, f"{again}: give train_network a fresh network, once.")
    changed = f"its weights have changed since train_network gave it {training.steps} steps"
    same = np.array_equal(training.weight_sums, _weight_sums(network), equal_nan=True)
    _need(same, f"{changed}: train it with nothing else.")
    return training


def _need_pairs(training: Training, expected: list[Pair], others: list[Pair], which: str) -> None:
    """A hint unless the training had exactly the expected pairs; which: what others are, in words."""
    _need(training.pairs is not None, "its batches do not tell their pairs: make them with make_batches alone.")
    n_others, n_pairs = len({*training.pairs} & {*others}), len(training.pairs)
    _need(not n_others, f"it was trained on {n_others} of the {which}.")
    n_right = len({*training.pairs} & {*expected})
    found = f"it was trained on {n_pairs} pairs, {n_right} of them among the {len(expected)} to learn from"
    _need(sorted(training.pairs) == sorted(expected), f"{found}: use all of these once, and no others.")


def _need_equal_terms(training: Training, first: keras.Model, validation: list[Pair]) -> None:
    """A hint unless the training had the same pairs and limits as that of the first network."""
    before = first.recorded_training
    _need_pairs(training, before.pairs, validation, "validation pairs")
    found, expected = (f"{t.steps} steps (limit: {t.seconds:g} s or {t.epochs} epochs)" for t in (training, before))
    same = (training.seconds, training.epochs) == (before.seconds, before.epochs)
    _need(same, f"it had {found}, the first network {expected}: give both the same.")


def _frames(learned, held_out, network, frame_miou, drive_miou, *, pairs, score) -> str:
    once = sorted([*learned, *held_out]) == sorted(pairs)
    _need(once, "each pair of dataset.train belongs into one of the two lists, and into one only.")
    share = len(held_out) / len(pairs)
    _need(abs(share - 0.2) <= 0.05 + 1 / len(pairs), f"{share:.0%} are held out, expected about a fifth.")
    # Nearly every random frame has a neighbour on the other side; of a whole drive, only the first and the last do.
    n_borders = np.count_nonzero(np.diff([*map(set(held_out).__contains__, pairs)]))
    _need(n_borders >= len(held_out) / 2, "you hold out whole stretches; this time shuffle the frames before you cut.")
    _need_pairs(_training_of(network), learned, held_out, "frames that you hold out")
    right = score(network, held_out).miou, score(network).miou
    _expect(frame_miou, right[0], {}, "the first mIoU is not score(network, held-out pairs).miou.")
    _expect(drive_miou, right[1], {}, "the second mIoU is not score(network).miou.")
    return f"mIoU {right[0]:.3f} on frames between those that it learned from, {right[1]:.3f} on drives never seen."


def _weights(network, class_name, *, before, first, pixels, validation, score) -> str:
    training, names = _training_of(network), before.labels.names
    weights, right = training.class_weights, class_weights(pixels)
    _need(weights is not None, "it was trained without weights: give train_network batches of with_class_weights.")
    _need(np.ptp(weights), f"it was trained with equal weights for all classes, {weights[0]:g}: use class_weights.")
    k = np.argmax(np.abs(weights - right))
    found = f"it was trained with other weights than class_weights(pixels): {names[k]} had {weights[k]:.3g}"
    _need(np.allclose(weights, right, rtol=1e-3), f"{found}, not {right[k]:.3g}.")
    _need_equal_terms(training, first, validation)
    after = score(network)
    _need(isinstance(class_name, str) and class_name in names, f"expected one of {', '.join(names)}.")
    gain = after.iou - before.iou
    own = gain[names.index(class_name)]
    _need(own >= np.nanmax(gain) - 1e-6, f"{class_name} gained {own:+.3f}, another more: compare score(...).iou.")
    return f"{class_name} gained {own:+.3f}; the mIoU went from {before.miou:.3f} to {after.miou:.3f}."


def _better(network, change, *, before, first, validation, score, margin) -> str:
    _need(isinstance(change, str) and change.strip(), "no text says what you changed.")
    training = _training_of(network)
    _need_equal_terms(training, first, validation)
    miou, steps = score(network).miou, f"in {training.steps} steps against {first.recorded_training.steps}"
    found = f"mIoU {miou:.3f} against {before.miou:.3f}, {steps}"
    _need(miou > before.miou + margin, f"{found}: another seed may give {margin} as well, so look for more.")
    return f"{change}: {found}. Now try other seeds before you believe it, and leave the test drives alone."


def _own(network, *, dataset, majority_class, margin, score) -> str:
    _need(isinstance(network, keras.Model), f"expected the network itself, found {type(network).__name__}.")
    _need(dataset.name == "folder", f'these are "{dataset.name}": set DATASET = "folder" and run the notebook again.')
    learned_from = getattr(getattr(network, "recorded_training", None), "pairs", None) or ()
    n_known = len({*learned_from} & {*dataset.validation})
    _need(not n_known, f"it was trained on {n_known} of the validation pairs: train it on dataset.train alone.")
    scores = score(network)
    baseline = np.nan_to_num(scores.baseline(majority_class).iou)
    learned = np.flatnonzero(scores.iou > baseline + margin * (1 - baseline))
    found = f"learned: {', '.join(scores.labels.names[k] for k in learned) or 'no class'}"
    _need(len(learned) >= 2, f"{found}. Look whether masks and images fit, then train longer (MINUTES).")
    return f"{found}. They are well above the baseline."


CHECKS = dict(
    iou=_iou, parameters=_parameters, resize=_resize, bottleneck=_bottleneck, baseline=_baseline, block=_block,
    depth=_depth, frames=_frames, weights=_weights, better=_better, own=_own,
)  # fmt: skip
