"""What is computed in `reports/REPRODUCTION.md`: a verdict a paper, its claims, its figures beside ours, commands.

    python -m coseglib.report.reproduction

writes each block anew between its marks, after a checkpoint was shipped, a model measured or a report run. No figure
in a block is typed by hand: those by `common` are the cards', those by a paper's own protocol and at small budgets are
of the tables of the `cpu` report.
"""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from coseglib.claims.papers_claims import SEEN, UNSEEN, VARIANTS
from coseglib.claims.queue import read_ablations
from coseglib.claims.verdicts import verdicts, verdicts_of_the_variant
from coseglib.core.paths import MEASURED, REPORTS
from coseglib.core.tables import read_table
from coseglib.data.reported import SHARES, anchors, reported
from coseglib.evaluation import cards as of_cards
from coseglib.evaluation.benchmark import paper_rows
from coseglib.evaluation.cards import FIGURES, FOOTNOTE, earlier, field_note, trained_on_field, withdrawn
from coseglib.evaluation.causes import read_causes
from coseglib.evaluation.choosing import TABLE as CHOICES
from coseglib.evaluation.choosing import read_choices
from coseglib.evaluation.own_protocols import COMMAND, UNPRINTED, read_own_protocols
from coseglib.models import METHODS
from coseglib.report.buttons import renew
from coseglib.report.site import markdown_rows

PAGE, TABLES = REPORTS / "REPRODUCTION.md", REPORTS / "cpu" / "tables"
NOT_YET, GONE = "not measured", "weights not kept"
LACKING = " ‡"  # of a set that is not here
OF_VARIANT = "The thesis' claims where the workbook's variant learns, on four whole groups of 41 to 80 photographs"
OF_VARIANT += " ([multiclass_causes](cpu/tables/multiclass_causes.csv))"
OWN, COMMON = "by its protocol", "by `common`"  # columns: P / J of ours by the paper's protocol, and by ours


def marks(block: str) -> tuple[str, str]:
    return f"<!-- {block}: python -m coseglib.report.reproduction -->", f"<!-- end of {block} -->"


def titled(card: Mapping) -> str:
    """ "`ca-mobilenet_v2` (9e4a202d)", marked as `digits` does."""
    return f"`{card['name']}` ({of_cards.digits(card)[:8]}){of_cards.digits(card)[8:]}"


def papers_own() -> pd.DataFrame:
    """Of `paper_rows` the papers' own systems: averages, or groups where there is none. With paper, table, dataset.

    Of a paper whose figures we lack, a row a test set.
    """
    sets = filter(None, reported().dataset.unique())
    rows = [paper_rows(name).dropna(subset=[*SHARES], how="all").assign(dataset=name) for name in sets]
    rows += [paper_rows("").assign(dataset=name, group="all") for name in UNPRINTED]
    table = pd.concat(rows)[lambda all_of: all_of.own]
    has_average = (table.group == "all").groupby([table.source, table.system, table.dataset]).transform("any")
    about = table.source.str.replace("table ", "").str.partition(", ")
    table = table.assign(paper=about[0], table=about[2])[(table.group == "all") | ~has_average]
    return table.sort_values(["paper", "table"], kind="stable")


def by_protocols() -> tuple[pd.DataFrame, str]:
    """`read_own_protocols` with `mark`, and of which days and code it is."""
    table = read_own_protocols()
    runs = dict.fromkeys(f"{row.date}, code {row.code}" for row in table.itertuples())
    return table.assign(mark=table.date.map(earlier)), "; ".join(runs) or "no run"


def _shares(figures: Mapping) -> str:
    return " / ".join(f"{x:.3f}" if (x := figures.get(m)) == x and x is not None else "–" for m in SHARES)


def small_budget(row: Mapping) -> str:
    """Of a printed row of an ablation: our variant's J at the queue's small budget, with links; else ""."""
    found = []
    for v in VARIANTS.values() if row["ablation"] else ():
        if METHODS[v.method].paper.key == row["paper"] and v.printed.get(row["table"]) == row["system"]:
            for where in (SEEN, UNSEEN):
                file = TABLES / f"09_{v.system.lower()}_{where}.csv"
                table = read_table(file, {"J": float, "sd J": float})
                for one in table[table.variant == v.name].to_dict("records"):
                    found.append(f"J {one['J']:.3f} ± {one['sd J']:.3f} on [{where}](cpu/tables/{file.name})")
    return "; ".join(found)


