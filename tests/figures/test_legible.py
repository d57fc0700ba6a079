"""No text of a figure is cut or covered, whatever names, titles and numbers of panels it is given."""

import numpy as np
import pandas as pd
import pytest
import torch
from hand_made import logs
from legible import text_faults
from matplotlib import pyplot as plt

from coseglib import figures
from coseglib.analysis.loss_shapes import loss_by_area, loss_by_overlap
from coseglib.core.errors import CosegError
from coseglib.figures.style import STYLE, finish, styled, text_width, wrapped

WORDS = "a system with a name that is much longer than names should be, number {}"
ONE_WORD = "ca-mobilenet_v2-paper-no_spaces_at_all_{}"
TITLE = "A title that is longer than the figure is wide, since whoever wrote it had much to say of group and threshold"
KINDS = ["good", "boundary-only", "over-segmentation", "under-segmentation", "fragmented", "missed object"]
CHANCE = {"loss": {"the same p everywhere": 0.69}, "J": {"everything marked": 0.08, "nothing marked": 0.25}}


def names(pattern: str, count: int) -> list[str]:
    return [pattern.format(i) for i in range(count)]


def photographs(count: int, height: int = 60, width: int = 80) -> tuple[list, list]:
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[10:30, 10:30] = 1
    return [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(count)], [mask] * count


def log(steps: int = 6, validated: bool = True) -> pd.DataFrame:
    table = pd.DataFrame({"step": np.arange(1, steps + 1) * 10, "loss": np.linspace(0.8, 0.2, steps), "J": 0.5})
    return pd.concat([table, pd.DataFrame({"step": [20, 50], "val_J": [0.3, 0.4]})]) if validated else table


def curves(systems) -> pd.DataFrame:
    table = logs(**{name: [0.1, 0.4, 0.5 + 0.01 * i] for i, name in enumerate(systems)})
    return table.assign(images=table.images * 25000)


def grid(columns: list[str], **rows) -> pd.DataFrame:
    """All pairs of two columns' values, in their order, with J from nearly 0 to 1."""
    table = pd.DataFrame([dict(zip(columns, (a, b), strict=True)) for a in rows["of"] for b in rows["by"]])
    return table.assign(J=np.linspace(0.01, 1, len(table)) ** 2, sd=0.05, **{"sd J": 0.05})


def shares(rows: list[str], kinds: list[str]) -> pd.DataFrame:
    parts = np.random.default_rng(0).dirichlet(np.ones(len(kinds)), len(rows))
    return pd.DataFrame(parts, index=rows, columns=kinds)


def bins(labels: list[str]) -> pd.DataFrame:
    n = len(labels)
    return pd.DataFrame({"bin": labels, "J": np.linspace(0, 1, n), "low": 0.1, "high": 0.9, "masks": 1854})


def costs(systems: list[str]) -> pd.DataFrame:
    rows = {
        "images/s": 46.0,
        "memory (MB)": np.linspace(20, 2e4, len(systems)),
        "before (MB)": 10.0,
        "s to 90%": 123456.0,
    }
    return pd.DataFrame(rows, index=systems)


