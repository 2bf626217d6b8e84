"""Every figure of the tutorial. A class has the same colour in all of them, and a legend names it."""

from .charts import (
    compare_curves,
    compare_iou,
    plot_changes,
    plot_confusion,
    plot_curves,
    plot_iou,
    plot_reliability,
    show_classes,
)
from .columns import enlarge, show_columns, show_confidence, show_overlap, show_pairs, show_predictions
from .figures import InlineFigure, new_figure
from .levels import receptive_fields, unet_levels
from .transposed import show_transposed_convolution
from .unet import draw_unet, show_feature_maps, show_receptive_fields

__all__ = [
    "InlineFigure", "compare_curves", "compare_iou", "draw_unet", "enlarge", "new_figure", "plot_changes",
    "plot_confusion", "plot_curves", "plot_iou", "plot_reliability", "receptive_fields", "show_classes",
    "show_columns", "show_confidence", "show_feature_maps", "show_overlap", "show_pairs", "show_predictions",
    "show_receptive_fields", "show_transposed_convolution", "unet_levels",
]  # fmt: skip
