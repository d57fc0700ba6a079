"""The explorer's page: how long a user waits for another threshold, for other partners, and after a click.

    python benchmarks/explorer.py [--data synthetic] [--photos 6] [--checkpoint ca-mobilenet_v2]

What is measured is the page itself without a browser: a control is set, and all pictures are computed, drawn and
compressed. Beside it the way without what a session keeps: all photographs through the network again.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from record import record

from coseglib.answering.masks import segment_group
from coseglib.core.paths import DEFAULT_CHECKPOINT
from coseglib.explorer.controls import MATCH, THIS
from coseglib.explorer.page import Explorer

GOALS = {"threshold": 0.3, "partner": 2.0, "mark": 2.0}  # seconds, for six photographs on two cores
POSTS = {"argmax": False, "crf": True}


def waited(action: Callable[[int], None], rounds: int) -> float:
    """Median seconds of action(0), action(1), …; the first of all warms up and does not count."""
    seconds = []
    for turn in range(rounds + 1):
        started = time.perf_counter()
        action(turn)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def without(page: Explorer, turn: int) -> None:
    """Another partner left out, each of them in turn: 1, 1 and 2, 2, … so that no set comes twice."""
    card = page._cards[turn % len(page._cards)]
    card.partner.value = not card.partner.value


def click(page: Explorer, turn: int) -> None:
    """In each photograph in turn, near its middle, as a browser tells it."""
    place = [0.4 + 0.02 * (turn % 10), 0.5]
    page._cards[turn % len(page._cards)].stage.hear({"path": [place], "shift": False})


def measure(page: Explorer, rounds: int) -> dict[str, float]:
    """Seconds for each change, by its name."""
    found, photos = {}, [o.photo for o in page.session.photos]
    for post, crf in POSTS.items():
        page.crf.value = crf

        def threshold(turn: int) -> None:
            page.threshold.value = 0.3 + 0.4 * (turn % 7) / 7

        def anew(turn: int, post: str = post) -> None:
            list(segment_group(page.session.model, photos, post=post))

        found[f"threshold, {post}"] = waited(threshold, rounds)
        page.session._forget()
        found[f"partner, {post}"] = waited(lambda turn: without(page, turn), min(rounds, len(photos) - 1))
        found[f"all anew, {post}"] = waited(anew, rounds)
        for card in page._cards:
            card.partner.value = True
        page.tool.value = THIS
        found[f"mark, {post}"] = waited(lambda turn: click(page, turn), rounds)  # each photograph is new to it once
        page.clear.click()
    page.crf.value = False
    page.tool.value = MATCH
    found["match"] = waited(lambda turn: click(page, turn), rounds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic", help="a data set, or a folder")
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    page = Explorer(given.data, photos=given.photos, checkpoint=given.checkpoint)
    height, width = page.session.photos[0].picture.size
    found = measure(page, given.rounds)
    rows = []
    for name, seconds in found.items():
        what, _, post = name.partition(", ")
        alone = found.get(f"all anew, {post}")
        ratio = f"{seconds / alone:.2f}" if alone and what in GOALS else "-"
        rows.append({"change": name, "seconds": f"{seconds:.3f}", "of all anew": ratio})
    said = []
    for what, goal in GOALS.items():
        worst = max(found[f"{what}, {post}"] for post in POSTS)
        met = "met" if worst < goal else "missed"
        change = "a click that says what is meant" if what == "mark" else f"another {what}"
        said.append(f"{change} takes {worst:.2f} s at most (goal: {goal:g} s, {met})")
    shown = f"{len(page.session.photos)} photographs of {width} × {height} pixels, {given.checkpoint}"
    text = f"{shown}: {'; '.join(said)}. A set of partners that was asked before costs no more than a threshold; here "
    text += "each is new."
    record("The explorer: from a change to its pictures", "benchmarks/explorer.py", rows, text)


if __name__ == "__main__":
    main()
