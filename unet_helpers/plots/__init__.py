"""Every figure of the tutorial. A class has one colour in all of them, and a legend says which.

The lesson calls what is listed here; how each is drawn is in the modules.
"""

from .charts import compare_iou, plot_changes, plot_confusion, plot_iou, plot_reliability, show_classes
from .columns import enlarge, show_columns, show_confidence, show_overlap, show_pairs, show_predictions
from .curves import compare_curves, plot_curves
from .fields import show_feature_maps, show_receptive_fields
from .figures import InlineFigure, new_figure
from .levels import levels, receptive_fields
from .transposed import show_transposed_convolution
from .unet import draw_unet

__all__ = [
    "InlineFigure", "compare_curves", "compare_iou", "draw_unet", "enlarge", "levels", "new_figure", "plot_changes",
    "plot_confusion", "plot_curves", "plot_iou", "plot_reliability", "receptive_fields", "show_classes",
    "show_columns", "show_confidence", "show_feature_maps", "show_overlap", "show_pairs", "show_predictions",
    "show_receptive_fields", "show_transposed_convolution",
]  # fmt: skip
