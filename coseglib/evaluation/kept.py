"""Rows that are kept in a CSV, so that a run that was killed goes on: of one configuration, and of one code."""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

import coseglib
from coseglib.core.tables import read_table, write_table

SCORED = ("core", "layers", "data", "models", "answering", "scoring")  # the rooms from a photograph to its score
LEARNED = (*SCORED, "unsupervised")  # and of what learns on the group that it is scored on
Say = Callable[[str], None]
# In which a figure that is to be compared is measured: every machine has it, and 16 bits have moved a whole set's J by
# .004, that of sixty photographs by .013 (`reports/trials.md`, 31).
PRECISION = "32-true"


class Part(NamedTuple):
    """What a part's rows depend on besides code, and what computes them, saying lines meanwhile."""

    key: str
    run: Callable[[Say], pd.DataFrame]


def digest_of(known: object, digits: int = 12, sort_keys: bool = False) -> str:
    """The first digits of a SHA-256 of what rows depend on."""
    text = json.dumps(known, sort_keys=sort_keys, default=str, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


class _WithoutWords(ast.NodeTransformer):
    """Docstrings fall out, as all texts that stand alone; comments are in no syntax tree."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)


@cache
def code_hash(rooms: Sequence[str] = SCORED, package: Path = Path(coseglib.__file__).parent) -> str:
    """12 digits of a SHA-256 of what the rooms' modules do: of their syntax, without docstrings and comments."""
    digest = hashlib.sha256()
    for file in sorted(f for room in rooms for f in (package / room).rglob("*.py")):
        tree = _WithoutWords().visit(ast.parse(file.read_bytes()))
        digest.update(f"{file.relative_to(package).as_posix()}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()[:12]


def resumable_rows(
    parts: Mapping[str, Part],
    kept: Path,
    say: Say,
    numbers: Mapping[str, type],
    rooms: Sequence[str] = SCORED,
    workers: int = 1,
) -> Iterator[pd.DataFrame]:
    """Part by part, the rows so far. They are kept in the CSV `kept`: of parts whose key stands there, nothing is run.

    parts    {what is said of a part before each of its lines: the part}
    numbers  the columns that hold numbers, and which (float where a row may have none); all others are text
    rooms    whose code the rows depend on: rows of another code are computed anew
    workers  parts that run at a time, in threads. They end in any order; rows are in the order of the parts
    """
    code, tables, done = code_hash(rooms), {}, pd.DataFrame(columns=["key", "code"])
    if kept.is_file():
        done = read_table(kept, {"key": str}, "move it away", optional=numbers)
    done = done if "code" in done else done.assign(code="")
    stale = done.key.isin([part.key for part in parts.values()]) & (done.code != code)
    if stale.any():
        say(f"{kept.name}: {stale.sum()} rows are of other code and computed anew")
    done = done[~stale]
    waiting = {}
    for name, part in parts.items():
        if (done.key == part.key).any():
            say(f"{name}: done before")
            tables[name] = done[done.key == part.key]
        else:
            waiting[name] = part
    if tables and not waiting:
        yield pd.concat([tables[name] for name in parts], ignore_index=True)
    for name, rows in _run(waiting, workers, say):
        tables[name] = rows.assign(key=parts[name].key, code=code)
        so_far = pd.concat([tables[name] for name in parts if name in tables], ignore_index=True)
        others = done[~done.key.isin(so_far.key)]
        write_table(pd.concat([others, so_far], ignore_index=True) if len(others) else so_far, kept)
        yield so_far


def _run(parts: Mapping[str, Part], workers: int, say: Say) -> Iterator[tuple[str, pd.DataFrame]]:
    """The parts' rows as they end, by name."""

    def run(name: str) -> pd.DataFrame:
        return parts[name].run(lambda text: say(f"{name}: {text}"))

    if workers == 1:
        for name in parts:
            yield name, run(name)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        names = {pool.submit(run, name): name for name in parts}
        for future in as_completed(names):
            yield names[future], future.result()
    finally:  # after a fault, or Ctrl-C, no other part starts
        pool.shutdown(wait=False, cancel_futures=True)