def _beside(card: Mapping, row: Mapping, table: pd.DataFrame) -> dict[str, str]:
    """What a card says beside a printed row; {} of another system, and of what is neither shipped nor as printed.

    Beside a row of an ablation stands the whole system as printed, where the paper has a row of it.
    """
    common, net = card["figures"].get(row["dataset"], {}).get("group"), row["backbone"].lower().replace("-", "")
    name, same = {"dcnet": "DCNet"}.get(card["method"], card["method"].upper()), card["backbone"].startswith(net or "?")
    shipped = card["sha256"] in {one["sha256"] for one in of_cards.cards()}
    which = (table.checkpoint == card["sha256"][:8]) & (table.dataset == row["dataset"]) & (table.group == row["group"])
    own = [_shares(one) + one["mark"] for one in table[which & (table.protocol == row["protocol"])].to_dict("records")]
    printed = card["variant"] == "paper"
    if row["ablation"]:
        fits = printed and row["system"] in METHODS[card["method"]].paper.systems
    else:
        fits = name == row["system"].split("-")[0] and (shipped or same or printed)
    if not fits or not (common or own):
        return {}
    if row["group"] != "all" and common:
        common = {"J": common["by_group"].get(row["group"])}
    why, plain = withdrawn(card), of_cards.pairs_of(card) == "plain"
    other = [("variant", not printed), ("backbone", not same), ("pairs", not plain)]
    nothing = NOT_YET if shipped else GONE
    figures = {OWN: why or (own or [nothing])[0], COMMON: "–" if why or not common else _shares(common)}
    about = {"ours": titled(card), "backbone": f"{row['backbone'] or 'not said'} → {card['backbone']}", **figures}
    return about | {"differs": ", ".join([*(name for name, yes in other if yes), *of_cards.beyond(card)]) or "nothing"}


def beside_the_papers(some: Sequence[Mapping], table: pd.DataFrame) -> pd.DataFrame:
    """A row for each of the papers' own figures and each model of ours beside it, P / J; table: of `by_protocols`."""
    rows = []
    for row in papers_own().to_dict("records"):
        where = ", ".join([row["dataset"], *([] if row["group"] == "all" else [row["group"]]), f"`{row['protocol']}`"])
        about = {name: row[name] for name in ("paper", "table", "system")} | {"set": where, "printed": _shares(row)}
        found = [beside for card in some if (beside := _beside(card, row, table))]
        net, small = row["backbone"] or "not said", small_budget(row)
        budget = {"ours": "small budget", "backbone": f"{net} → mobilenet_v2", OWN: small, COMMON: "–"}
        lacking = f"{NOT_YET}{LACKING}" if row["dataset"].startswith("internet") else NOT_YET
        none = dict.fromkeys(budget, lacking) | {"ours": "–", "backbone": net, "differs": "–"}
        found += [budget | {"differs": "backbone, set, size"}] if small else []
        rows += [about | one for one in found or [none]]
    return pd.DataFrame(rows)


def verdict(written: str, figures: pd.DataFrame, claims: pd.DataFrame) -> str:
    """The table on top, a row a paper: words that are written by hand, as they stand, and two cells computed.

    These are verdicts on claims about parts (of `verdicts`), and J: printed, ours by its protocol, and by `common`.
    """
    lines = [line for line in written.splitlines() if line.startswith("|")]
    every = [*of_cards.cards(), *(card for card in of_cards.others() if card["variant"] == "paper")]
    shown = figures.ours.isin([titled(card) for card in every])
    for place, line in enumerate(lines[2:], 2):
        paper, cells = re.search(r"`([\w-]+)`", line)[1], []
        own = figures[shown & (figures.paper == paper) & figures[OWN].str.contains(" / ")]
        for about, rows in own.groupby(["system", "set", "printed"], sort=False):
            j, common = (rows[name].str.split(" / ").str[-1] for name in (OWN, COMMON))
            printed = about[2].split(" / ")[-1].replace("–", "no figure")
            cells.append(
                f"{about[0]}, {about[1]}: {printed}; ours {', '.join(rows.ours + ' ' + j + ' (' + common + ')')}"
            )
        counts = claims[claims.source.str.startswith(paper)].verdict.value_counts()
        counted = ", ".join(f"{count} {word}" for word, count in counts.items())
        lines[place] = "|".join([*line.split("|")[:5], f" {counted} ", f" {'<br>'.join(cells) or NOT_YET} ", ""])
    return "\n".join([*lines, "", FOOTNOTE])


