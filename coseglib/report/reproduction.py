"""The tables of figures in `reports/REPRODUCTION.md`: what the papers report beside what our models' cards hold.

    python -m coseglib.report.reproduction

writes them anew between the page's two marks, after a checkpoint was shipped or a model measured. No figure there is
typed by hand.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from coseglib.core.paths import REPORTS
from coseglib.data.reported import SHARES, reported
from coseglib.evaluation.cards import EARLIER, FOOTNOTE, beyond, cards, digits, others, reached, stated, withdrawn
from coseglib.report.buttons import renew
from coseglib.report.site import markdown_rows

PAGE = REPORTS / "REPRODUCTION.md"
MARKS = ("<!-- figures: python -m coseglib.report.reproduction -->", "<!-- end of figures -->")
NOT_YET = "not yet measured"


def system_of(card: Mapping) -> str:
    """What the paper of a card's method calls it: "CA", "SSNM-HRNet", "DCNet"."""
    net = "HRNet" if card["backbone"].startswith("hrnet") else card["backbone"].upper()
    return {"ssnm": f"SSNM-{net}", "dcnet": "DCNet"}.get(card["method"], card["method"].upper())


def papers_own(table: pd.DataFrame) -> pd.DataFrame:
    """Of reported rows the P and J of the paper's own systems: averages, or groups where the paper has no average."""
    table = table[table.metric.isin(SHARES) & ~table.method.str.contains(r"\d{4}")]
    has_average = (table.group == "all").groupby([table.paper, table.table, table.method]).transform("any")
    return table[(table.group == "all") | ~has_average]


def _shares(figures: Mapping) -> str:
    return " / ".join(f"{figures[m]:.3f}" if m in figures else "–" for m in SHARES)


def _ours(card: Mapping, dataset: str, group: str) -> str:
    """P / J of a card on a set, attended by the group under protocol `common`; "" where it has none."""
    found = card["figures"].get(dataset, {}).get("group", {})
    if group != "all":
        found = {"J": found["by_group"][group]} if group in found.get("by_group", {}) else {}
    return (withdrawn(card) or _shares(found)) if found else ""


def _markdown(table: pd.DataFrame) -> str:
    """Figures with three digits, points and minutes with one."""
    places = {name: 1 if name in ("swap", "minutes") else 3 for name in table.select_dtypes("number")}
    text = {name: ["–" if value != value else f"{value:.{n}f}" for value in table[name]] for name, n in places.items()}
    return pd.DataFrame({**table, **text}).to_markdown(index=False, disable_numparse=True)


def beside_the_papers(some: Sequence[Mapping], table: pd.DataFrame) -> str:
    """Markdown: a row for each of the papers' own figures, ours as printed and in the workbook variant beside it.

    Below it the aims, see `reached`, and all that the cards say of whole sets, see `stated`.
    """
    keys = ["paper", "table", "method", "dataset", "group"]
    rows = []
    for about, own in papers_own(table).groupby(keys, sort=False):
        _, _, method, dataset, group = about
        found: dict[str, list[str]] = {"paper": [], "workbook": []}
        for card in some:
            name = system_of(card)
            workbook = card["variant"] == "workbook"  # on any backbone, attended by the group
            same = method.split("-")[0] == name.split("-")[0] if workbook else method == name
            if same and (score := _ours(card, dataset, group)):
                found[card["variant"]].append(", ".join([score, card["backbone"], *beyond(card), digits(card)]))
        ours = ["<br>".join(found[variant]) or NOT_YET for variant in ("paper", "workbook")]
        rows.append((*about, _shares(dict(zip(own.metric, own.value, strict=True))), *ours))
    head = ("paper", "table", "system", "set", "group", "the paper, P / J", "ours as printed", "ours, workbook variant")
    lines = markdown_rows(dict(zip(head, row, strict=True)) for row in rows)
    whole = stated(some)
    lines += ["", "What the workbook set out for, and the best of these models on each set:", ""]
    about = "All of the same cards: J by partner, partner swap in points, refusal's AUROC; minutes of training:"
    lines += [_markdown(reached(some)), "", about, "", _markdown(whole.drop(columns="steps"))]
    lines += ["", FOOTNOTE] if whole.checkpoint.str.endswith(EARLIER).any() else []
    return "\n".join(lines)


if __name__ == "__main__":
    renew(PAGE, MARKS, f"\n{beside_the_papers([*cards(), *others()], reported())}\n")
