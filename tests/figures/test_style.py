"""Figures are closed, leave others alone, and are written whole."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from coseglib.core.errors import CosegError
from coseglib.figures import (
    save_figure,
    show_group,
    show_logs,
)


def log(steps: int = 5, validated: bool = True) -> pd.DataFrame:
    table = pd.DataFrame({"step": np.arange(1, steps + 1) * 10, "loss": np.linspace(0.8, 0.2, steps), "J": 0.5})
    checks = pd.DataFrame({"step": [20, 50], "val_J": [0.3, 0.4]})
    return pd.concat([table, checks]) if validated else table


def test_figures_are_closed_and_leave_the_callers_style_and_figures_alone():
    mine = plt.figure()
    size = plt.rcParams["font.size"]
    try:
        with plt.rc_context({"font.size": 17}):
            show_group([torch.zeros(3, 8, 8, dtype=torch.uint8)])
            assert plt.get_fignums() == [mine.number] and plt.rcParams["font.size"] == 17
    finally:
        plt.close(mine)
    assert plt.rcParams["font.size"] == size


def test_saving_writes_a_png_of_144_dpi_and_an_svg_and_nothing_else(tmp_path):
    fig = show_logs(log())
    png, svg = save_figure(fig, tmp_path / "new" / "loss.v1")
    assert (png.name, svg.name) == ("loss.v1.png", "loss.v1.svg")
    assert sorted(p.name for p in png.parent.iterdir()) == ["loss.v1.png", "loss.v1.svg"]
    with Image.open(png) as image:
        assert image.info["dpi"] == pytest.approx((144, 144), abs=0.1)
        assert "optimisation step" in image.info["Description"].split("; ")
    assert "optimisation step" in svg.read_text()


def test_of_pictures_no_second_copy_is_kept(tmp_path):
    (tmp_path / "a.svg").write_text("of an earlier version")
    files = save_figure(show_group([torch.zeros(3, 8, 8, dtype=torch.uint8)], title="One group"), tmp_path / "a")
    assert list(files) == list(tmp_path.iterdir()) == [tmp_path / "a.png"]
    with Image.open(files[0]) as image:
        assert image.info["Description"] == "One group"


def test_saving_the_same_figure_twice_writes_the_same_bytes(tmp_path):
    first, second = (save_figure(show_logs(log()), tmp_path / f"{n}.png") for n in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CosegError, match=r"loss: cannot be written .*; choose another folder"):
        save_figure(show_logs(log()), tmp_path / "file" / "loss")
