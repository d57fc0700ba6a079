"""The table of figures in `reports/REPRODUCTION.md`: what the papers report beside what our checkpoints' cards hold.

    python -m coseglib.reproduction

writes it anew between the page's two marks, after a checkpoint was shipped. No figure on that page is typed by hand.
"""

import json
import re
from pathlib import Path

import pandas as pd

from coseglib.errors import CosegError
from coseglib.paths import CHECKPOINTS, REPORTS, write_text
from coseglib.reported import SHARES, reported

PAGE = REPORTS / "REPRODUCTION.md"
MARKS = ("<!-- figures: python -m coseglib.reproduction -->", "<!-- end of figures -->")
NOT_YET = "not yet measured"


def cards(folder: Path = CHECKPOINTS) -> list[dict]:
    """The cards of the shipped checkpoints, by name."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


def system_of(card: dict) -> str:
    """What the paper of a card's method calls it: "CA", "SSNM-HRNet", "DCNet"."""
    if card["method"] == "ssnm":
        return f"SSNM-{'HRNet' if card['backbone'].startswith('hrnet') else card['backbone'].upper()}"
    return {"dcnet": "DCNet"}.get(card["method"], card["method"].upper())


def beyond(card: dict) -> list[str]:
    """What a card's answers owe to no network: "two looks", "CRF", or neither."""
    return [
        name for name, there in {"two looks": card.get("looks") == 2, "CRF": card.get("post") == "crf"}.items() if there
    ]


def own(table: pd.DataFrame) -> pd.DataFrame:
    """Of reported rows the P and J of the paper's own systems: averages, or groups where the paper has no average."""
    table = table[table.metric.isin(SHARES) & ~table.method.str.contains(r"\d{4}")]
    has_average = (table.group == "all").groupby([table.paper, table.table, table.method]).transform("any")
    return table[(table.group == "all") | ~has_average]


def _shares(figures: dict) -> str:
    return " / ".join(f"{figures[m]:.3f}" if m in figures else "–" for m in SHARES)


def _ours(card: dict, dataset: str, group: str) -> str:
    """P / J of a card on a set, attended by the group under protocol `common`; "" where it has none."""
    figures = card["figures"].get(dataset, {}).get("group")
    if not figures:
        return ""
    if group == "all":
        return _shares(figures)
    return _shares({"J": figures["by_group"][group]}) if group in figures["by_group"] else ""


def figures(shipped: list[dict], table: pd.DataFrame) -> str:
    """Markdown: a row for each of the papers' own figures, ours as printed and in the workbook variant beside it."""
    lines = [
        "| paper | table | system | set | group | the paper, P / J | ours as printed | ours, workbook variant |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = ["paper", "table", "method", "dataset", "group"]
    for (paper, number, method, dataset, group), rows in own(table).groupby(keys, sort=False):
        printed = _shares(dict(zip(rows.metric, rows.value, strict=True)))
        found: dict[str, list[str]] = {"paper": [], "workbook": []}
        for card in shipped:
            name = system_of(card)
            workbook = card["variant"] == "workbook"  # on any backbone, attended by the group
            same = method.split("-")[0] == name.split("-")[0] if workbook else method == name
            if same and (score := _ours(card, dataset, group)):
                about = [card["backbone"], *beyond(card), card["sha256"][:8]]
                found[card["variant"]].append(", ".join([score, *about]))
        beside = ["<br>".join(found[variant]) or NOT_YET for variant in ("paper", "workbook")]
        lines.append(f"| {' | '.join((paper, number, method, dataset, group, printed, *beside))} |")
    lines += ["", "All of the same cards, beyond the papers' questions too:", ""]
    lines += ["| checkpoint | set | question | figure |", "|---|---|---|---|"]
    for card in shipped:
        about = [card["method"], f"{card['variant']} variant", *beyond(card), card["sha256"][:8]]
        name = ", ".join([f"`{card['name']}`", *about])
        for dataset, found in card["figures"].items():
            for partner, who in (("group", "the group"), ("self", "itself"), ("other", "a wrong group")):
                if partner in found:
                    lines.append(f"| {name} | {dataset} | P / J, attended by {who} | {_shares(found[partner])} |")
            if swap := found.get("partner_swap"):
                what = f"partner swap, {swap['questions']} questions, points"
                lines.append(f"| {name} | {dataset} | {what} | {swap['points']:.1f} |")
            if "refusal_auroc" in found:
                lines.append(f"| {name} | {dataset} | refusal, AUROC | {found['refusal_auroc']:.3f} |")
    return "\n".join(lines)


def renewed(page: str, block: str) -> str:
    """The page with the block between its marks. Raises CosegError where they are missing."""
    begin, end = map(re.escape, MARKS)
    if not re.search(f"{begin}.*{end}", page, flags=re.DOTALL):
        raise CosegError(f"{PAGE}: the marks {MARKS[0]} and {MARKS[1]} are missing; put them back")
    return re.sub(f"({begin}).*({end})", lambda m: f"{m[1]}\n\n{block}\n\n{m[2]}", page, flags=re.DOTALL)


def main() -> None:
    text = renewed(PAGE.read_text(encoding="utf-8"), figures(cards(), reported()))
    write_text(PAGE, text)


if __name__ == "__main__":
    main()
