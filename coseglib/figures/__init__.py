"""Figures in one style; nothing here computes. Every `show_…` returns a closed Figure, `save_figure` writes it.

style         colours, the style, saving            photographs  masks and heat maps over photographs
learning      trainings: losses, J, costs           classes      points and channels by class
comparisons   systems, groups, bins and claims: bars, shares, dots with their intervals
"""

from coseglib.figures.classes import show_channels, show_points
from coseglib.figures.comparisons import (
    show_bars,
    show_changes,
    show_dots,
    show_forest,
    show_intervals,
    show_stacks,
    show_trade_off,
)
from coseglib.figures.learning import show_costs, show_curves, show_logs, show_loss_shapes, show_race
from coseglib.figures.photographs import shortened, show_group, show_heat
from coseglib.figures.style import BLUE, ORANGE, save_figure, use_style

__all__ = [
    "BLUE", "ORANGE", "save_figure", "shortened", "show_bars", "show_changes", "show_channels", "show_costs",
    "show_curves", "show_dots", "show_forest", "show_group", "show_heat", "show_intervals", "show_logs",
    "show_loss_shapes", "show_points", "show_race", "show_stacks", "show_trade_off", "use_style",
]  # fmt: skip
