"""Rows that are kept in a CSV, so that a run that was killed goes on: of one configuration, and of one code.

`code_hash`       of the modules that compute them; words may change
`resumable_rows`  part by part, what is missing is run
"""

import ast
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

import pandas as pd

import coseglib
from coseglib.core.tables import read_table, write_table

Part = TypeVar("Part")
SCORED = ("core", "layers", "data", "models", "answering", "scoring")  # the rooms from a photograph to its score
LEARNED = (*SCORED, "unsupervised")  # and of what learns on the group that it is scored on


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


def _read(kept: Path, numbers: Mapping[str, type]) -> pd.DataFrame:
    if not kept.is_file():
        return pd.DataFrame(columns=["key", "code"])
    table = read_table(kept, {"key": str}, "move it away", optional=numbers)
    return table if "code" in table else table.assign(code="")


def resumable_rows(
    parts: Mapping[str, Part],
    kept: Path,
    key: Callable[[Part], str],
    run: Callable[[Part, Callable[[str], None]], pd.DataFrame],
    say: Callable[[str], None],
    numbers: Mapping[str, type],
    rooms: Sequence[str] = SCORED,
) -> Iterator[pd.DataFrame]:
    """Part by part, the rows so far. They are kept in the CSV `kept`: of parts whose key stands there, nothing is run.

    parts    {what is said of a part before each of its lines: the part}
    key      what a part's rows depend on besides code
    run      a part, and a function that says a line -> its rows
    numbers  the columns that hold numbers, and which (float where a row may have none); all others are text
    rooms    whose code the rows depend on: rows of another code are computed anew
    """
    code, tables, done = code_hash(rooms), [], _read(kept, numbers)
    keys = {name: key(part) for name, part in parts.items()}
    stale = done.key.isin(keys.values()) & (done.code != code)
    if stale.any():
        say(f"{kept.name}: {stale.sum()} rows are of other code and computed anew")
    done = done[~stale]
    for name, part in parts.items():
        rows = done[done.key == keys[name]]
        if len(rows):
            say(f"{name}: done before")
        else:
            rows = run(part, lambda text, name=name: say(f"{name}: {text}")).assign(key=keys[name], code=code)
        tables.append(rows)
        so_far = pd.concat(tables, ignore_index=True)
        others = done[~done.key.isin(so_far.key)]
        write_table(pd.concat([others, so_far], ignore_index=True) if len(others) else so_far, kept)
        yield so_far
