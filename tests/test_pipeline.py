import gc
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from unet_helpers import pipeline
from unet_helpers.augmentation import CopyPaste, RandomResizedCrop
from unet_helpers.images import decode_image, decode_mask, fit_image, fit_mask
from unet_helpers.labels import VOID
from unet_helpers.pipeline import PairReader, make_batches, with_class_weights
from unet_helpers.training import ProgressiveResizing, images_per_second


@pytest.fixture
def pairs(write_pair):
    return [write_pair(stem=f"{n:02}", seed=n) for n in range(5)]


@pytest.fixture
def numbered(write_pair):
    """Six pairs whose masks are full of their own number; 3 and more are void for the labels."""
    return [write_pair(stem=str(n), values=np.full((16, 24), n, np.uint8)) for n in range(3)]


def test_shapes_and_dtypes(pairs, labels):
    images, masks = next(iter(make_batches(pairs, labels, (16, 24), 2)))
    assert (images.shape, images.dtype) == ((2, 16, 24, 3), tf.uint8)
    assert (masks.shape, masks.dtype) == ((2, 16, 24, 1), tf.uint8)


def test_every_picture_once_and_in_order_without_shuffling(pairs, labels):
    batches = make_batches(pairs, labels, (32, 48), 2)
    masks = np.concatenate([m.numpy() for _, m in batches])
    expected = np.stack([decode_mask(p.mask, labels) for p in pairs])
    np.testing.assert_array_equal(masks, expected)
    assert len(batches) == 3


def test_shuffled_batches_are_full(pairs, labels):
    batches = make_batches(pairs, labels, (16, 24), 2, shuffle=True)
    assert len(batches) == len(list(batches)) == 2
    assert {len(images) for images, _ in batches} == {2}
    assert len(list(make_batches(pairs[:1], labels, (16, 24), 2, shuffle=True))) == 1  # else there would be none


@pytest.mark.parametrize("shuffle", [False, True])
def test_tf_data_does_not_tune_itself(pairs, labels, shuffle):
    """An epoch's end would wait for the tuner's next look, which is up to as long away as the epoch was."""
    assert make_batches(pairs, labels, (16, 24), 2, shuffle=shuffle).options().autotune.enabled is False


def test_one_picture_is_a_new_one_in_each_epoch(pairs, labels):
    """No shuffling, which would hide it: with random ops in Dataset.map the same variant came eight times."""
    batches = make_batches(pairs[:1], labels, (32, 48), 1, augment=[RandomResizedCrop()], seed=0)
    variants = [next(iter(batches))[0].numpy().tobytes() for _ in range(8)]
    assert len(set(variants)) == 8
    again = make_batches(pairs[:1], labels, (32, 48), 1, augment=[RandomResizedCrop()], seed=0)
    assert [next(iter(again))[0].numpy().tobytes() for _ in range(8)] == variants
    other = make_batches(pairs[:1], labels, (32, 48), 1, augment=[RandomResizedCrop()], seed=1)
    assert next(iter(other))[0].numpy().tobytes() not in variants


def test_two_pictures_get_different_draws(pairs, labels):
    batches = make_batches([pairs[0], pairs[0]], labels, (32, 48), 2, augment=[RandomResizedCrop()])
    images, _ = next(iter(batches))
    assert not np.array_equal(images[0], images[1])


def test_pasting_is_drawn_anew_in_each_epoch(write_pair, labels):
    """Two pictures, no shuffling, one class that is pasted or not."""
    pairs = [write_pair(stem=str(n), values=np.full((16, 24), n, np.uint8)) for n in range(2)]

    def pasted(seed):
        batches = make_batches(pairs, labels, (16, 24), 2, augment=[CopyPaste([1])], seed=seed)
        return [bool((next(iter(batches))[1][0] == 1).numpy().all()) for _ in range(20)]

    assert 5 <= sum(pasted(0)) <= 15
    assert pasted(0) == pasted(0)
    assert pasted(0) != pasted(1)


def test_two_changes_have_draws_of_their_own(pairs, labels):
    """The same change twice must not do the same twice: here each change hands its draws out."""
    changes = [lambda images, masks, draws: (draws, masks), lambda images, masks, draws: ((images, draws), masks)]
    (first, second), _ = next(iter(make_batches(pairs, labels, (16, 24), 5, augment=changes)))
    assert first.shape == second.shape == (5, pipeline.N_DRAWS)
    assert abs(np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]) < 0.1


