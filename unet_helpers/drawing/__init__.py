"""Annex: draws the road scenes of the embedded data set `demo`. Nobody needs it to follow the lesson.

Its door is `draw_scenes`, which writes the whole set, and `render_frame`, which draws one picture with its mask.
"""

from .scenes import DRIVES, VERSION, draw_scenes, render_frame

__all__ = ["DRIVES", "VERSION", "draw_scenes", "render_frame"]
