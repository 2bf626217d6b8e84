import ast
import math
from pathlib import Path

import numpy as np
import pytest
from limits import needs_users, nobody, public_folder, small_disk

from unet_helpers.model import unet_model
from unet_helpers.networks import DRAWN_SCENES
from unet_helpers.recipe import EPOCH_LADDER, choose_epochs, expected_seconds, make_recipe, stage_of
from unet_helpers.training import ProgressiveResizing

STAGES = ((0.5, 0.5), (1, 1))


def parameters(folder, **changes) -> dict[str, object]:
    """The notebook's parameters, in folders of their own."""
    return {
        "DATASET": "demo", "DATA_DIR": str(folder / "data"), "MINUTES": 4, "IMAGE_SIZE": None, "SEED": 0,
        "ARCHIVE": None, "RUN_DIR": str(folder / "runs"), "EPOCHS": None, "N_FILTERS": None, "HALF_RESOLUTION": None,
        "BATCH_SIZE": None, "SIZE_STAGES": None, "LEARNING_RATE": 2e-2, "FRAMES_PER_DRIVE": 20, "TRAIN_ANEW": False,
        "SPLIT_BY": None, "START_FROM": None, "FREEZE_ENCODER": False,
    } | changes  # fmt: skip


def test_none_stands_for_what_suits_device_and_data(tmp_path):
    cpu, gpu = (make_recipe(kind, **parameters(tmp_path)) for kind in ("CPU", "GPU"))
    assert (cpu.n_filters, cpu.half_resolution, cpu.image_size, cpu.output_size) == (16, True, (192, 256), (96, 128))
    assert gpu.n_filters > cpu.n_filters
    assert gpu.output_size == gpu.image_size
    photographs = make_recipe("CPU", **parameters(tmp_path, DATASET="camvid"))
    assert (photographs.image_size, len(photographs.size_stages)) == ((384, 512), 3)
    assert (cpu.epochs, cpu.minutes, cpu.split_by) == (None, 4.0, None)
    assert not list(tmp_path.iterdir())


def test_what_is_given_is_taken_as_numbers_of_python(tmp_path):
    given = {
        "IMAGE_SIZE": tuple(np.array([64, 96])), "N_FILTERS": 3, "HALF_RESOLUTION": False, "BATCH_SIZE": 2,
        "EPOCHS": np.int64(7), "MINUTES": 0.5, "SIZE_STAGES": ((0.3, 0.5), (1, 1)), "LEARNING_RATE": 1,
        "FRAMES_PER_DRIVE": 1, "SEED": 2**32 - 1, "DATASET": "folder", "SPLIT_BY": r"^(seq\d+)_",
    }  # fmt: skip
    recipe = make_recipe("GPU", **parameters(tmp_path, **given | {"SIZE_STAGES": [[0.3, 0.5], [1, 1]]}))
    assert {name: getattr(recipe, name.lower()) for name in given} == given
    assert {type(value) for value in (*recipe.image_size, recipe.epochs)} == {int}


def test_the_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "my.zip").touch()
    (tmp_path / "drawn.keras").write_bytes(DRAWN_SCENES.read_bytes())
    values = {"DATA_DIR": "~/x", "RUN_DIR": "~/y", "ARCHIVE": "~/my.zip", "START_FROM": "~/drawn.keras"}
    recipe = make_recipe("CPU", **parameters(tmp_path, DATASET="lyft", **values))
    found = recipe.data_dir, recipe.run_dir, recipe.archive, recipe.start_from
    assert found == tuple(tmp_path / value[2:] for value in values.values())


