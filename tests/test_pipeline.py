import numpy as np
import pytest
import tensorflow as tf

from unet_helpers import pipeline
from unet_helpers.labels import VOID
from unet_helpers.pipeline import (
    augmentation,
    copy_paste,
    decode_image,
    decode_mask,
    images_per_second,
    make_batches,
    resize_image,
    resize_mask,
)


@pytest.fixture
def pairs(write_pair):
    return [write_pair(stem=f"{n:02}", seed=n) for n in range(5)]


def test_shapes_and_dtypes(pairs, labels):
    images, masks = next(iter(make_batches(pairs, labels, (16, 24), 2)))
    assert (images.shape, images.dtype) == ((2, 16, 24, 3), tf.uint8)
    assert (masks.shape, masks.dtype) == ((2, 16, 24, 1), tf.uint8)


def test_every_picture_once_and_in_order_without_augmentation(pairs, labels):
    batches = make_batches(pairs, labels, (32, 48), 2)
    masks = np.concatenate([m.numpy() for _, m in batches])
    expected = np.stack([decode_mask(str(p.mask), labels).numpy() for p in pairs])
    np.testing.assert_array_equal(masks, expected)


@pytest.mark.parametrize("augment", [False, True])
def test_tf_data_does_not_tune_itself(pairs, labels, augment):
    """An epoch's end would wait for the tuner's next look, which is up to as long away as the epoch was."""
    assert make_batches(pairs, labels, (16, 24), 2, augment).options().autotune.enabled is False


def test_resizing_never_invents_a_class(write_pair, labels):
    """Between 0 and 2 lies 1: bilinear masks would hold it."""
    values = np.zeros((32, 48), np.uint8)
    values[:, 1::2] = 2
    _, mask = next(iter(make_batches([write_pair(values=values)], labels, (24, 40), 1)))
    assert set(np.unique(mask)) <= {0, 2}
    assert set(np.unique(resize_mask(tf.constant(values[..., None]), (13, 17)))) <= {0, 2}


def test_shrinking_a_picture_averages_its_pixels():
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::4] = 200  # without antialiasing only two of four columns would be looked at, both black
    shrunk = resize_image(tf.constant(stripes), (8, 8)).numpy()
    assert shrunk.dtype == np.uint8
    assert 30 <= shrunk[4, 4, 0] <= 70


def test_void_values_of_the_file_become_255(write_pair, labels):
    values = np.uint8([[0, 1], [3, 255]])
    _, mask = next(iter(make_batches([write_pair(values=values)], labels, (2, 2), 1)))
    assert mask.numpy()[0, ..., 0].tolist() == [[0, 1], [VOID, VOID]]


def test_ids_in_the_red_channel_are_read_too(tmp_path, labels):
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[..., 0] = [[0, 1], [2, 255]]
    tf.io.write_file(str(tmp_path / "m.png"), tf.io.encode_png(rgb))
    assert decode_mask(str(tmp_path / "m.png"), labels).numpy()[..., 0].tolist() == [[0, 1], [2, 255]]


def test_augmentation_changes_picture_and_mask_alike():
    """The picture shows its mask: where the mask says k, the picture must be bright in channel k."""
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(0, 3, (4, 6, 8)), np.ones((1, 8, 8))).astype(np.uint8)[..., None]
    image = np.eye(3, dtype=np.uint8)[mask[..., 0]] * 255
    images, masks = augmentation(light=0.0)(tf.constant(image), tf.constant(mask))
    ids = masks.numpy()[..., 0]
    assert set(np.unique(ids)) <= {0, 1, 2, VOID}
    assert not np.array_equal(ids, mask[..., 0])
    agree = images.numpy().argmax(axis=-1) == ids
    assert agree[ids != VOID].mean() > 0.97  # bilinear edges lie between two ids


