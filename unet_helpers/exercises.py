"""The checks of the lesson's exercises: is an answer right, and if not, which mistake does it look like?"""

import keras
import numpy as np
import tensorflow as tf

from .evaluation import Scores
from .model import conv_block


def check(name: str, *answers, **context) -> bool | None:
    """Print whether the answers to an exercise are right, or a hint.

    answers: what the learner filled in; context: what the exercise gives, the keyword arguments of its check below.
    Returns True, False, or None if nothing is filled in.
    """
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


def _expect(answer, right: float, mistakes: dict[float, str], otherwise: str, tolerance: float = 0.005) -> None:
    """Unless answer is the right number: hint at the mistake that leads to this number, or give the hint otherwise."""
    _need(isinstance(answer, (int, float, np.number)), f"expected a number, found {type(answer).__name__}.")
    mistakes = {**mistakes, 100 * right: "this is in percent; give a number from 0 to 1."}
    likely = [hint for wrong, hint in mistakes.items() if abs(answer - wrong) <= tolerance]
    _need(abs(answer - right) <= tolerance, [*likely, otherwise][0])


def _iou(answer, *, true, predicted, class_id) -> str:
    true, predicted = true == class_id, predicted == class_id
    both, n_true, n_predicted = np.sum(true & predicted), np.sum(true), np.sum(predicted)
    mistakes = {
        both / (n_true + n_predicted): "this sum counts the intersection twice; the union counts each pixel once.",
        2 * both / (n_true + n_predicted): "this is Dice; divide the intersection by the union.",
        both / n_true: "you divided by the true pixels; the union also has those that are wrongly predicted.",
    }
    _expect(answer, both / np.sum(true | predicted), mistakes, "count the pixels of the class in both, and in either.")
    return "A pixel that is wrong in either mask makes the union larger, and so the IoU smaller."


def _parameters(answer, *, n_channels, n_filters) -> str:
    right = sum(9 * channels * n_filters + n_filters for channels in (n_channels, n_filters))
    mistakes = {right - 2 * n_filters: "you forgot the biases: each convolution has one for each of its filters."}
    _expect(answer, right, mistakes, "a 3x3 convolution from a to b channels has 9ab weights and b biases.")
    return "Pooling has nothing to learn, and the image's size plays no part."


def _resize(answer, *, mask, size) -> str:
    larger = np.round(tf.image.resize(mask[..., None], size, method="bilinear").numpy())
    (new,) = set(larger.ravel()) - set(mask.ravel())
    old = dict.fromkeys(mask.ravel(), "this id is in the small mask; look for one that is only in the large one.")
    _expect(answer, new, old, "a class id is a whole number: round the enlarged mask and look what is in it.")
    return "No pixel was labelled so. That is why masks are resized by nearest neighbour."


def _bottleneck(size, bottleneck, *, image_size, depth) -> str:
    step = 2**depth
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
    x = np.random.default_rng(0).normal(size=(1, *inputs.shape[1:])).astype(np.float32)
    same = all(np.allclose(a, b, atol=1e-5) for a, b in zip(block(x), reference(x), strict=True))
    _need(same, "only the values are wrong: a ReLU follows each of both convolutions, and the pooling is max pooling.")
    return "With the same weights your block computes what conv_block does."


def _score(score, network, *pairs) -> Scores:
    """The network's scores, or a hint if it is none, has not been trained, or can't be scored."""
    _need(isinstance(network, keras.Model), f"expected the network itself, found {type(network).__name__}.")
    trained = any(np.any(weight) for weight in network.weights if weight.name == "bias")  # all 0 before training
    _need(trained, "this network has not been trained: give it to train_network.")
    return score(network, *pairs)


def _depth(network, miou, *, before, fresh_network, score) -> str:
    scores = _score(score, network)
    n_found, n_expected = network.count_params(), fresh_network(depth=2).count_params()
    _need(n_found == n_expected, f"{n_found} parameters, not {n_expected}: set the depth to 2 and change nothing else.")
    _expect(miou, scores.miou, {}, "this is not score(...).miou of your network, with all its digits.", 1e-6)
    return f"mIoU {scores.miou:.3f} with depth 2, {before.miou:.3f} with depth 4."


def _frames(learned, held_out, network, frame_miou, drive_miou, *, pairs, score) -> str:
    once = sorted([*learned, *held_out]) == sorted(pairs)
    _need(once, "each pair of dataset.train belongs into one of the two lists, and into one only.")
    share = len(held_out) / len(pairs)
    _need(abs(share - 0.2) <= 0.05 + 1 / len(pairs), f"{share:.0%} are held out, expected about a fifth.")
    # Nearly every random frame has a neighbour on the other side; of a whole drive, only the first and the last do.
    n_borders = np.count_nonzero(np.diff([*map(set(held_out).__contains__, pairs)]))
    _need(n_borders >= len(held_out) / 2, "you hold out whole stretches; this time shuffle the frames before you cut.")
    right = _score(score, network, held_out).miou, _score(score, network).miou
    _expect(frame_miou, right[0], {}, "the first mIoU is not score(network, held-out pairs).miou.", 1e-6)
    _expect(drive_miou, right[1], {}, "the second mIoU is not score(network).miou.", 1e-6)
    return f"mIoU {right[0]:.3f} on frames between those that it learned from, {right[1]:.3f} on drives never seen."


def _weights(batches, network, class_name, *, before, score) -> str:
    _need(len(batches.element_spec) == 3, "weights are the batches' third part: use with_class_weights.")
    names, after = before.labels.names, _score(score, network)
    _need(isinstance(class_name, str) and class_name in names, f"expected one of {', '.join(names)}.")
    gain = after.iou - before.iou
    own = gain[names.index(class_name)]
    _need(own >= np.nanmax(gain) - 1e-6, f"{class_name} gained {own:+.3f}, another more: compare score(...).iou.")
    return f"{class_name} gained {own:+.3f}; the mIoU went from {before.miou:.3f} to {after.miou:.3f}."


def _better(network, change, *, before, score, margin) -> str:
    miou = _score(score, network).miou
    found = f"mIoU {miou:.3f} against {before.miou:.3f}"
    _need(miou > before.miou + margin, f"{found}: another seed may give {margin} as well, so look for more.")
    return f"{change}: {found}. Now try other seeds before you believe it, and leave the test drives alone."


def _own(scores, *, dataset, majority_class, margin) -> str:
    _need(dataset.name == "folder", f'these are "{dataset.name}": set DATASET = "folder" and run the notebook again.')
    baseline = np.nan_to_num(scores.baseline(majority_class).iou)
    learned = np.flatnonzero(scores.iou > baseline + margin * (1 - baseline))
    found = f"learned: {', '.join(scores.labels.names[k] for k in learned) or 'no class'}"
    _need(len(learned) >= 2, f"{found}. Look whether masks and images fit, then train longer (MINUTES).")
    return f"{found}. They are well above the baseline."


CHECKS = dict(
    iou=_iou, parameters=_parameters, resize=_resize, bottleneck=_bottleneck, baseline=_baseline, block=_block,
    depth=_depth, frames=_frames, weights=_weights, better=_better, own=_own,
)  # fmt: skip
