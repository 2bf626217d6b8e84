import gc
import os
import shutil
import tempfile
import weakref
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from limits import small_disk

from benchmarks.copy_paste import CopyPaste
from unet_helpers import pipeline
from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.images import decode_image, decode_mask, fit_image, fit_mask
from unet_helpers.labels import VOID
from unet_helpers.pipeline import PairReader, make_batches, with_class_weights
from unet_helpers.training import ProgressiveResizing


@pytest.fixture
def pairs(write_pair):
    return [write_pair(stem=f"{n:02}", seed=n) for n in range(5)]


@pytest.fixture
def numbered(write_pair):
    """Three pairs, each mask filled with its number."""
    return [write_pair(stem=str(n), values=np.full((16, 24), n, np.uint8)) for n in range(3)]


def arrays(batches) -> list[np.ndarray]:
    """Images and masks of all batches, one after another."""
    return [part.numpy() for batch in batches for part in batch]


def assert_equal(batches, others) -> None:
    for one, other in zip(arrays(batches), arrays(others), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_pair_once_and_in_order_without_shuffling(pairs, labels):
    batches = make_batches(pairs, labels, (32, 48), 2)
    images, masks = next(iter(batches))
    assert (images.shape, images.dtype) == ((2, 32, 48, 3), tf.uint8)
    assert (masks.shape, masks.dtype) == ((2, 32, 48, 1), tf.uint8)
    expected = np.stack([decode_mask(pair.mask, labels) for pair in pairs])
    np.testing.assert_array_equal(np.concatenate(arrays(batches)[1::2]), expected)
    assert len(batches) == 3


def test_shuffled_batches_are_full(pairs, labels):
    batches = make_batches(pairs, labels, (16, 24), 2, shuffle=True)
    assert len(batches) == len(list(batches)) == 2
    assert {len(images) for images, _ in batches} == {2}
    assert len(list(make_batches(pairs[:1], labels, (16, 24), 2, shuffle=True))) == 1  # else there would be none
    assert batches.options().autotune.enabled is False  # at an epoch's end the tuner would be waited for
    with pytest.raises(ValueError, match="pairs: found none"):
        make_batches([], labels, (16, 24), 2)


# ---- what is random ----


def test_one_image_is_a_new_one_in_each_epoch_and_follows_from_the_seed(pairs, labels):
    """No shuffling, which would hide it: with random ops in Dataset.map the same variant came eight times."""

    def variants(seed):
        batches = make_batches(pairs[:1], labels, (32, 48), 1, augment=[RandomResizedCrop()], seed=seed)
        return [next(iter(batches))[0].numpy().tobytes() for _ in range(4)]

    first = variants(0)
    assert len({*first, *variants(1)}) == 8
    assert variants(0) == first


def test_each_image_and_each_change_has_draws_of_its_own(pairs, labels):
    """The same change applied twice must draw anew: here each change returns its draws."""
    changes = [lambda images, masks, draws: (draws, masks), lambda images, masks, draws: ((images, draws), masks)]
    (first, second), _ = next(iter(make_batches(pairs, labels, (16, 24), 5, augment=changes)))
    assert first.shape == second.shape == (5, pipeline.N_DRAWS)
    correlations = np.corrcoef(np.concatenate([first, second]))
    assert np.abs(correlations - np.eye(10)).max() < 0.3


def test_the_order_is_new_in_each_epoch_and_follows_from_the_seed(numbered, labels):
    def orders(seed):
        batches = make_batches(numbered, labels, (16, 24), 1, shuffle=True, seed=seed)
        return [[int(np.min(masks)) for _, masks in batches] for _ in range(6)]

    first = orders(0)
    assert all(sorted(order) == [0, 1, 2] for order in first)
    assert len({tuple(order) for order in first}) > 1
    assert orders(0) == first != orders(1)


def test_the_clock_decides_which_epoch_it_is(pairs, labels):
    """A run that is resumed in epoch 5 gets the images of epoch 5, not those of the first."""

    def epoch_5(epochs_before):
        resizing = ProgressiveResizing((32, 48), epochs=9, step=16)
        options = {"shuffle": True, "augment": [RandomResizedCrop(), CopyPaste([2])], "seed": 3, "resizing": resizing}
        batches = make_batches(pairs, labels, (32, 48), 2, **options)
        for epoch in [*epochs_before, 4]:
            resizing.on_epoch_begin(epoch)
            content = [(images, masks) for images, masks in batches]
        return content

    assert_equal(epoch_5(range(4)), epoch_5([]))


# ---- sizes and weights ----


def test_images_and_smaller_masks_have_the_size_of_the_stage(pairs, labels):
    resizing = ProgressiveResizing((32, 64), ((0.5, 0.5), (1, 1)), epochs=2, step=16)
    options = {"mask_size": (16, 32), "resizing": resizing}
    batches = make_batches(pairs, labels, (32, 64), 2, augment=[RandomResizedCrop()], **options)
    for epoch, size in enumerate(((16, 32), (32, 64))):
        resizing.on_epoch_begin(epoch)
        for images, masks in batches:
            assert images.shape[1:] == (*size, 3)
            assert masks.shape[1:] == (size[0] // 2, size[1] // 2, 1)
            assert set(np.unique(masks)) <= {0, 1, 2, VOID}
    resizing.on_epoch_begin(0)
    for (images, masks), pair in zip(batches.plain.unbatch().batch(1), pairs, strict=True):
        # A small image is the image, made smaller, with its own mask.
        np.testing.assert_array_equal(images[0], fit_image(decode_image(pair.image), (16, 32)))
        np.testing.assert_array_equal(masks[0], fit_mask(decode_mask(pair.mask, labels), (8, 16), (16, 32)))


def test_weights_follow_the_mask(write_pair, labels):
    values = np.uint8([[0, 1], [2, 255]])
    pairs = [write_pair(values=values)]
    batches = with_class_weights(make_batches(pairs, labels, (2, 2), 1), [0.5, 1, 4])
    *_, weights = next(iter(batches))
    assert weights.numpy()[0, ..., 0].tolist() == [[0.5, 1], [4, 0]]
    assert batches.pairs == pairs
    assert batches.class_weights.tolist() == [0.5, 1, 4]
    assert len(batches) == 1


# ---- the cache ----


@pytest.fixture
def cached(monkeypatch):
    """A function: the bytes of each file of decoded images that there still is."""
    files, make = weakref.WeakSet(), tempfile.TemporaryFile

    def make_and_note(**options):
        files.add(file := make(**options))
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", make_and_note)
    return lambda: [os.fstat(file.fileno()).st_size for file in files]


def test_plain_batches_are_not_augmented_and_need_no_files_of_their_own(numbered, labels):
    """In the order of the epoch, and without making it another epoch for the others."""
    options = {"shuffle": True, "resizing": ProgressiveResizing((32, 64), epochs=9)}
    batches = make_batches(numbered, labels, (32, 64), 1, augment=[RandomResizedCrop()], **options)
    expected = arrays(make_batches(numbered, labels, (32, 64), 1, cache=False, **options))
    first = arrays(batches)
    for pair in numbered:
        pair.image.unlink()
    assert all(map(np.array_equal, arrays(batches.plain), expected))
    assert not any(map(np.array_equal, expected[::2], first[::2]))
    assert all(map(np.array_equal, arrays(batches), first))


def test_files_are_decoded_once_and_what_one_batch_read_is_not_lost(pairs, labels, cached):
    """tf.data's own cache discards an unfinished file."""
    batches = make_batches(pairs, labels, (16, 24), 2)
    first = arrays(batches.take(1))
    pairs[0].image.unlink()
    whole = list(batches)
    assert all(map(np.array_equal, arrays(whole[:1]), first))
    for pair in pairs:
        pair.mask.unlink()
    assert_equal(batches, whole)
    assert cached() == [5 * 16 * 24 * 4]


def test_several_threads_read_the_cache_at_once(numbered, labels):
    reader = PairReader(numbered, labels, (16, 24))
    numbers = [0, 1, 2] * 2000
    with ThreadPoolExecutor(4) as pool:
        masks = list(pool.map(lambda n: reader.read(n)[1], numbers))
    assert reader.cached.all()
    assert all((mask == n).all() for mask, n in zip(masks, numbers, strict=True))


def test_only_the_size_in_use_is_cached_and_only_when_its_turn_comes(pairs, labels, cached):
    resizing = ProgressiveResizing((32, 64), ((0.5, 0.5), (1, 1)), epochs=2, step=16)
    batches = make_batches(pairs, labels, (32, 64), 2, resizing=resizing)
    assert not cached()
    for epoch, size in enumerate((16 * 32, 32 * 64)):
        resizing.on_epoch_begin(epoch)
        list(batches)
        gc.collect()
        assert cached() == [5 * 4 * size]
    others = batches.repeat().take(3)
    del batches
    gc.collect()
    assert len(list(others)) == 3  # only the loop holds the files
    del others
    gc.collect()
    list(make_batches(pairs, labels, (16, 24), 2, cache=False))
    assert not cached()


def test_what_does_not_fit_on_the_disk_is_decoded_each_time(pairs, labels, cached, tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    needed = 5 * 16 * 24 * 4
    for free, said in ((2 * needed - 1, "images of 16x24 can be cached (they need 0.0 GB"), (2 * needed, "")):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(10**9, 0, free))
        batches = make_batches(pairs, labels, (16, 24), 2)
        assert_equal(batches, list(batches))
        assert bool(cached()) == (not said)
        assert said in (shown := capsys.readouterr().out)
        assert bool(shown) == bool(said)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not_there"))
    assert PairReader(pairs, labels, (16, 24)).read(0)[0].shape == (16, 24, 3)
    assert "can be cached (No such file" in capsys.readouterr().out


def test_a_disk_that_becomes_full_does_not_end_the_training(pairs, labels, tmp_path, monkeypatch, capsys):
    expected = [PairReader(pairs, labels, (16, 24), cache=False).read(n) for n in range(5)]
    with small_disk(tmp_path / "disk", 4096) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "free")(10**9))
        reader = PairReader(pairs, labels, (16, 24))
        for _ in range(2):
            for n in range(5):
                assert all(map(np.array_equal, reader.read(n), expected[n]))
        assert capsys.readouterr().out.count("can be cached (No space left on device)") == 1
        assert 0 < reader.cached.sum() < 5
        reader.file.close()