def claims(pattern: str, count: int) -> pd.DataFrame:
    rows = {"claim": names(pattern, count), "effect": np.linspace(-9, 9, count), "low": -12.0, "high": 12.0}
    rows |= {"paper": np.linspace(-90, 90, count), "verdict": "contradicted"}
    return pd.DataFrame(rows).assign(system=np.arange(count) // 3)


def points(count: int, near: float, **options) -> tuple:
    rng, classes = np.random.default_rng(0), np.repeat(names("class {}", count), 5)
    panels = {
        p: near * rng.normal(size=(len(classes), 2)) for p in ("t-SNE", "PCA of the same, with a title that is long")
    }
    return (panels, classes, TITLE), options


def trade_off() -> pd.DataFrame:
    columns = ("J seen", "J unseen", "swap", "AUROC")
    values = {c: [0.5, 0.52, 0.51 + 0.001 * i] for i, c in enumerate(columns)}
    return pd.DataFrame({"share": [0, 0.1, 0.5], **values, **{f"sd {c}": 0.02 for c in columns}})


def group(count: int, pattern: str, columns: int | None = None, title: str = TITLE, **size) -> tuple:
    images, masks = photographs(count, **size)
    return (images, masks, masks, names(pattern, count), columns, title), {}


def heat(count: int, pattern: str, scale: float, **options) -> tuple:
    unit = "share of the vote of all of a position's own votes"
    return (photographs(count)[0], [scale * torch.rand(3, 4)] * count, TITLE, unit, names(pattern, count)), options


CASES = {
    "show_group": [
        lambda: group(1, "one"),
        lambda: group(2, "ca-mobilenet_v2-paper\nboundary-only", 2),
        lambda: group(8, "helicopter_group_{}\nover-segmentation", 4),
        lambda: group(13, WORDS, height=80, width=40),
        lambda: group(3, "W" * 30, title="W" * 60),
        lambda: ((photographs(2)[0],), {}),
    ],
    "show_heat": [lambda: heat(1, "second", 1), lambda: heat(9, ONE_WORD, 1e-26, columns=3)],
    "show_logs": [
        lambda: ((log(1, False),), {"chance": CHANCE}),
        lambda: (
            ({n: log() for n in names("run {}", 9)}, TITLE, "cross-entropy + dice / 2 (nats a pixel)", CHANCE),
            {},
        ),
        lambda: (({n: log() for n in names(ONE_WORD, 20)}, "many"), {}),
    ],
    "show_curves": [
        lambda: ((curves(["a"]), TITLE), {"chance": {"a": CHANCE}}),
        lambda: ((curves(names(ONE_WORD, 13)), "All", {ONE_WORD.format(1): "segmentation + spatial + semantic"}), {}),
    ],
    "show_changes": [
        lambda: (
            (pd.DataFrame({"cause": [f"cause {i}" for i in range(16)], "change": np.linspace(-0.2, 0.02, 16)}),),
            {},
        ),
        lambda: ((pd.DataFrame({"cause": [ONE_WORD.format(1), "b"], "change": [-0.5, 0.5]}), TITLE), {}),
    ],
    "show_race": [lambda: ((curves("ab"), TITLE), {}), lambda: ((curves(names(ONE_WORD, 14)), "Race"), {})],
    "show_costs": [lambda: ((costs(["a", "b"]), TITLE), {}), lambda: ((costs(names(WORDS, 12)), "Cost"), {})],
    "show_loss_shapes": [
        lambda: (
            (
                loss_by_area((0.01, 0.1)),
                {a: loss_by_overlap(a, 3, ("cross-entropy", "dice")) for a in (0.02, 0.25)},
                TITLE,
            ),
            {},
        )
    ],
    "show_bars": [
        lambda: ((grid(["group", "system"], of=["a"], by=["ours"]),), {"title": TITLE}),
        lambda: (
            (grid(["group", "system"], of=["w/o ATT", "SA", "MA", "SA+MA"], by=["argmax", "crf"]),),
            {"title": TITLE},
        ),
        lambda: (
            (
                grid(["group", "system"], of=names("a group {} of birds", 20), by=["CA"]),
                grid(["group", "system"], of=["a group 1 of birds"], by=names("Someone et al. 20{}", 6)),
            ),
            {"title": TITLE},
        ),
        lambda: ((grid(["group", "system"], of=["hotballoons", "helicopters"], by=names(WORDS, 3)),), {}),
    ],
    "show_stacks": [
        lambda: (({"system": shares(["a", "b"], KINDS)}, TITLE, "share of the masks (0 to 1)"), {}),
        lambda: (
            ({p: shares(names(ONE_WORD, 5), KINDS) for p in names(WORDS, 5)}, TITLE, "share of the masks (0 to 1)"),
            {},
        ),
    ],
    "show_intervals": [
        lambda: (({"agreement of the systems' masks (J)": bins(names("0.{0} to 0.{0}1234", 4))}, "J by agreement"), {}),
        lambda: (({p: bins(names("0.{0} to 0.{0}1234", 2 + 3 * i)) for i, p in enumerate(names(WORDS, 6))}, TITLE), {}),
        lambda: (({"system": bins(names(ONE_WORD, 4)), "backbone": bins(["none"])}, "J by system", 2), {}),
    ],
    "show_dots": [
        lambda: ((grid(["system", "partner"], of=["a"], by=["group"]),), {"title": TITLE}),
        lambda: (
            (grid(["system", "partner"], of=names(WORDS, 12), by=names("a partner of kind {}", 8)),),
            {"paper": pd.DataFrame({"system": [WORDS, "x"], "J": 0.4}), "lines": {"floor: everything": 0.1}},
        ),
    ],
    "show_forest": [lambda: ((claims("claim-{}", 1), TITLE), {}), lambda: ((claims(WORDS, 25), "Claims"), {})],
    "show_trade_off": [lambda: ((trade_off(), TITLE), {})],
    "show_points": [
        lambda: points(3, 1),
        lambda: points(12, 0.01),
        lambda: points(20, 1),
        lambda: points(20, 1, labels=False),
    ],
    "show_channels": [
        lambda: ((pd.DataFrame(np.eye(2)), TITLE, "alpha, mean of the class (0 to 1)"), {}),
        lambda: (
            (pd.DataFrame(np.random.default_rng(0).random((12, 40)), index=names(ONE_WORD, 12)), "By class", "u"),
            {},
        ),
    ],
}


@pytest.fixture(autouse=True)
def not_refused(monkeypatch):
    """The faults are what these tests read; `styled` would raise before."""
    monkeypatch.delenv("COSEG_CHECK_FIGURES", raising=False)


def test_every_figure_has_its_cases():
    assert set(CASES) == {name for name in figures.__all__ if name.startswith("show_")}


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, some in CASES.items() for i in range(len(some))])
def test_hard_names_are_neither_cut_nor_covered(name, number):
    given, options = CASES[name][number]()
    assert text_faults(getattr(figures, name)(*given, **options)) == []


