"""Each shipped checkpoint under its paper's own protocols, on every set that the paper reports and that is here.

    python -m coseglib.evaluation.own_protocols [--dataset NAME …]
    python -m coseglib.evaluation.own_protocols --run RUN CARD      # of data/measured: its weights are RUN's

writes `reports/cpu/tables/by_protocol.csv`, which stands beside the printed figures in `reports/REPRODUCTION.md`
(`python -m coseglib.report.reproduction` after it). Minutes a checkpoint; a run that was killed goes on. Internet is
among the sets: who has it needs no other command. The papers' 37,700 test pairs of VOC 2012 were drawn by nobody knows
which rule: in their place stand pairs of the part of VOC 2012 that chooses models, where it is here.
"""

import argparse
import datetime
import sys
from collections.abc import Sequence

import pandas as pd

from coseglib.core.errors import CosegError
from coseglib.core.paths import REPORTS
from coseglib.core.tables import read_table, write_table
from coseglib.data import load
from coseglib.data.reported import reported
from coseglib.evaluation.benchmark import paper_rows, photo_rows, score_table
from coseglib.evaluation.kept import code_hash
from coseglib.evaluation.shipping import of_card
from coseglib.evaluation.systems import System, load_systems
from coseglib.models import METHODS
from coseglib.scoring.metrics import PROTOCOLS

TABLE = REPORTS / "cpu" / "tables" / "by_protocol.csv"
KEPT = REPORTS / "cpu" / "runs"
UNPRINTED = ("msrc7", "icoseg8", "pascal")  # the sets of a paper whose figures we lack
STAND_IN = {"voc-test-pairs": "voc-val"}  # a paper's set -> what is measured in its place
COLUMNS = ("dataset", "measured on", "system", "checkpoint", "protocol", "group", "images", "P", "J", "code", "date")
COMMAND = "python -m coseglib.evaluation.own_protocols"


def protocols_asked() -> dict[tuple[str, str], list[str]]:
    """What the papers report of their own systems on one class: {(paper's key, data set): protocols}."""
    online = {method.paper.key for method in METHODS.values() if method.online}
    found: dict[tuple[str, str], list[str]] = {}
    sets = [name for name in reported().dataset.unique() if name]
    for dataset, rows in [*((d, paper_rows(d)) for d in sets), *((d, paper_rows("")) for d in UNPRINTED)]:
        for source, protocol in rows[rows.own][["source", "protocol"]].drop_duplicates().itertuples(index=False):
            key = source.split(",")[0], dataset
            if key[0] not in online and protocol not in found.setdefault(key, []):
                found[key].append(protocol)
    return {key: protocols for key, protocols in found.items() if protocols}


def own_protocol_rows(system: System, dataset: str, protocols: Sequence[str], say=print) -> pd.DataFrame:
    """COLUMNS of one system and one of the papers' sets: each group, and "all" as the protocol averages."""
    here, rules = STAND_IN.get(dataset, dataset), [PROTOCOLS[name] for name in protocols]
    kept = KEPT / f"by_protocol_{system.name}_{dataset}.photos.csv"
    rows = photo_rows([system], load(here), kept, rules, ("group",), say=say)
    table = score_table(rows, [system], rules)
    today = datetime.date.today().isoformat()
    table = table.assign(dataset=dataset, **{"measured on": here, "code": code_hash(), "date": today})
    return table[list(COLUMNS)]


def measure_own_protocols(datasets: Sequence[str] = (), say=print, systems: Sequence[System] = ()) -> pd.DataFrame:
    """The table, written anew system by system; rows of sets that are not here or not asked for stay as they are.

    datasets  of the papers' names; none: all. Raises CosegError for one of which no paper reports a figure.
    systems   none: all checkpoints that are shipped
    """
    wanted = protocols_asked()
    if unknown := [name for name in datasets if name not in {dataset for _, dataset in wanted}]:
        known = ", ".join(sorted({dataset for _, dataset in wanted}))
        raise CosegError(f"--dataset {unknown[0]}: no paper reports it; one of {known}")
    table = read_own_protocols()
    for system in systems or load_systems(floors=()):
        paper = METHODS[system.model.card["method"]].paper.key
        for dataset in (d for p, d in wanted if p == paper and (not datasets or d in datasets)):
            try:
                rows = own_protocol_rows(system, dataset, wanted[paper, dataset], say)
            except CosegError as missing:
                say(f"{system.name}, {dataset}: {missing}")
                continue
            table = table[(table.system != system.name) | (table.dataset != dataset)]
            table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
            write_table(table, TABLE)
    return table


def read_own_protocols() -> pd.DataFrame:
    """COLUMNS, of the last runs; no rows where there was none."""
    if not TABLE.is_file():
        return pd.DataFrame(columns=COLUMNS)
    return read_table(TABLE, {**dict.fromkeys(COLUMNS, str), "P": float, "J": float, "images": float}, "move it away")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--run", nargs=2, metavar=("RUN", "CARD"), help="of a card whose weights are not shipped")
    given = parser.parse_args(arguments)
    try:
        systems = [System(given.run[1], of_card(*given.run))] if given.run else []
        table = measure_own_protocols(given.dataset, lambda text: print(text, flush=True), systems)
    except CosegError as error:
        print(f"coseg: {error}", file=sys.stderr)
        return 1
    print(table[table.group == "all"].to_string(index=False, float_format="%.3f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
