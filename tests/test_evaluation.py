from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from unet_helpers.evaluation import Scores, confusion_matrices, evaluate_model
from unet_helpers.labels import VOID, Pair
from unet_helpers.model import unet_model
from unet_helpers.prediction import predict_mask


def slow_iou(true, predicted, n_classes):
    """Intersection over union, pixel by pixel, written apart from the code under test."""
    ious = []
    for k in range(n_classes):
        intersection = union = 0
        for t, p in zip(true.ravel().tolist(), predicted.ravel().tolist(), strict=True):
            if t != VOID:
                intersection += t == k and p == k
                union += t == k or p == k
        ious.append(intersection / union if union else np.nan)
    return np.array(ious)


def test_two_by_two_by_hand(labels):
    true, predicted = np.uint8([[[0, 0], [1, 2]]]), np.uint8([[[0, 1], [1, 1]]])
    scores = Scores(labels, confusion_matrices(true, predicted, 3))
    assert scores.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert scores.accuracy == pytest.approx(1 / 2)
    assert scores.iou == pytest.approx([1 / 2, 1 / 3, 0])
    assert scores.miou == pytest.approx(5 / 18)
    # The mIoU is that of all pixels, not the mean of the images' mIoU.
    true, predicted = np.uint8([[[0, 0, 0, 1]], [[0, 1, 1, 1]]]), np.uint8([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    assert Scores(labels, confusion_matrices(true, predicted, 3)).miou == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_void_is_not_scored_absent_classes_are_left_out_and_one_that_is_never_true_counts_as_0(labels):
    true, predicted = np.uint8([[[0, 0, 0, 0, VOID]]]), np.uint8([[[0, 0, 0, 1, 2]]])
    scores = Scores(labels, confusion_matrices(true, predicted, 3))
    np.testing.assert_array_equal(scores.iou, [3 / 4, 0, np.nan])
    assert scores.miou == pytest.approx((3 / 4 + 0) / 2)
    assert scores.accuracy == 3 / 4
    assert scores.table().splitlines()[1].split() == ["sky", "100.000", "0.750"]
    assert scores.table().splitlines()[3].split() == ["car", "0.000", "absent"]


def test_agrees_with_keras_and_with_a_slow_reference(labels):
    rng = np.random.default_rng(0)
    true = rng.choice(np.uint8([0, 1, 2, VOID]), (3, 7, 5))
    predicted = rng.integers(0, 3, (3, 7, 5)).astype(np.uint8)
    scores = Scores(labels, confusion_matrices(true, predicted, 3))
    metric = keras.metrics.MeanIoU(3, ignore_class=VOID)
    metric.update_state(true, predicted)
    assert scores.miou == pytest.approx(float(metric.result()), abs=1e-6)
    assert scores.iou == pytest.approx(slow_iou(true, predicted, 3))
    for n in range(3):
        assert scores.image_miou[n] == pytest.approx(np.nanmean(slow_iou(true[n], predicted[n], 3)))


def test_baseline_predicts_one_class_everywhere(labels):
    true = np.uint8([[[0, 1, 1, VOID]], [[1, 1, 2, 0]]])
    baseline = Scores(labels, confusion_matrices(true, np.zeros_like(true), 3)).baseline(1)
    assert baseline.confusion.tolist() == [[0, 2, 0], [0, 4, 0], [0, 1, 0]]
    assert baseline.accuracy == pytest.approx(4 / 7)
    assert baseline.miou == pytest.approx(4 / 7 / 3)


def test_ids_out_of_range_raise_instead_of_vanishing():
    good = np.uint8([[[0, 1]]])
    for true, predicted, said in (
        (good + 2, good, "true: .* 3"), (good, 9 * good, "predicted: .* 9"), (good, good[0], "differ in shape")
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            confusion_matrices(true, predicted, 3)


def bright_network(size):
    """A network that predicts class 1 where its image is bright."""
    inputs = keras.Input((*size, 3))
    one = keras.layers.Lambda(lambda x: tf.stack([127.5 - x[..., 0], x[..., 0] - 127.5, -1e3 + 0 * x[..., 0]], -1))
    return keras.Model(inputs, one(inputs))


def save_pair(folder, stem, image, mask):
    pair = Pair(folder / f"{stem}.png", folder / f"{stem}_mask.png")
    Image.fromarray(image).save(pair.image)
    Image.fromarray(mask).save(pair.mask)
    return pair


def test_evaluate_model_scores_at_the_size_of_the_masks_and_leaves_void_pixels_out(tmp_path, labels):
    image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    image[4:], mask[4:] = 255, 1
    mask[6:] = 2  # never predicted: the bonnet
    pairs = [save_pair(tmp_path, "a", image, mask)]
    model, ego = bright_network((4, 4)), np.zeros((8, 8), bool)
    ego[6:] = True
    assert evaluate_model(model, pairs, labels, (4, 4)).iou == pytest.approx([1, 1 / 2, 0])
    scores = evaluate_model(model, pairs, replace(labels, void_pixels=ego), (4, 4))
    assert scores.iou[:2] == pytest.approx([1, 1])
    assert scores.confusion.sum() == 48


def test_scores_are_those_of_the_masks_that_are_predicted_whatever_the_size(tmp_path, labels, monkeypatch):
    """Wide, high and of the network's proportions; one at a time, so that memory does not grow with their number."""
    rng, pairs = np.random.default_rng(0), []
    for stem, size in zip("abc", ((40, 30), (9, 60), (24, 32)), strict=True):
        image = np.kron(rng.integers(0, 256, (*size, 3)), np.ones((2, 2, 1))).astype(np.uint8)
        pairs.append(save_pair(tmp_path, stem, image, rng.choice(np.uint8([0, 1, 2, 3]), image.shape[:2])))
    network = unet_model((None, None, 3), 2, 3, depth=2)
    predict, asked = keras.Model.predict_on_batch, []
    monkeypatch.setattr(keras.Model, "predict_on_batch", lambda model, x: asked.append(len(x)) or predict(model, x))
    scores, alone = (evaluate_model(network, pairs, labels, (24, 32), tta=tta) for tta in (True, False))
    assert asked == [1] * 9
    assert alone.without_tta is None
    for n, pair in enumerate(pairs):
        true = labels.value_to_id[np.asarray(Image.open(pair.mask))]
        assert scores.per_image[n].sum() == np.count_nonzero(true != VOID)
        for tta, found in ((True, scores), (False, scores.without_tta), (False, alone)):
            predicted = predict_mask(network, pair.image, (24, 32), tta=tta)
            expected = confusion_matrices(true[None], predicted[None], 3)[0]
            np.testing.assert_array_equal(found.per_image[n], expected)


def test_pairs_that_can_not_be_scored_are_named(tmp_path, labels):
    pair = save_pair(tmp_path, "a", np.zeros((8, 8, 3), np.uint8), np.zeros((8, 7), np.uint8))
    for pairs, said in (([], "pairs: found none"), ([pair], r"a_mask\.png: .*\(8, 7\).*\(8, 8\)")):
        with pytest.raises(ValueError, match=said):
            evaluate_model(bright_network((4, 4)), pairs, labels, (4, 4))


def test_an_image_that_is_all_void_is_neither_best_nor_worst(labels):
    true = np.uint8([[[0, 1]], [[VOID, VOID]], [[0, 0]], [[1, 1]]])
    scores = Scores(labels, confusion_matrices(true, np.zeros_like(true), 3))
    assert np.isnan(scores.image_miou).tolist() == [False, True, False, False]
    assert scores.worst_first.tolist() == [3, 0, 2]
