import keras
import numpy as np
import pytest
import tensorflow as tf

from unet_helpers.evaluation import Scores, confusion_matrices, evaluate_model
from unet_helpers.labels import VOID


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


def test_void_is_not_scored_and_absent_classes_are_left_out(labels):
    true, predicted = np.uint8([[[0, 0], [1, VOID]]]), np.uint8([[[0, 0], [1, 2]]])
    scores = Scores(labels, confusion_matrices(true, predicted, 3))
    assert scores.iou[:2].tolist() == [1, 1]
    assert np.isnan(scores.iou[2])
    assert scores.miou == scores.accuracy == 1


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
        assert scores.picture_miou[n] == pytest.approx(np.nanmean(slow_iou(true[n], predicted[n], 3)))


def test_miou_is_accumulated_over_the_split_not_averaged_over_pictures(labels):
    true, predicted = np.uint8([[[0, 0, 0, 1]], [[0, 1, 1, 1]]]), np.uint8([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    scores = Scores(labels, confusion_matrices(true, predicted, 3))
    assert scores.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert scores.miou != pytest.approx(scores.picture_miou.mean())


def test_baseline_answers_one_class_everywhere(labels):
    true = np.uint8([[[0, 1, 1, VOID]], [[1, 1, 2, 0]]])
    baseline = Scores(labels, confusion_matrices(true, np.zeros_like(true), 3)).baseline(1)
    assert baseline.confusion.tolist() == [[0, 2, 0], [0, 4, 0], [0, 1, 0]]
    assert baseline.accuracy == pytest.approx(4 / 7)
    assert baseline.miou == pytest.approx(4 / 7 / 3)


def test_ids_out_of_range_raise_instead_of_vanishing():
    good = np.uint8([[[0, 1]]])
    with pytest.raises(ValueError, match="true: found class id 3"):
        confusion_matrices(np.uint8([[[0, 3]]]), good, 3)
    with pytest.raises(ValueError, match="predicted: found class id 9"):
        confusion_matrices(good, np.uint8([[[0, 9]]]), 3)
    with pytest.raises(ValueError, match="differ in shape"):
        confusion_matrices(good, good[0], 3)


def test_evaluate_model_scores_at_the_size_of_the_masks_with_and_without_ego(labels):
    """A network that answers class 1 where its picture is bright; masks are twice as large as pictures."""
    inputs = keras.Input((4, 4, 3))
    one = keras.layers.Lambda(lambda x: tf.stack([127.5 - x[..., 0], x[..., 0] - 127.5, -1e3 + 0 * x[..., 0]], -1))
    model = keras.Model(inputs, one(inputs))
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[:, 2:] = 255
    mask = np.zeros((1, 8, 8, 1), np.uint8)
    mask[:, 4:] = 1
    mask[:, 6:] = 2  # never predicted: the bonnet
    batches = tf.data.Dataset.from_tensors((image, mask))
    ego = np.zeros((8, 8), bool)
    ego[6:] = True
    scores = evaluate_model(model, batches, labels, ego)
    assert scores.iou == pytest.approx([1, 1 / 2, 0])
    assert scores.without_ego.iou[:2] == pytest.approx([1, 1])
    assert scores.without_ego.miou == 1
    assert scores.without_ego.confusion.sum() == 48
    assert evaluate_model(model, batches, labels).without_ego is None


def test_all_scores_come_from_two_answers_a_picture(labels):
    """Columns count: class 1 wherever the network sees the left edge, unless the mirrored answer outvotes it."""
    inputs = keras.Input((4, 6, 3))
    edge = np.zeros((1, 1, 6, 3), np.float32)
    edge[..., 0, 1], edge[..., 1, 0], edge[..., 2] = 3, 1, -9
    asked = []

    class Counting(keras.Model):
        def predict_on_batch(self, x):
            asked.append(len(x))
            return super().predict_on_batch(x)

    model = Counting(inputs, keras.ops.zeros_like(inputs) + edge)
    batches = tf.data.Dataset.from_tensors((np.zeros((2, 4, 6, 3), np.uint8), np.zeros((2, 4, 6, 1), np.uint8)))
    scores = evaluate_model(model, batches, labels, np.zeros((4, 6), bool))
    assert asked == [2, 2]
    assert scores.confusion.tolist() == [[32, 16, 0], [0, 0, 0], [0, 0, 0]]
    assert scores.one_answer.confusion.tolist() == [[40, 8, 0], [0, 0, 0], [0, 0, 0]]
    alone = evaluate_model(model, batches, labels, mirror=False)
    assert alone.confusion.tolist() == scores.one_answer.confusion.tolist()
    assert alone.one_answer is None


def test_a_picture_that_is_void_everywhere_is_neither_best_nor_worst(labels):
    true = np.uint8([[[0, 1]], [[VOID, VOID]], [[0, 0]], [[1, 1]]])
    scores = Scores(labels, confusion_matrices(true, np.zeros_like(true), 3))
    assert np.isnan(scores.picture_miou).tolist() == [False, True, False, False]
    assert scores.worst_first.tolist() == [3, 0, 2]


def test_table_has_a_line_for_each_class_and_says_absent(labels):
    scores = Scores(labels, confusion_matrices(np.uint8([[[0, 0, 1]]]), np.uint8([[[0, 1, 1]]]), 3))
    lines = scores.table().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["sky", "road", "car"]
    assert lines[1].split()[1:] == ["66.667", "0.500"]
    assert lines[3].endswith("absent")
