import subprocess
import sys
from pathlib import Path

import numpy as np
from fuzzing import fuzz
from PIL import Image

from unet_helpers.labels import class_pixels


def test_a_thousand_odd_files_are_refused_by_name_or_read_as_they_are():
    """In a process of its own, which TensorFlow may end. `python -m tests.fuzzing 10000` tries more."""
    command = [sys.executable, "-m", "tests.fuzzing", "1000"]
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=Path(__file__).parents[1])
    assert run.returncode == 0, f"{run.stdout[-4000:]}\n{run.stderr[-2000:]}"
    together, tried, refused, equal, between = run.stdout.strip().splitlines()[-1].split()
    assert (together, tried, between) == ("together", "1000", "0")
    assert min(int(refused), int(equal)) > 200


def test_a_check_that_asks_pillow_alone_is_found_out(tmp_path):
    def pillow_alone(pair, labels):
        for path in pair:
            try:
                with Image.open(path) as picture:
                    values = np.asarray(picture.convert("RGB"))[..., 0]
            except Exception as error:
                raise ValueError(f"{path}: {error}") from error
        return class_pixels(labels.value_to_id[values], labels)

    table, faults = fuzz(tmp_path, range(100), 0, pillow_alone)
    assert len(faults) >= sum(count["between"] for count in table.values()) > 10
