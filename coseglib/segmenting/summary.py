"""What a job of segmenting has done, and what its user should know."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Summary:
    """What `segment_photos` did.

    out      the folder written to                 photos   photographs found, skipped ones included
    done     masks there are now                   earlier  of these, by a run that was killed before
    skipped  (file, why) each                      ignored  files in the folders that are no images by their names
    note     a remark for the reader, or ""        seconds  of this run
    rank     of this process: let only 0 speak
    """

    out: Path
    photos: int
    done: int
    earlier: int
    skipped: tuple[tuple[str, str], ...]
    ignored: int
    note: str
    seconds: float
    rank: int

    @property
    def exit_code(self) -> int:
        """0: all done; 2: some were skipped and the rest is written; 1: nothing could be done. Ranks above 0: 0."""
        if self.rank:
            return 0
        return 1 if not self.done else 2 if self.skipped else 0


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