def test_camvids_photographs_start_from_the_drawn_scenes_where_the_network_fits(tmp_path):
    """Measured for them, on a CPU; another network, or one for a GPU, is trained from scratch."""
    camvid = {"DATASET": "camvid"}
    for kind, changes, expected in (
        ("CPU", camvid, DRAWN_SCENES),
        ("GPU", camvid, None),
        ("GPU", camvid | {"N_FILTERS": 16, "HALF_RESOLUTION": True}, DRAWN_SCENES),
        ("CPU", camvid | {"N_FILTERS": 8}, None),
        ("CPU", camvid | {"START_FROM": "scratch"}, None),
        ("CPU", {"DATASET": "folder"}, None),
        ("CPU", {"DATASET": "folder", "START_FROM": "demo"}, DRAWN_SCENES),
    ):
        assert make_recipe(kind, **parameters(tmp_path, **changes)).start_from == expected, (kind, changes)


def test_the_network_that_is_given_decides_the_switches(tmp_path):
    path = tmp_path / "best.keras"
    unet_model((None, None, 3), 3, 2).save(path)
    changes = {"DATASET": "folder", "START_FROM": str(path)}
    recipe = make_recipe("CPU", **parameters(tmp_path, **changes, FREEZE_ENCODER=True))
    assert (recipe.start_from, recipe.n_filters, recipe.half_resolution) == (path, 3, False)
    assert recipe.freeze_encoder
    with pytest.raises(ValueError, match="N_FILTERS: found 16, .* has 3; try N_FILTERS = None"):
        make_recipe("CPU", **parameters(tmp_path, **changes, N_FILTERS=16))
    with pytest.raises(ValueError, match=r"none\.keras: "):
        make_recipe("CPU", **parameters(tmp_path, START_FROM=str(tmp_path / "none.keras")))
    with pytest.raises(ValueError, match="FREEZE_ENCODER: found True .* START_FROM"):
        make_recipe("CPU", **parameters(tmp_path, FREEZE_ENCODER=True))


def test_one_rule_for_sizes_whatever_else_is_chosen(tmp_path):
    """What the rule lets through, part 3 trains at its end, and part 1's network of four levels takes its output."""
    stages = ((0.5, 0.01), (1, 1))
    for side, better in ((32, 64), (80, 96), (8224, 8192)):
        with pytest.raises(ValueError, match=rf"^IMAGE_SIZE: .* found \({side}, 96\); try \({better}, 96\)"):
            make_recipe("CPU", **parameters(tmp_path, IMAGE_SIZE=(side, 96)))
    for side, half in ((64, True), (96, False), (8192, True)):
        given = {"IMAGE_SIZE": (side, 96), "HALF_RESOLUTION": half, "SIZE_STAGES": stages}
        recipe = make_recipe("CPU", **parameters(tmp_path, **given))
        assert ProgressiveResizing(recipe.image_size, recipe.size_stages).sizes[-1] == (side, 96)
        assert unet_model((*recipe.output_size, 3), 1, 2).output_shape[1:3] == recipe.output_size


WRONG = {  # each rule once
    "DATASET": ["kitti"],
    "DATA_DIR": ["", "~nobody of this name/x", "a\0b"],
    "RUN_DIR": [300 * "x", 1000 * "deep/"],
    "START_FROM": ["~nobody of this name/x"],
    "ARCHIVE": [3, "my.zip"],  # the drawn scenes are not downloaded
    "MINUTES": [0, "4", math.nan, math.inf, True],
    "IMAGE_SIZE": [256, (192.0, 256), (32, 3_200_000)],
    "SEED": [-1, 2**32],
    "EPOCHS": [0, 100_001, 2.5, True],
    "N_FILTERS": [257],
    "HALF_RESOLUTION": [1],
    "BATCH_SIZE": [4097],
    "LEARNING_RATE": [0, 1.01],
    "SIZE_STAGES": [
        (), ((1, 2),), ((0.8, 1), (0.5, 1), (1, 1)), ((0.5, 0.5), (0.5, 0.7), (1, 1)), ((1, 0.5),), ((1, 1, 1),),
    ],
    "FRAMES_PER_DRIVE": [10**9],
    "TRAIN_ANEW": [1],
    "SPLIT_BY": ["(", "", "(a)"],  # the drawn scenes have splits of their own
    "FREEZE_ENCODER": [None],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_parameter_is_named_as_it_was_typed_with_a_value_that_works(tmp_path, name):
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=f"^{name}: ") as caught:
            make_recipe("CPU", **parameters(tmp_path, **{name: value}))
        assert repr(value) in str(caught.value) or value in ("my.zip", "(a)")
        advice = str(caught.value).rpartition("try ")[2].removeprefix(f"{name} = ")
        make_recipe("CPU", **parameters(tmp_path, **{name: ast.literal_eval(advice)}))
    assert not list(tmp_path.iterdir())


