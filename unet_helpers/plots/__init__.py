"""Every figure of the tutorial. A class has the same colour in all of them, and a legend names it."""

from .charts import compare_iou, plot_changes, plot_confusion, plot_curves, plot_iou, plot_reliability, show_classes
from .columns import show_columns, show_overlap, show_pairs, show_predictions
from .figures import draw_legend
from .run import write_run_figures
from .unet import (
    draw_unet,
    receptive_fields,
    show_feature_maps,
    show_receptive_fields,
    show_transposed_convolution,
    unet_levels,
)  # fmt: skip

__all__ = [
    "compare_iou", "draw_legend", "draw_unet", "plot_changes", "plot_confusion", "plot_curves", "plot_iou",
    "plot_reliability", "receptive_fields", "show_classes", "show_columns", "show_feature_maps", "show_overlap",
    "show_pairs", "show_predictions", "show_receptive_fields", "show_transposed_convolution", "unet_levels",
    "write_run_figures",
]  # fmt: skip