def test_augmentation_mirrors_half_of_the_pictures_and_its_changes_are_independent():
    """Ops with the same seed would draw the same numbers: then every enlarged picture would be bright, too."""
    ramp = np.broadcast_to(np.linspace(60, 200, 32, dtype=np.uint8)[None, None, :, None], (2000, 8, 32, 3))
    images, _ = augmentation(seed=0)(tf.constant(ramp), tf.zeros((2000, 8, 32, 1), tf.uint8))
    row = images.numpy()[:, 4, :, 0]
    inner = row[:, 10:-10]
    steps = inner[:, -1] - inner[:, 0]
    assert 0.45 < (steps < 0).mean() < 0.55
    assert abs(np.corrcoef(np.abs(steps), inner.mean(axis=1))[0, 1]) < 0.1


def test_augmentation_differs_from_epoch_to_epoch_and_keeps_the_range(pairs, labels):
    batches = make_batches(pairs, labels, (32, 48), 4, augment=True)
    (first, mask), (second, _) = next(iter(batches)), next(iter(batches))
    assert not np.array_equal(first, second)
    assert first.dtype == tf.float32
    assert mask.dtype == tf.uint8
    assert float(tf.reduce_min(first)) >= 0
    assert float(tf.reduce_max(first)) <= 255


def test_masks_may_be_smaller_than_pictures(pairs, labels):
    for augment in (False, True):
        images, masks = next(iter(make_batches(pairs, labels, (32, 48), 2, augment, mask_size=(16, 24))))
        assert (images.shape[1:3], masks.shape[1:3]) == ((32, 48), (16, 24))