def test_paths_that_cant_be_used_are_named_before_anything_is_done(tmp_path):
    (tmp_path / "file").touch()
    for name in ("DATA_DIR", "RUN_DIR"):
        with pytest.raises(ValueError, match=rf"^{name}: nothing can be written in '.*file' \(Not a directory\)"):
            make_recipe("CPU", **parameters(tmp_path, **{name: str(tmp_path / "file" / "deeper")}))
        if Path("/proc").is_dir():  # not even root can make a file there
            with pytest.raises(ValueError, match=rf"^{name}: nothing can be written in '/proc' "):
                make_recipe("CPU", **parameters(tmp_path, **{name: "/proc/not_there"}))
            assert make_recipe("CPU", **parameters(tmp_path, DATASET="folder", DATA_DIR="/proc"))  # is only read


@needs_users
def test_a_full_disk_and_a_folder_of_another_user_are_known_before_the_training(tmp_path):
    """With less than 1 MB free, no epoch would be saved."""
    with public_folder() as folder:
        (folder / "theirs").mkdir(mode=0o000)
        with nobody(), pytest.raises(ValueError, match=r"^RUN_DIR: nothing can be written in .*theirs. \(Permission"):
            make_recipe("CPU", **parameters(folder, RUN_DIR=str(folder / "theirs" / "deep" / "runs")))
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        (disk / "filler").write_bytes(bytes(1 << 18))
        with pytest.raises(ValueError, match=r"^RUN_DIR: nothing can be written in '.*disk' \(No space"):
            make_recipe("CPU", **parameters(tmp_path, RUN_DIR=str(disk / "runs")))
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_three_trainings_share_the_minutes(tmp_path):
    recipe = make_recipe("CPU", **parameters(tmp_path))
    assert (recipe.long_minutes, recipe.short_minutes) == pytest.approx((8 / 3, 2 / 3))
    exact = make_recipe("CPU", **parameters(tmp_path, EPOCHS=10))
    assert (exact.epochs, exact.short_epochs, exact.short_minutes) == (10, 3, math.inf)
    assert make_recipe("CPU", **parameters(tmp_path, EPOCHS=1)).short_epochs == 1


def test_epochs_are_the_most_of_the_ladder_that_fit():
    assert [stage_of(epoch, 4, STAGES) for epoch in range(4)] == [0, 0, 1, 1]
    assert stage_of(0, 1, STAGES) == 1  # the last epoch has the full size, however few there are
    assert stage_of(4, 5, ((0.9, 0.25), (0.95, 0.5), (1, 1))) == 2
    assert expected_seconds(20, STAGES, (6, 14)) == 200
    assert choose_epochs(240, STAGES, (6, 14)) == 24
    assert choose_epochs(239.9, STAGES, (6, 14)) == 20
    assert choose_epochs(10, STAGES, (6, 14)) == EPOCH_LADDER[0] == 1
    assert choose_epochs(1e9, STAGES, (6, 14)) == EPOCH_LADDER[-1]
    # A machine that is a tenth faster or slower chooses equally as a rule: so the steps of the ladder are coarse.
    assert all(later / earlier >= 1.2 for earlier, later in zip(EPOCH_LADDER, EPOCH_LADDER[1:], strict=False))
