"""The house: imports point one way, rooms have a sign at their door, files and functions can be read at one sitting."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "coseglib"
ROOMS = "core layers data models answering segmenting scoring training unsupervised evaluation claims analysis figures"
ROOMS = (*ROOMS.split(), "report", "explorer", "cli")
FILES = sorted(HOUSE.rglob("*.py"))
MOST_LINES, MOST_OF_A_FUNCTION = 400, 60
REASON = "Longer than"  # what a docstring says where a file or a function has to be


def room_of(file: Path) -> str:
    return file.relative_to(HOUSE).parts[0]


def imported(tree: ast.AST):
    """(module, line) of every import of the library, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "coseglib":
            for name in node.names:
                yield f"{node.module}.{name.name}", node.lineno
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] == "coseglib":
                    yield name.name, node.lineno


def test_nothing_lies_beside_the_rooms():
    assert {p.name for p in HOUSE.glob("*.py")} == {"__init__.py", "__main__.py"}
    assert {p.name for p in HOUSE.iterdir() if p.is_dir() and p.name != "__pycache__"} == set(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(HOUSE)))
def test_imports_point_to_earlier_rooms(file):
    room = room_of(file)
    if room not in ROOMS:  # __main__
        return
    allowed = ROOMS[: ROOMS.index(room) + 1]
    wrong = []
    for module, line in imported(ast.parse(file.read_text())):
        parts = module.split(".")
        if len(parts) > 1 and parts[1] not in allowed:
            wrong.append(f"{file.relative_to(HOUSE)}:{line} imports {module}")
    assert not wrong


def test_no_two_files_of_a_room_import_each_other():
    known = {
        ".".join(("coseglib", *f.relative_to(HOUSE).with_suffix("").parts)).removesuffix(".__init__"): f for f in FILES
    }
    arrows = defaultdict(set)
    for name, file in known.items():
        for node in ast.parse(file.read_text()).body:  # what a function imports is needed later
            for module, _ in imported(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
                target = next((m for m in (module, module.rpartition(".")[0]) if m in known), None)
                if target and target != name:
                    arrows[name].add(target)

    def circle(name, path):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in clear:
            return None
        for target in arrows[name]:
            if found := circle(target, [*path, name]):
                return found
        clear.add(name)
        return None

    clear = set()
    for name in known:
        assert circle(name, []) is None


@pytest.mark.parametrize("room", ROOMS)
def test_a_sign_says_what_is_where(room):
    sign = ast.get_docstring(ast.parse((HOUSE / room / "__init__.py").read_text())) or ""
    files = {f.stem for f in (HOUSE / room).glob("*.py") if f.stem not in ("__init__", "__main__")}
    assert not {name for name in files if name not in sign}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(HOUSE)))
def test_files_and_functions_are_short_or_say_why_not(file):
    text = file.read_text()
    tree = ast.parse(text)
    if len(text.splitlines()) > MOST_LINES:
        assert REASON in (ast.get_docstring(tree) or "")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > MOST_OF_A_FUNCTION:
            assert REASON in (ast.get_docstring(node) or ""), (
                f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
            )


def test_a_public_name_is_defined_once():
    """A function or class that two files define would have two meanings; a command's file calls its command by name."""
    places = defaultdict(list)
    for file in FILES:
        if room_of(file) == "cli":
            continue
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                places[node.name].append(str(file.relative_to(HOUSE)))
    per_set = {"load", "photos", "main"}  # `load` and `photos` of every data set, `main` of every module that is run
    twice = {name: files for name, files in places.items() if len(files) > 1 and name not in per_set}
    assert not twice


def test_a_dead_kernel_does_not_hold_the_tests_for_half_an_hour():
    """nbval waits 2000 s for a cell whose kernel is gone."""
    limit = re.search(r"--nbval-cell-timeout=(\d+)", (HOUSE.parent / "Makefile").read_text(encoding="utf-8"))
    assert limit and 60 <= int(limit[1]) <= 900
