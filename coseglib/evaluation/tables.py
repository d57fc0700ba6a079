"""Tables of results: a checkpoint, a data set, a protocol -> a row a group and a last row `all`; `coseg evaluate`."""

import time
from pathlib import Path

import pandas as pd
import torch

from coseglib.core.errors import CosegError
from coseglib.data import load
from coseglib.scoring import metrics
from coseglib.scoring.questions import partner_swap, refusal
from coseglib.scoring.rows import evaluate

SPECIAL = ("partner-swap", "refusal")  # protocols that do not end in P and J of each photograph
SOURCES = {"voc-val": "voc-train"}  # where the partners of a set's two-class photographs come from, if not from itself


def _swap(questions: pd.DataFrame) -> pd.DataFrame:
    """Means of J_asked, J_other and score by the class asked for; `all`: over the questions. images: questions."""
    table = pd.concat([questions, questions.assign(asked="all")]).groupby("asked", sort=False)
    figures = {name: (name, "mean") for name in ("J_asked", "J_other", "score")}
    return table.agg(images=("score", "size"), **figures).rename_axis("group").reset_index()


def _refused(answers: pd.DataFrame) -> pd.DataFrame:
    """AUROC by group; `all`: over all photographs. images: photographs, each asked about twice."""
    table = pd.concat([answers, answers.assign(group="all")]).groupby("group", sort=False)
    rows = ((name, len(some) // 2, metrics.auroc(some.score, some.common)) for name, some in table)
    return pd.DataFrame(rows, columns=["group", "images", "AUROC"])


def evaluation_table(
    model: torch.nn.Module,
    dataset: str,
    protocol: str = "common",
    partner: str = "group",
    how: str = "mean",
    limit: int | None = None,
    quiet: bool = True,
    data_root: str | Path | None = None,
) -> pd.DataFrame:
    """Columns dataset, group, images, P, J, protocol, "checkpoint sha256", seconds (an image); last row of group "all".

    model       from `load_model` or `build_floor`, on the device where it is to answer
    dataset     a name of `coseglib.data.NAMES` or a folder
    protocol    a key of `metrics.PROTOCOLS`; "partner-swap": J_asked, J_other, score for P and J, images counts
                questions; "refusal": AUROC for P and J
    partner, how, limit, quiet  as of `scoring.rows.evaluate`; partner-swap knows `how` alone, refusal none
    Raises CosegError for names that do not exist, photographs without masks, and options that a protocol ignores.
    """
    known = (*metrics.PROTOCOLS, *SPECIAL)
    if protocol not in known:
        raise CosegError(f"{protocol}: no such protocol; one of {', '.join(known)}")
    if protocol in SPECIAL and (partner != "group" or limit is not None):
        raise CosegError(f"{protocol}: chooses partners and photographs itself; leave out --partner and --limit")
    groups = load(dataset, data_root)
    started = time.perf_counter()
    if protocol in metrics.PROTOCOLS:
        rows = evaluate(model, groups, protocol, partner, how, limit, quiet=quiet)
        table = metrics.aggregate(rows, protocol)
    else:
        sources = load(SOURCES[dataset], data_root) if dataset in SOURCES else None
        if protocol == "partner-swap":
            table = _swap(partner_swap(model, groups, how=how, sources=sources))
        else:
            table = _refused(refusal(model, groups))
        table.insert(0, "dataset", groups[0].dataset)
        table["protocol"] = protocol
        table["seconds"] = (time.perf_counter() - started) / table.images.iloc[-1]
    table.insert(table.columns.get_loc("protocol") + 1, "checkpoint sha256", model.card["sha256"])
    return table