def test_texts_that_are_cut_or_covered_are_named_and_turned_ones_stand_close():
    fig, ax = plt.subplots(figsize=(4, 4))
    try:
        ax.set_axis_off()
        ax.text(0.5, 0.1, "one")
        ax.text(0.51, 0.1, "two")
        ax.text(0.9, 0.3, "too far to the right")
        for i in range(4):  # their upright boxes overlap, they do not
            ax.text(0.12 * i, 0.6, "a turned name", rotation=45)
        ax.text(0.5, 0.1, "hidden", visible=False)
        assert text_faults(fig) == ["'too far to the right' is cut", "'one' and 'two' overlap"]
    finally:
        plt.close(fig)


def test_faults_are_refused_where_the_environment_asks_for_it(monkeypatch, tmp_path):
    @styled()
    def faulty():
        fig = plt.figure(figsize=(2, 1))
        fig.suptitle("twice as long as the figure is wide, at least")
        return fig

    figures.save_figure(faulty(), tmp_path / "made")
    monkeypatch.setenv("COSEG_CHECK_FIGURES", "legible:refuse_faults")
    with pytest.raises(CosegError, match="is cut; make it larger"):
        faulty()
    assert not plt.get_fignums()


def test_titles_and_legends_get_the_room_that_they_need():
    assert wrapped("short", 2) == "short" and wrapped("", 2) == ""
    lines = wrapped(TITLE, 2).split("\n")
    assert " ".join(lines) == TITLE and max(map(text_width, lines)) <= 2
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(3, 2))
        for name in names(WORDS, 5):
            ax.plot([0, 1], label=name)
        finish(fig, TITLE, ax.get_legend_handles_labels()[0])
        plt.close(fig)
    assert text_faults(fig) == [] and fig.get_figheight() > 2.5
