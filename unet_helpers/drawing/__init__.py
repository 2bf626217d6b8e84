"""Draws the road scenes of the data set `demo`. No part of the lesson; only what is exported here is for others."""

from .scenes import VERSION, draw_scenes, render_frame
from .street import DRIVES

__all__ = ["DRIVES", "VERSION", "draw_scenes", "render_frame"]
