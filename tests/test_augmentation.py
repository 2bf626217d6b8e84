import numpy as np
import pytest
import tensorflow as tf

from benchmarks.copy_paste import CopyPaste
from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.labels import VOID


def draws(n_images: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).random((n_images, 256), np.float32))


def test_image_and_mask_change_alike():
    """The image shows its mask: where the mask says k, the image must be bright in channel k."""
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(0, 3, (4, 6, 8)), np.ones((1, 8, 8))).astype(np.uint8)[..., None]
    image = np.eye(3, dtype=np.uint8)[mask[..., 0]] * 255
    images, masks = RandomResizedCrop(light=0.0)(tf.constant(image), tf.constant(mask), draws(4))
    ids = masks.numpy()[..., 0]
    assert set(np.unique(ids)) <= {0, 1, 2, VOID}
    assert not np.array_equal(ids, mask[..., 0])
    agree = images.numpy().argmax(axis=-1) == ids
    assert agree[ids != VOID].mean() > 0.97  # bilinear edges lie between two ids


def test_half_of_the_images_are_flipped_and_their_changes_are_independent():
    """Were two changes decided by one draw, every enlarged image would be bright, too."""
    ramp = np.broadcast_to(np.linspace(60, 200, 32, dtype=np.uint8)[None, None, :, None], (2000, 8, 32, 3))
    images, _ = RandomResizedCrop()(tf.constant(ramp), tf.zeros((2000, 8, 32, 1), tf.uint8), draws(2000))
    row = images.numpy()[:, 4, :, 0]
    inner = row[:, 10:-10]
    steps = inner[:, -1] - inner[:, 0]
    assert 0.45 < (steps < 0).mean() < 0.55
    assert abs(np.corrcoef(np.abs(steps), inner.mean(axis=1))[0, 1]) < 0.1


def test_values_keep_their_range_and_the_same_draws_give_the_same_image():
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (4, 32, 48, 3), np.uint8), rng.integers(0, 3, (4, 32, 48, 1), np.uint8)
    first, masks = RandomResizedCrop()(image, mask, draws(4))
    assert (first.dtype, masks.dtype) == (tf.float32, tf.uint8)
    assert float(tf.reduce_min(first)) >= 0
    assert float(tf.reduce_max(first)) <= 255
    np.testing.assert_array_equal(RandomResizedCrop()(image, mask, draws(4))[0], first)
    assert not np.array_equal(RandomResizedCrop()(image, mask, 1 - draws(4))[0], first)


def test_what_zooming_out_uncovers_is_void():
    image, mask = np.full((1, 16, 16, 3), 255, np.uint8), np.ones((1, 16, 16, 1), np.uint8)
    images, masks = RandomResizedCrop(zoom=(0.5, 0.5000001), stretch=1.0000001, light=0.0)(image, mask, draws(1))
    ids = masks.numpy().ravel()
    assert 0.15 < (ids == 1).mean() < 0.35
    assert set(ids.tolist()) == {1, VOID}
    assert images.numpy()[masks.numpy()[..., 0] == VOID].max() < 200


def test_pasting_takes_image_and_mask_of_the_classes_from_the_next_image():
    """The images show their masks: id k of image n is grey value 100n + k, in four pixels of the image each."""
    masks = np.uint8([[[0, 1, 2, 3]], [[3, 0, VOID, 0]], [[1, 1, 1, 1]]])[..., None]
    images = np.kron(100 * np.arange(3)[:, None, None, None] + masks % VOID, np.ones((1, 2, 2, 3)))
    paste = CopyPaste([1, 3], share=1)
    pasted_images, pasted_masks = paste(tf.constant(images, tf.float32), tf.constant(masks), draws(3))
    assert pasted_masks.dtype == tf.uint8
    assert pasted_masks.numpy()[..., 0].tolist() == [[[1, 1, 1, 1]], [[3, 1, VOID, 3]], [[3, 1, 1, 1]]]
    grey = pasted_images.numpy()[:, ::2, ::2, 0]
    assert grey.tolist() == [[[201, 201, 201, 201]], [[103, 1, 100, 3]], [[103, 201, 201, 201]]]
    np.testing.assert_array_equal(pasted_images, np.kron(grey[..., None], np.ones((1, 2, 2, 3))))


def test_pasting_is_decided_for_each_image_and_each_class():
    masks = np.broadcast_to(np.uint8([1, 2])[None, None, :, None], (1000, 1, 2, 1)).copy()
    masks[::2] = 0  # every other image has something to paste, and every other nothing
    images = np.repeat(masks, 3, axis=-1)
    _, pasted = CopyPaste([1, 2], share=0.5)(tf.constant(images), tf.constant(masks), draws(1000))
    one, two = (pasted.numpy()[::2, 0, :, 0] == [1, 2]).T
    assert (0.4 < one.mean() < 0.6) & (0.4 < two.mean() < 0.6)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.15
    with pytest.raises(ValueError, match=r"classes: .*\[1, 255\]"):
        CopyPaste([1, VOID])
