"""Make docs/drive.gif: the network of the drawn scenes on a drive that it has never seen, image beside prediction.

    python docs/make_animation.py

Another seed draws streets of which not even the training drives' neighbours were seen. The animation itself is made by
`python -m unet_helpers predict NETWORK FOLDER --out DIR`.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from unet_helpers.__main__ import main
from unet_helpers.drawing import render_frame
from unet_helpers.networks import DRAWN_SCENES

DRIVE, SEED, N_FRAMES = "F62", 7, 60

with tempfile.TemporaryDirectory() as folder:
    frames, out = Path(folder) / "drive", Path(folder) / "out"
    frames.mkdir()
    for number in range(N_FRAMES):
        image, _ = render_frame(DRIVE, number, seed=SEED, n_frames=N_FRAMES)
        Image.fromarray(image).save(frames / f"{number:02}.png")
    if main(["predict", str(DRAWN_SCENES), str(frames), "--out", str(out)]):
        raise SystemExit(1)
    shutil.copy(out / "drive_animation.gif", ROOT / "docs" / "drive.gif")
