"""How far a job is and how long it will still take: a bar in a terminal, plain lines elsewhere."""

import sys
import time

from tqdm import tqdm


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, "0:12:34"."""
    return f"{int(seconds // 3600)}:{int(seconds // 60) % 60:02d}:{int(seconds) % 60:02d}"


class Progress:
    """Progress on stderr: tqdm's bar in a terminal; elsewhere (logs, notebooks) a line every 5 s, and the last one.

        with Progress("masks", total=40) as progress:
            for photo in photos:
                ...
                progress.add()        # masks: 12 of 40 photos, 3.1 photos/s, 0:00:09 left

    done: what an earlier run has done already: it counts, and not for the time left
    """

    EVERY = 5.0  # seconds between two lines

    def __init__(self, text: str, total: int, unit: str = "photos", quiet: bool = False, done: int = 0):
        self.text, self.total, self.unit, self.quiet = text, total, unit, quiet
        self.done = self.earlier = done
        self.started = self.shown = time.monotonic()
        silent = quiet or not sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=text, unit=f" {unit}", initial=done, dynamic_ncols=True, disable=silent)

    def add(self, count: int = 1, note: str = "") -> None:
        """`count` more are done. note: what else is to be shown, "loss 0.31"."""
        self.done += count
        if note:
            self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(count)
        due = self.done == self.total or time.monotonic() - self.shown >= self.EVERY
        if due and self.bar.disable and not self.quiet:
            self.shown = time.monotonic()
            print(self._line(note), file=sys.stderr, flush=True)
        if self.done >= self.total:
            self.bar.close()

    def _line(self, note: str) -> str:
        rate = (self.done - self.earlier) / max(self.shown - self.started, 1e-9)
        left = clock((self.total - self.done) / rate) if rate else "?"
        speed = f"{rate:,.{1 if rate >= 1 else 3}f} {self.unit}/s, {left} left"
        parts = filter(None, (f"{self.done:,} of {self.total:,} {self.unit}", note, speed))
        return f"{self.text}: {', '.join(parts)}"

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
