import io
import json

import numpy as np
import pytest
from limits import nobody, public_folder, small_disk

from unet_helpers.checkpoints import Checkpoint, is_finished, read_checkpoint, write_checkpoint


def state(epochs, finished=False):
    variables = [] if finished else [np.full((2, 3), epochs, np.float32), np.int64(epochs)]
    best = {"epoch": epochs, "image_size": [64, 96], "val_mIoU": 0.5} if epochs else None
    log = [{"epoch": n, "loss": 0.1 * n} for n in range(epochs)]
    best_weights = [np.full(4, epochs, np.float32), np.full((1, 2), -epochs, np.float32)] if epochs else []
    return Checkpoint(log, best, finished, variables, best_weights)


def assert_equal(found, expected):
    assert found[:3] == expected[:3]
    for ours, theirs in zip(found[3:], expected[3:], strict=True):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
            assert np.asarray(a).dtype == np.asarray(b).dtype


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_state_is_read_as_it_was_written(tmp_path):
    assert read_checkpoint(tmp_path) is None
    for epochs in (0, 1, 2):
        write_checkpoint(tmp_path, state(epochs))
        assert_equal(read_checkpoint(tmp_path), state(epochs))
        assert not is_finished(tmp_path)
    assert names(tmp_path) == ["state.npz", "state_before.npz"]


def test_a_finished_training_keeps_one_file(tmp_path):
    assert not is_finished(tmp_path)
    write_checkpoint(tmp_path, state(1))
    write_checkpoint(tmp_path, state(2, finished=True))
    assert is_finished(tmp_path)
    assert names(tmp_path) == ["state.npz"]
    assert_equal(read_checkpoint(tmp_path), state(2, finished=True))


def without_its_arrays() -> bytes:
    """A whole zip, such as another version could have written, in which what meta promises is missing."""
    meta = {"log": [], "best": None, "finished": False, "variables": 2, "best_weights": 0}
    content = io.BytesIO()
    np.savez(content, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))
    return content.getvalue()


@pytest.mark.parametrize(
    "content", [b"", b"no zip", None, without_its_arrays()], ids=["empty", "text", "cut", "missing"]
)
def test_of_two_states_the_newest_that_can_be_read_is_taken(tmp_path, capsys, content):
    write_checkpoint(tmp_path, state(1))
    write_checkpoint(tmp_path, state(2))
    path = tmp_path / "state.npz"
    damaged = path.read_bytes()[:-100] if content is None else content
    path.write_bytes(damaged)
    assert not is_finished(tmp_path)
    assert_equal(read_checkpoint(tmp_path), state(1))
    assert "state.npz can't be read" in capsys.readouterr().out
    assert names(tmp_path) == ["state_before.npz", "unreadable_state.npz"]
    assert (tmp_path / "unreadable_state.npz").read_bytes() == damaged


def test_a_disk_that_is_full_changes_nothing(tmp_path):
    with small_disk(tmp_path / "disk", 100_000) as disk:
        for epochs in (1, 2):
            write_checkpoint(disk, state(epochs))
        before = {path.name: path.read_bytes() for path in disk.iterdir()}
        with pytest.raises(OSError, match="No space left on device"):
            write_checkpoint(disk, state(3)._replace(variables=[np.zeros(100_000, np.float32)]))
        assert {path.name: path.read_bytes() for path in disk.iterdir()} == before


def test_a_state_that_can_neither_be_read_nor_put_aside_is_passed_over(capsys):
    with public_folder() as folder:
        for epochs in (1, 2):
            write_checkpoint(folder, state(epochs))
        (folder / "state.npz").write_bytes(b"no zip")
        folder.chmod(0o555)
        with nobody():
            assert_equal(read_checkpoint(folder), state(1))
        folder.chmod(0o755)
        assert names(folder) == ["state.npz", "state_before.npz"]
    assert "state.npz can't be read" in capsys.readouterr().out