@pytest.mark.parametrize("augment", [False, True])
def test_pictures_and_masks_have_the_size_of_the_stage(pairs, labels, augment):
    sizes, stage = [(16, 24), (8, 8), (32, 48)], tf.Variable(0)
    options = {"mask_size": (16, 24), "sizes": sizes, "stage": stage}
    batches = make_batches(pairs, labels, (32, 48), 2, augment, **options)
    for number, size in enumerate(sizes):
        stage.assign(number)
        images, masks = next(iter(batches))
        assert images.shape[1:] == (*size, 3)
        assert masks.shape[1:] == (size[0] // 2, size[1] // 2, 1)
        assert set(np.unique(masks)) <= {0, 1, 2, VOID}
    stage.assign(2)
    shapes = []
    for images, _ in batches.repeat(10):  # a batch never mixes two sizes, in the middle of an epoch neither
        shapes.append(images.shape[1:3])
        stage.assign(1)
    assert shapes[-1] == sizes[1]
    if not augment:  # a small picture is the picture, made smaller, with its own mask
        stage.assign(0)
        for (images, masks), pair in zip(batches.unbatch().batch(1), pairs, strict=True):
            np.testing.assert_array_equal(images[0], resize_image(decode_image(str(pair.image)), (16, 24)))
            np.testing.assert_array_equal(masks[0], resize_mask(decode_mask(str(pair.mask), labels), (8, 12)))


def test_what_zooming_out_uncovers_is_void():
    image, mask = np.full((1, 16, 16, 3), 255, np.uint8), np.ones((1, 16, 16, 1), np.uint8)
    images, masks = augmentation(zoom=(0.5, 0.5000001), stretch=1.0000001, light=0.0)(image, mask)
    ids = masks.numpy().ravel()
    assert 0.15 < (ids == 1).mean() < 0.35
    assert set(ids.tolist()) == {1, VOID}
    assert images.numpy()[masks.numpy()[..., 0] == VOID].max() < 200


def test_pasting_takes_picture_and_mask_of_the_classes_from_the_next_picture():
    """The pictures show their masks: id k of picture n is grey value 100n + k, in four pixels of the picture each."""
    masks = np.uint8([[[0, 1, 2, 3]], [[3, 0, VOID, 0]], [[1, 1, 1, 1]]])[..., None]
    images = np.kron(100 * np.arange(3)[:, None, None, None] + masks % VOID, np.ones((1, 2, 2, 3)))
    pasted_images, pasted_masks = copy_paste([1, 3], share=1)(tf.constant(images, tf.float32), tf.constant(masks))
    assert pasted_masks.dtype == tf.uint8
    assert pasted_masks.numpy()[..., 0].tolist() == [[[1, 1, 1, 1]], [[3, 1, VOID, 3]], [[3, 1, 1, 1]]]
    grey = pasted_images.numpy()[:, ::2, ::2, 0]
    assert grey.tolist() == [[[201, 201, 201, 201]], [[103, 1, 100, 3]], [[103, 201, 201, 201]]]
    np.testing.assert_array_equal(pasted_images, np.kron(grey[..., None], np.ones((1, 2, 2, 3))))


def test_pasting_draws_for_each_picture_and_each_class():
    masks = np.broadcast_to(np.uint8([1, 2])[None, None, :, None], (1000, 1, 2, 1)).copy()
    masks[::2] = 0  # every other picture has something to paste, and every other nothing
    images = np.repeat(masks, 3, axis=-1)
    _, pasted = copy_paste([1, 2], share=0.5, seed=0)(tf.constant(images), tf.constant(masks))
    one, two = (pasted.numpy()[::2, 0, :, 0] == [1, 2]).T
    assert 0.4 < one.mean() < 0.6
    assert 0.4 < two.mean() < 0.6
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.15


def test_only_augmented_batches_are_pasted_into(write_pair, labels):
    pairs = [write_pair(stem=str(n), values=np.full((16, 24), value, np.uint8)) for n, value in enumerate((0, 0, 1, 0))]

    def pixels_of_1(augment):
        batches = make_batches(pairs, labels, (16, 24), 4, augment, pasted=np.array([1]), seed=0)
        return np.mean([np.count_nonzero(masks == 1) for _, masks in batches.repeat(20)])

    assert pixels_of_1(False) == 16 * 24
    assert pixels_of_1(True) > 1.3 * 16 * 24


def test_pasting_void_is_an_error():
    with pytest.raises(ValueError, match=r"classes: expected ids 0\.\.254, found \[1, 255\]"):
        copy_paste([1, VOID])


def test_weights_follow_the_mask(write_pair, labels):
    values = np.uint8([[0, 1], [2, 255]])
    batches = make_batches([write_pair(values=values)], labels, (2, 2), 1, class_weights=np.float32([0.5, 1, 4]))
    *_, weights = next(iter(batches))
    assert weights.numpy()[0, ..., 0].tolist() == [[0.5, 1], [4, 0]]


def test_a_cache_that_does_not_fit_in_memory_goes_to_a_file(pairs, labels, monkeypatch):
    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    batches = make_batches(pairs, labels, (16, 24), 2)
    first = [m.numpy() for _, m in batches]
    for pair in pairs:
        pair.mask.unlink()
    for a, b in zip(first, [m.numpy() for _, m in batches], strict=True):
        np.testing.assert_array_equal(a, b)


def test_shuffling_keeps_no_more_in_memory_than_the_cache_may(write_pair, labels, monkeypatch):
    pairs = [write_pair(stem=str(n), values=np.full((16, 24), n, np.uint8)) for n in range(3)]
    orders = []
    for limit in (0, pipeline.CACHE_BYTES):
        monkeypatch.setattr(pipeline, "CACHE_BYTES", limit)
        batches = make_batches(pairs, labels, (16, 24), 1, augment=True, seed=0)
        orders.append([[int(np.min(masks)) for _, masks in batches] for _ in range(5)])
    assert orders[0] == [[0, 1, 2]] * 5  # there was room for one only
    assert orders[1] != orders[0]
    assert all(sorted(order) == [0, 1, 2] for order in orders[1])


def test_no_pairs_is_an_error(labels):
    with pytest.raises(ValueError, match="pairs: found none"):
        make_batches([], labels, (16, 24), 2)


def test_images_per_second_counts_pictures(pairs, labels):
    seen = []
    speed = images_per_second(make_batches(pairs, labels, (16, 24), 5), lambda *b: seen.append(len(b[0])), 3)
    assert seen == [5, 5, 5, 5]
    assert speed > 0
