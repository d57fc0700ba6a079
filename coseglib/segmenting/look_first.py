"""Which masks a person should look at first: those of which the model's own probabilities expect little.

If a pixel is of the object with the probability p that the model gives it, a mask can be expected to meet its truth in
the sum of p over the mask, and both together to cover the mask and the sum of p beside it. The quotient is the J that
is to be expected, without any truth: `expected_jaccard`, one number a photograph. Below DOUBTFUL more masks were under
J .5 than above, from SURE on almost none were (iCoseg's groups that do not test, and validation groups of VOC and
MSRC; by argmax and by the dense CRF). Nothing that was tried beside it said clearly more there: the score, whether two
looks agree, the foreground's share, its colours and features against the group's. What it catches on test sets:
`benchmarks/look_first.py`.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from coseglib.answering.masks import foreground
from coseglib.data.record import resize_labels

DOUBTFUL, SURE = 0.6, 0.9  # expected J: to be looked at below the one, and never from the other on
FIRST = 0.2  # of the photographs are to be looked at, unless they are sure
UNLIKE = 3.0  # times the group's median share, or one in so many of it: worth a word


def expected_jaccard(logits: Tensor, mask: Tensor) -> float:
    """J that a mask has in the mean, if its pixels are of the foreground as often as the logits say. 0 for none.

    logits (2, h, w), mask uint8 (H, W), whatever is not 0 is foreground -> in [0, 1]
    """
    p = foreground(logits)
    m = resize_labels(mask, tuple(p.shape)) != 0
    both = float((p * m).sum())
    union = float(p.sum()) + int(m.sum()) - both
    return both / union if union else 0.0


def note_for(entries: Iterable[dict], common_from: dict | None) -> str:
    """What the user should know of a group that was segmented; "" for nothing.

    common_from  {"score", "on", …} of the checkpoint's card: below that score pairs without a common class are the
                 likelier ones, see `coseglib.evaluation.shipping`; None: not known of this checkpoint
    """
    entries = list(entries)
    if len(entries) == 1:
        return "a group of one photograph: it is attended by itself"
    scores = [entry["score"] for entry in entries if "score" in entry]
    if not scores or not common_from or np.mean(scores) >= common_from["score"]:
        return ""
    return (
        f"perhaps nothing is common to these photographs: their mean score is {np.mean(scores):.2f}, and from "
        f"{common_from['score']:.2f} on something is likelier than not ({common_from['on']})"
    )


def look_first(entries: Sequence[dict]) -> list[dict]:
    """{file, why} of each photograph whose mask a person should look at, the most doubtful first.

    entries  of result.json. Taken are all whose mask is empty or whose `expected_jaccard` is below DOUBTFUL, and of the
             most doubtful as many as are FIRST of all, if they are below SURE. Without that number (several classes)
             only empty masks are taken.
    """
    done = [entry for entry in entries if "mask" in entry]
    order = sorted(done, key=_expected)  # stable: as found where they are equal
    doubtful = sum(_expected(entry) < DOUBTFUL for entry in order)
    taken = [e for e in order[: max(doubtful, math.ceil(FIRST * len(done)))] if _expected(e) < SURE]
    usual = _usual_shares(done)
    return [{"file": entry["file"], "why": _why(entry, usual.get(entry.get("group"), 0.0))} for entry in taken]


def _expected(entry: dict) -> float:
    return entry.get("expected_j", 1.0) if entry["foreground_share"] else 0.0


def _usual_shares(entries: Sequence[dict]) -> dict:
    """The median foreground of each group of three or more."""
    groups: dict = {}
    for entry in entries:
        groups.setdefault(entry.get("group"), []).append(entry["foreground_share"])
    return {group: float(np.median(shares)) for group, shares in groups.items() if len(shares) > 2}


def _why(entry: dict, usual: float) -> str:
    share = entry["foreground_share"]
    if not share:
        return "the mask is empty"
    why = f"expected J {entry['expected_j']:.2f}"
    if usual and not 1 / UNLIKE < share / usual < UNLIKE:
        why += f"; {share:.1%} of the photograph, and in most of the others about {usual:.1%}"
    return why