def test_the_order_is_new_in_each_epoch_and_follows_from_the_seed(numbered, labels):
    def orders(seed):
        batches = make_batches(numbered, labels, (16, 24), 1, shuffle=True, seed=seed)
        return [[int(np.min(masks)) for _, masks in batches] for _ in range(6)]

    assert all(sorted(order) == [0, 1, 2] for order in orders(0))
    assert len({tuple(order) for order in orders(0)}) > 1
    assert orders(0) == orders(0)
    assert orders(0) != orders(1)


def test_the_clock_decides_which_epoch_it_is(pairs, labels):
    """A training that goes on in epoch 5 gets the pictures of epoch 5, not those of the first."""

    def epoch_5(epochs_before):
        resizing = ProgressiveResizing((32, 48), epochs=9, step=16)
        options = {"shuffle": True, "augment": [RandomResizedCrop(), CopyPaste([2])], "seed": 3, "resizing": resizing}
        batches = make_batches(pairs, labels, (32, 48), 2, **options)
        for epoch in [*epochs_before, 4]:
            resizing.on_epoch_begin(epoch)
            content = [(images.numpy(), masks.numpy()) for images, masks in batches]
        return content

    for a, b in zip(epoch_5(range(4)), epoch_5([]), strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


def test_masks_may_be_smaller_than_pictures(pairs, labels):
    for augment in ([], [RandomResizedCrop()]):
        images, masks = next(iter(make_batches(pairs, labels, (32, 48), 2, augment=augment, mask_size=(16, 24))))
        assert (images.shape[1:3], masks.shape[1:3]) == ((32, 48), (16, 24))


@pytest.mark.parametrize("augment", [(), [RandomResizedCrop()]])
def test_pictures_and_masks_have_the_size_of_the_stage(pairs, labels, augment):
    resizing = ProgressiveResizing((32, 64), ((0.5, 0.5), (1, 1)), epochs=2, step=16)
    batches = make_batches(pairs, labels, (32, 64), 2, augment=augment, mask_size=(16, 32), resizing=resizing)
    for epoch, size in enumerate(((16, 32), (32, 64))):
        resizing.on_epoch_begin(epoch)
        for images, masks in batches:
            assert images.shape[1:] == (*size, 3)
            assert masks.shape[1:] == (size[0] // 2, size[1] // 2, 1)
            assert set(np.unique(masks)) <= {0, 1, 2, VOID}
    resizing.on_epoch_begin(0)
    if not augment:  # a small picture is the picture, made smaller, with its own mask
        for (images, masks), pair in zip(batches.unbatch().batch(1), pairs, strict=True):
            np.testing.assert_array_equal(images[0], fit_image(decode_image(pair.image), (16, 32)))
            np.testing.assert_array_equal(masks[0], fit_mask(decode_mask(pair.mask, labels), (8, 16), (16, 32)))


def test_the_size_may_change_in_the_middle_of_an_epoch_but_not_of_a_batch(pairs, labels):
    resizing = ProgressiveResizing((32, 64), ((0.5, 0.5), (1, 1)), step=16)
    batches = make_batches(pairs, labels, (32, 64), 2, resizing=resizing)
    shapes = []
    for images, _ in batches.repeat(10):
        shapes.append(images.shape[1:3])
        resizing.stage = 1
    assert set(shapes) == {(16, 32), (32, 64)}
    assert shapes[-1] == (32, 64)


def test_weights_follow_the_mask(write_pair, labels):
    values = np.uint8([[0, 1], [2, 255]])
    batches = with_class_weights(make_batches([write_pair(values=values)], labels, (2, 2), 1), np.float32([0.5, 1, 4]))
    *_, weights = next(iter(batches))
    assert weights.numpy()[0, ..., 0].tolist() == [[0.5, 1], [4, 0]]
    assert len(batches) == 1


# ---- what is kept, and where ----


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files that holds nothing else."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def kept(folder: Path) -> list[int]:
    """Bytes of each file of decoded pictures; TensorFlow makes other temporary files."""
    return [path.stat().st_size for path in folder.glob("unet_cache_*/pixels")]


def test_plain_batches_are_not_augmented_and_need_no_files_of_their_own(numbered, labels, temporary):
    """In the order of the epoch, and without making it another epoch for the others."""
    size, resizing = (32, 64), ProgressiveResizing((32, 64), epochs=9)
    batches = make_batches(numbered, labels, size, 1, shuffle=True, augment=[RandomResizedCrop()], resizing=resizing)
    expected = list(make_batches(numbered, labels, size, 1, shuffle=True, resizing=resizing, cache=False))
    first = [images.numpy() for images, _ in batches]
    for pair in numbered:
        pair.image.unlink()
    for (images, masks), (plain, plain_masks), augmented in zip(expected, batches.plain, first, strict=True):
        np.testing.assert_array_equal(images, plain)
        np.testing.assert_array_equal(masks, plain_masks)
        assert (augmented != plain.numpy()).any()
    for (images, _), before in zip(batches, first, strict=True):
        np.testing.assert_array_equal(images, before)


def test_files_are_decoded_once(pairs, labels, temporary):
    batches = make_batches(pairs, labels, (16, 24), 2)
    first = [(i.numpy(), m.numpy()) for i, m in batches]
    for pair in pairs:
        pair.mask.unlink()
        pair.image.unlink()
    for a, b in zip(first, [(i.numpy(), m.numpy()) for i, m in batches], strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    assert kept(temporary) == [5 * 16 * 24 * 4]


def test_a_glance_at_one_batch_is_not_lost(numbered, labels, temporary):
    """tf.data's own cache throws a half-made file away."""
    batches = make_batches(numbered, labels, (16, 24), 1)
    first = next(iter(batches))[0].numpy()
    numbered[0].image.unlink()
    np.testing.assert_array_equal(next(iter(batches))[0], first)


def test_only_the_size_in_use_is_kept_and_only_when_its_turn_comes(pairs, labels, temporary):
    resizing = ProgressiveResizing((32, 64), ((0.5, 0.5), (1, 1)), epochs=2, step=16)
    batches = make_batches(pairs, labels, (32, 64), 2, resizing=resizing)
    assert not kept(temporary)
    for epoch, size in enumerate((16 * 32, 32 * 64)):
        resizing.on_epoch_begin(epoch)
        list(batches)
        gc.collect()
        assert kept(temporary) == [5 * 4 * size]
    others = batches.repeat().take(3)
    del batches
    gc.collect()
    assert len(list(others)) == 3
    assert len(kept(temporary)) == 1
    assert len(list(make_batches(pairs, labels, (16, 24), 2).repeat(2))) == 6  # only the loop holds them
    del others
    gc.collect()
    assert not kept(temporary)


def test_batches_for_one_pass_keep_nothing(pairs, labels, temporary):
    list(make_batches(pairs, labels, (16, 24), 2, cache=False))
    assert not kept(temporary)


def test_what_does_not_fit_on_the_disk_is_decoded_each_time(pairs, labels, temporary, monkeypatch, capfd):
    usage = namedtuple("usage", "total used free")
    needed = 5 * 16 * 24 * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 2 * needed - 1))
    batches = make_batches(pairs, labels, (16, 24), 2)
    first = [m.numpy() for _, m in batches]
    assert not kept(temporary)
    assert "5 decoded pictures of 16x24 are not kept (they need 0.0 GB" in capfd.readouterr().out
    for a, b in zip(first, [m.numpy() for _, m in batches], strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, 2 * needed))
    list(make_batches(pairs, labels, (16, 24), 2).take(1))
    assert not capfd.readouterr().out


