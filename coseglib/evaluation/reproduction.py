"""The tables of figures in `reports/REPRODUCTION.md`: what the papers report beside what our models' cards hold.

    python -m coseglib.evaluation.reproduction

writes them anew between the page's two marks, after a checkpoint was shipped or a model measured. No figure there is
typed by hand.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.paths import CHECKPOINTS, MEASURED, REPORTS
from coseglib.data.reported import SHARES, reported

PAGE = REPORTS / "REPRODUCTION.md"
MARKS = ("<!-- figures: python -m coseglib.evaluation.reproduction -->", "<!-- end of figures -->")
NOT_YET = "not yet measured"
SMALL = "mobilenet_v2"  # the backbone of all that is shipped
# J by set, attended by the group, protocol `common`, that the workbook set out for: the best small model, ResNet-50.
AIMS = {
    SMALL: {"msrc7": 0.91, "icoseg8": 0.89, "pascal": 0.64},
    "resnet50": {"msrc7": 0.93, "icoseg8": 0.93, "pascal": 0.72},
}
SWAP_AIM, REFUSAL_AIM = 30.0, 0.90  # points, AUROC; on PASCAL, by the best small model


def cards(folder: Path = CHECKPOINTS) -> list[dict]:
    """The cards of the shipped checkpoints, by name; of MEASURED: of models that were measured and are not shipped."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]


def others() -> list[dict]:
    """The cards of MEASURED, but for those of a shipped checkpoint's very weights, asked without the CRF."""
    shipped = {card["sha256"] for card in cards()}
    return [card for card in cards(MEASURED) if card["sha256"] not in shipped]


def pairs_of(card: dict) -> str:
    """What a model was trained on last: "plain" pairs, as the papers, or "hard, empty" ones beside them."""
    _, *asking = card["training"][-1]["shares"]
    return "hard, empty" if any(asking) else "plain"


def stated(some: Sequence[dict]) -> pd.DataFrame:
    """What cards say of whole sets, protocol `common`; nothing is run. A row a card and set.

    Columns system, method, variant (and what its answers owe to no network), backbone, pairs, steps, minutes, set,
    group, self, other (J by partner), swap (points), AUROC (refusal), checkpoint (8 digits). NaN: not measured.
    """
    rows = []
    for card in some:
        about = {"system": card["name"], "method": card["method"]}
        about |= {"variant": ", ".join([card["variant"], *beyond(card)]), "backbone": card["backbone"]}
        about |= {"pairs": pairs_of(card), "steps": card["steps"], "minutes": card["minutes"]}
        for name, found in card["figures"].items():
            row = {partner: found.get(partner, {}).get("J") for partner in ("group", "self", "other")}
            row |= {"swap": found.get("partner_swap", {}).get("points"), "AUROC": found.get("refusal_auroc")}
            rows.append({**about, "set": name, **row, "checkpoint": card["sha256"][:8]})
    table = pd.DataFrame(rows)
    figures = ["group", "self", "other", "swap", "AUROC"]
    return table.astype({name: float for name in figures})


def both_ways(some: Sequence[dict]) -> pd.DataFrame:
    """Plain pairs against hard and empty ones beside them, the rest alike: of NAME-plain and NAME-asking, a row a set.

    Columns method, set, and of each of the two, "plain" and "asking": J by the group and by a wrong group, swap
    (points), AUROC, steps. Both by argmax after one look.
    """
    table = stated(some)
    keys, figures = ["method", "set"], {"group": "J", "other": "J, wrong group", "swap": "swap", "AUROC": "AUROC"}
    sides = {}
    for side, ending in (("plain", "-plain"), ("asking", "-asking")):
        own = table[table.system.str.endswith(ending)].set_index(keys)[[*figures, "steps"]]
        sides[side] = own.rename(
            columns={name: f"{label}: {side}" for name, label in {**figures, "steps": "steps"}.items()}
        )
    both = sides["plain"].join(sides["asking"], how="inner").reset_index()
    order = [f"{label}: {side}" for label in (*figures.values(), "steps") for side in sides]
    return both[[*keys, *order]]


def reached(some: Sequence[dict]) -> pd.DataFrame:
    """The workbook's aims and how near the best model of each kind came: a row an aim.

    Columns aim, backbone, wanted, best, short (wanted less best; 0: reached), system. The best on a test set is named
    here, and nothing is chosen by it.
    """
    table, rows = stated(some), []
    wanted = [(net, name, "group", j) for net, of_set in AIMS.items() for name, j in of_set.items()]
    wanted += [(SMALL, "pascal", "swap", SWAP_AIM), (SMALL, "pascal", "AUROC", REFUSAL_AIM)]
    for net, name, figure, aim in wanted:
        own = table[(table.backbone == net) & (table["set"] == name)].dropna(subset=[figure])
        if len(own):
            best = own.loc[own[figure].idxmax()]
            what = {"group": "J", "swap": "partner swap, points", "AUROC": "refusal, AUROC"}[figure]
            row = {"aim": f"{name}, {what}", "backbone": net, "wanted": aim, "best": best[figure]}
            rows.append({**row, "short": max(0.0, aim - best[figure]), "system": best.system})
    return pd.DataFrame(rows)


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
    by_group = figures.get("by_group", {})
    return _shares({"J": by_group[group]}) if group in by_group else ""


def _markdown(table: pd.DataFrame) -> str:
    """Figures with three digits, points and minutes with one."""
    digits = {name: 1 if name in ("swap", "minutes") else 3 for name in table.select_dtypes("number")}
    text = {name: ["–" if value != value else f"{value:.{n}f}" for value in table[name]] for name, n in digits.items()}
    return pd.DataFrame({**table, **text}).to_markdown(index=False, disable_numparse=True)


def figures(shipped: list[dict], table: pd.DataFrame) -> str:
    """Markdown: a row for each of the papers' own figures, ours as printed and in the workbook variant beside it.

    Below it the aims, see `reached`, and all that the cards say of whole sets, see `stated`.
    """
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
    lines += ["", "What the workbook set out for, and the best of these models on each set:", ""]
    lines.append(_markdown(reached(shipped)))
    lines += [
        "",
        "All of the same cards: J by partner, partner swap in points, refusal's AUROC; minutes of training:",
        "",
    ]
    lines.append(_markdown(stated(shipped).drop(columns="steps")))
    return "\n".join(lines)


def renewed(page: str, block: str) -> str:
    """The page with the block between its marks. Raises CosegError where they are missing."""
    begin, end = map(re.escape, MARKS)
    if not re.search(f"{begin}.*{end}", page, flags=re.DOTALL):
        raise CosegError(f"{PAGE}: the marks {MARKS[0]} and {MARKS[1]} are missing; put them back")
    return re.sub(f"({begin}).*({end})", lambda m: f"{m[1]}\n\n{block}\n\n{m[2]}", page, flags=re.DOTALL)


def main() -> None:
    text = renewed(PAGE.read_text(encoding="utf-8"), figures([*cards(), *others()], reported()))
    write_text(PAGE, text)


if __name__ == "__main__":
    main()
