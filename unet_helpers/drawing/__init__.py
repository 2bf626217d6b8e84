"""Annex: draws the road scenes of the embedded data set `demo`. Nobody needs it to follow the lesson.

Its door is `draw_scenes`, which writes the whole set, `render_frame`, which draws one picture with its mask, `DRIVES`,
the names of the 32 drives, and `VERSION`, which tells one drawing from another. Nothing else of it is for use outside.
"""

from .scenes import DRIVES, VERSION, render_frame
from .writing import draw_scenes

__all__ = ["DRIVES", "VERSION", "draw_scenes", "render_frame"]