def beside_the_field(some: Sequence[Mapping]) -> pd.DataFrame:
    """`anchors`, and beside each row the best small model of ours by `common` on that set, "–" where none was measured.

    Columns set, method, supervision, reported (P / J), "ours, by `common`", source, note. The best chooses nothing.
    """
    rows, known = [], of_cards.stated([card for card in some if not withdrawn(card)])
    known = known[known.backbone == of_cards.SMALL].dropna(subset=["group"])
    for row in anchors().to_dict("records"):
        own = known[known["set"] == row["dataset"]]
        best = own.loc[own.group.idxmax()] if len(own) else None
        ours = "–" if best is None else f"J {best.group:.3f}, `{best.system}` ({best.checkpoint})"
        about = {"set": row["dataset"], "method": row["method"], "supervision": row["supervision"]}
        about |= {"reported": _shares(row), f"ours, {COMMON}": ours}
        rows.append(about | {name: row[name] for name in ("source", "note")})
    return pd.DataFrame(rows).sort_values("set", kind="stable")


def _markdown(table: pd.DataFrame) -> str:
    """Figures with three digits, points and minutes with one."""
    places = {name: 1 if name in ("swap", "minutes") else 3 for name in table.select_dtypes("number")}
    text = {name: ["–" if value != value else f"{value:.{n}f}" for value in table[name]] for name, n in places.items()}
    return "\n".join(markdown_rows(pd.DataFrame({**table, **text}).to_dict("records")))


def _claims(some: pd.DataFrame) -> str:
    """Rows of `verdicts`."""
    return _markdown(pd.DataFrame({"where": some.source, "claim": some.says, "name": some.claim, "result": some.words}))


def _when(ablations: pd.DataFrame) -> str:
    """The day of the first training of each system's variants, systems of one day together."""
    first = ablations[ablations.variant.isin(VARIANTS)].groupby("system", sort=False).date.min()
    days = [f"{', '.join(some.index)}: {day}{earlier(day)}" for day, some in first.groupby(first)]
    return "; ".join(days)


def blocks(page: str) -> dict[str, str]:
    """The page's computed blocks, by the name in their marks. page: what stands there; the verdict's words are kept."""
    every, (begin, end), (table, ran) = [*of_cards.cards(), *of_cards.others()], marks("verdict"), by_protocols()
    ablations, whole = read_ablations(TABLES / "09_ablations.csv"), of_cards.stated(every)
    figures, claims = beside_the_papers(every, table), verdicts(ablations)
    told, of_variant = _claims(claims), _claims(verdicts_of_the_variant(read_causes()))
    files = [*sorted(TABLES.glob("09_*_validation.csv")), *TABLES.glob("09_multi*.csv")]
    links = ", ".join(f"[{file.stem}](cpu/tables/{file.name})" for file in files)
    names = {card["name"]: titled(card) for card in every}
    whole = whole.assign(model=whole.system.map(names))[["model", "variant", "pairs", "minutes", "set", *FIGURES]]
    chapters = [f"### `{p}`\n\n{_markdown(own.drop(columns='paper'))}\n" for p, own in figures.groupby("paper")]
    chapters += [
        f"By the papers' protocols: [by_protocol](cpu/tables/by_protocol.csv), {ran}. In the place of the pairs of "
        "`voc-test-pairs`, which were never published, stand pairs of `voc-val`, the part of VOC 2012 that chooses "
        "models.",
        f"{LACKING.strip()} Internet is not here. Who has it, in COSEG_DATA, fills these rows by `{COMMAND}` and "
        "`python -m coseglib.report.reproduction`.",
    ]
    precision = of_cards.precision_note(every)
    seen = {titled(c): trained_on_field(c["training"], c.get("kept_apart", ())) for c in every}
    again = {
        titled(c): "<br>".join(f"`{one}`" for one in of_cards.made_again(c))
        for c in (*every, *of_cards.cards(MEASURED))
    }
    return {
        "verdict": verdict(page.split(begin)[1].split(end)[0], figures, claims),
        "claims": f"{told}\n\nTrained and answered: {_when(ablations)}. J by variant: {links}.\n\n"
        f"{OF_VARIANT}:\n\n{of_variant}",
        "figures": "\n\n".join(part.strip() for part in chapters),
        "field": _markdown(beside_the_field(of_cards.cards())),
        "aims": _markdown(of_cards.reached(every, read_choices(CHOICES))),
        "cards": "\n\n".join(filter(None, [_markdown(whole), FOOTNOTE, precision, field_note(seen)])),
        "commands": _markdown(pd.DataFrame(again.items(), columns=["model", "commands"])),
    }


if __name__ == "__main__":
    for name, block in blocks(PAGE.read_text(encoding="utf-8")).items():
        renew(PAGE, marks(name), f"\n{block}\n")