def test_no_place_for_temporary_files_is_said_and_not_needed(pairs, labels, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not_there"))
    reader = PairReader(pairs, labels, (16, 24))
    assert reader.read(0)[0].shape == (16, 24, 3)
    assert "not kept (there is no place for temporary files" in capsys.readouterr().out


def test_a_disk_that_becomes_full_does_not_end_the_training(pairs, labels, temporary, monkeypatch, capsys):
    reader = PairReader(pairs, labels, (16, 24))
    first = reader.read(0)

    def full(path, mode="r", *rest, opened=open, **options):
        if mode == "r+b":
            raise OSError(28, "No space left on device")
        return opened(path, mode, *rest, **options)

    monkeypatch.setattr("builtins.open", full)
    others = [reader.read(n) for n in range(1, 5)]
    monkeypatch.undo()
    assert capsys.readouterr().out.count("no more decoded pictures can be kept (No space left on device)") == 1
    assert reader.kept.tolist() == [True, False, False, False, False]
    fresh = PairReader(pairs, labels, (16, 24), cache=False)
    for n, (image, mask) in enumerate([reader.read(0), *others]):
        np.testing.assert_array_equal(image, fresh.read(n)[0])
        np.testing.assert_array_equal(mask, fresh.read(n)[1])
    np.testing.assert_array_equal(first[0], fresh.read(0)[0])


def test_no_pairs_is_an_error(labels):
    with pytest.raises(ValueError, match="pairs: found none"):
        make_batches([], labels, (16, 24), 2)


def test_images_per_second_counts_pictures(pairs, labels):
    seen = []
    speed = images_per_second(make_batches(pairs, labels, (16, 24), 5), lambda *b: seen.append(len(b[0])), 3)
    assert seen == [5, 5, 5, 5]
    assert speed > 0
