"""`coseg report`: the notebooks run in order by papermill, and a page that says how they went.

    reports/<profile>/index.html   the page to open: notebooks, tables and plots, see `coseglib.report.site`
    reports/<profile>/notebooks/   NN_name.ipynb as it ran, NN_name.html
    reports/<profile>/tables/      what the notebooks save, see `coseglib.core.paths.report_folder`
    reports/<profile>/plots/
    reports/<profile>/summary.md   the same in short, from the notebooks as they ran, those of earlier runs too

What decides a run is written into the notebook that it leaves (`metadata.coseg`): parameters, commit, versions, …
"""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import yaml
from joblib import cpu_count
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from papermill.exceptions import PapermillExecutionError

from coseglib.core.errors import CosegError
from coseglib.core.files import write_text
from coseglib.core.paths import MEASURED as MEASURED_CARDS
from coseglib.core.paths import NOTEBOOKS, REPORTS, REPOSITORY, named_roots
from coseglib.evaluation.cards import cards
from coseglib.evaluation.comparison import MEASURED, NONE
from coseglib.report import site
from coseglib.scoring.rows import PARTNERS

VERSIONS = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "pandas", "scikit-learn", "coseglib")
SLOWEST = 3  # cells a notebook, in the summary
TIMED = ("07_training",)  # seconds are among its results: nothing runs beside it
LONG = ("08_benchmark_tables", "11_failure_analysis")  # of notebooks that run side by side these start first


def chosen(only: Sequence[str] = (), notebooks: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks NN_name.ipynb in reading order; `only`: numbers ("02") or names ("02_semantic_attention")."""
    found = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise CosegError(f"{notebooks}: no notebooks NN_name.ipynb; run this in a clone of the repository")
    for asked in only:
        if not any(asked in (p.stem, p.stem[:2]) for p in found):
            raise CosegError(f"--only {asked}: no such notebook; one of {', '.join(p.stem[:2] for p in found)}")
    return [p for p in found if not only or p.stem in only or p.stem[:2] in only]


def declared(notebook: Path) -> dict[str, str]:
    """The names in a notebook's cell tagged `parameters`, and their defaults as source text."""
    try:
        return {name: p["default"] for name, p in papermill.inspect_notebook(notebook).items()}
    except Exception as error:  # nbformat, json and papermill each have their own
        raise CosegError(f"{notebook}: not a notebook that papermill reads ({error}); mend it") from error


def read_profile(profile: str, notebooks: Path = NOTEBOOKS) -> dict[str, dict]:
    """params/<profile>.yaml: {notebook: {parameter: value}}. Raises CosegError for a missing or malformed file."""
    file = notebooks / "params" / f"{profile}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in file.parent.glob("*.yaml"))) or "none"
        raise CosegError(f"{profile}: no such profile; one of {known}")
    try:
        given = yaml.safe_load(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise CosegError(f"{file}: not YAML ({' '.join(str(error).split())}); mend it") from error
    if not isinstance(given, dict) or not all(isinstance(v, dict | None) for v in given.values()):
        raise CosegError(f"{file}: not a mapping of notebooks to their parameters; mend it")
    return {name: values or {} for name, values in given.items()}


def parameters(profile: str, some: Sequence[Path], notebooks: Path = NOTEBOOKS) -> dict[str, dict]:
    """What some notebooks get: the profile's values, and `profile` itself.

    Raises CosegError where the profile speaks of a notebook that is not there or of a parameter that is not declared:
    papermill only warns of the latter, and the report would show something else than was asked for.
    """
    given = read_profile(profile, notebooks)
    there = {p.stem for p in notebooks.glob("*.ipynb")}
    for name in given:
        if name not in there:
            raise CosegError(f"{profile}.yaml: {name}: no such notebook; one of {', '.join(sorted(there))}")
    values = {}
    for notebook in some:
        known = declared(notebook)
        values[notebook.stem] = {"profile": profile, **given.get(notebook.stem, {})}
        for name in values[notebook.stem]:
            if name not in known:
                names = ", ".join(known) or "none"
                raise CosegError(f"{profile}.yaml: {notebook.stem} has no parameter {name}; it declares {names}")
    return values


def commit() -> str:
    """What `git describe` says of the code that runs, "-dirty" where it was changed since; "no git" without it.

    What lies in reports/ is no code: a report writes there itself.
    """

    def git(*command: str) -> str:
        found = subprocess.run(["git", "-C", str(REPOSITORY), *command], capture_output=True, text=True, check=True)
        return found.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports")
        return git("describe", "--always") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "no git"


def versions() -> str:
    """Python's and the packages' that figures depend on."""
    found = [f"Python {platform.python_version()}"]
    for name in VERSIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """System, processor, cores and GPU."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    except OSError:
        pass
    graphics = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.system()}, {name}, {os.cpu_count()} cores, {graphics}"


def _kernel(environment: dict[str, str]) -> type[AsyncKernelManager]:
    """Kernels of this very interpreter, whatever kernels are installed for the user or the system."""
    # Recent kernels warn at every start that they talk in the clear, to this very machine, and some call the interrupt
    # that comes before their end an error.
    arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
    spec = KernelSpec(argv=arguments, display_name="Python 3", language="python", env=environment)
    return type("ThisInterpreter", (AsyncKernelManager,), {"kernel_spec": spec})


def _environment(root: Path) -> dict[str, str]:
    """Where things are, as absolute paths: a kernel works in the notebook's folder, not in the caller's."""
    return named_roots() | {"COSEG_REPORTS": str(Path(root).expanduser().resolve())}


def _one_line(text: str, most: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}…"


def _timings(notebook: nbformat.NotebookNode) -> list[dict]:
    """The slowest cells, the slowest first: how many seconds, the number in brackets beside it, its first line."""
    cells = []
    for cell in notebook.cells:
        seconds = cell.metadata.get("papermill", {}).get("duration")
        if cell.cell_type == "code" and seconds and cell.get("execution_count"):
            lines = [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
            first = _one_line(lines[0], 60) if lines else ""
            cells.append({"cell": cell.execution_count, "seconds": round(seconds, 1), "line": first})
    return sorted(cells, key=lambda c: -c["seconds"])[:SLOWEST]


def _seeds(values: dict, notebook: Path) -> str:
    """The parameters whose name speaks of a seed: as given, else as the notebook declares them."""
    used = declared(notebook) | values
    return ", ".join(f"{name} = {used[name]}" for name in used if "seed" in name)


def run_notebook(notebook: Path, values: dict, out: Path, facts: dict, environment: dict[str, str]) -> dict:
    """Run one in the folder where this process is; leave `out`/NN_name.ipynb and .html, of a failed one too.

    Returns its `metadata.coseg`; error in it is "" or one line: the failing cell's number, its error.
    """
    part = out / f".{notebook.stem}.{os.getpid()}.ipynb"
    started, error = time.perf_counter(), ""
    try:
        try:
            papermill.execute_notebook(
                notebook,
                part,
                values,
                kernel_name="python3",
                language="python",
                kernel_manager_class=_kernel(environment),
                progress_bar=False,
            )
        except PapermillExecutionError as failure:
            error = _one_line(f"cell [{failure.exec_count}]: {failure.ename}: {failure.evalue}")
        except Exception as failure:  # a kernel that dies or does not start; jupyter has a class for each
            error = _one_line(f"{type(failure).__name__}: {failure}")
        source = part if part.is_file() else notebook
        ran = nbformat.read(source, as_version=4)
        about = {
            **facts,
            "parameters": values,
            "seeds": _seeds(values, notebook),
            "seconds": round(time.perf_counter() - started, 1),
            "error": error,
            "slowest": _timings(ran),
        }
        ran.metadata["coseg"] = about
        write_text(out / f"{notebook.stem}.html", site.notebook_page(ran, notebook.stem, facts["profile"]))
        write_text(out / notebook.name, nbformat.writes(ran))
    finally:
        part.unlink(missing_ok=True)
    return about


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _as_they_ran(folder: Path, notebooks: Path) -> tuple[dict[str, nbformat.NotebookNode], list[Path]]:
    """Name -> the notebook in `folder`/notebooks that a run left, in reading order; and those that no run has left."""
    ran, waiting = {}, []
    for path in chosen((), notebooks):
        left = folder / "notebooks" / path.name
        notebook = nbformat.read(left, as_version=4) if left.is_file() else None
        if notebook and notebook.metadata.get("coseg"):
            ran[path.stem] = notebook
        else:
            waiting.append(path)
    return ran, waiting


def _state(runs: dict[str, dict], waiting: list[str]) -> str:
    failed = [name for name, about in runs.items() if about["error"]]
    state = f"{len(runs) - len(failed)} of {len(runs) + len(waiting)} notebooks ran"
    for what, names in (("failed", failed), ("not run", waiting)):
        state += f"; {what}: {', '.join(names)}" if names else ""
    return f"{state}; {_duration(sum(about['seconds'] for about in runs.values()))} in all"


def _slowest(runs: dict[str, dict]) -> list[dict]:
    """The cells of `_timings` that took a second or more: name, cell, duration, line."""
    return [
        {"name": name, "cell": c["cell"], "duration": _duration(c["seconds"]), "line": c["line"]}
        for name, about in runs.items()
        for c in about["slowest"]
        if c["seconds"] >= 1
    ]


def _machines(runs: dict[str, dict]) -> list[str]:
    return list(dict.fromkeys(f"{a['machine']}; {a['versions']}" for a in runs.values()))


def _csv(folder: Path) -> dict[str, pd.DataFrame]:
    """{name: table} of the CSV files in `folder`/tables that can be read; checksums stay text."""
    found = {}
    for file in sorted((folder / "tables").glob("[!.]*.csv")):
        with contextlib.suppress(ValueError, OSError):  # pandas' own errors are ValueErrors; `site` names them
            found[file.name] = pd.read_csv(file, dtype={"checkpoint": str})
    return found


def figures(folder: Path) -> pd.DataFrame:
    """What the benchmark tables of `folder`/tables come to: a row a set and system, J under `common` by partner.

    Columns set, system, checkpoint, images, group, self, other (NaN where not asked). Empty without such tables.
    """
    needed = {"dataset", "system", "checkpoint", "protocol", "partner", "group", "images", "J", "source"}
    parts = [t for name, t in _csv(folder).items() if name.startswith("08_") and needed <= set(t)]
    if not parts:
        return pd.DataFrame(columns=["set", "system", "checkpoint", "images", *PARTNERS])
    rows = pd.concat(parts)
    rows = rows[(rows.source == MEASURED) & (rows.group == "all") & (rows.protocol == "common")]
    keys = ["dataset", "system", "checkpoint", "images"]
    wide = rows.drop_duplicates([*keys, "partner"]).set_index([*keys, "partner"]).J.unstack(sort=False)
    return (
        wide.reindex(columns=list(PARTNERS)).reset_index().rename(columns={"dataset": "set"}).rename_axis(columns=None)
    )


def origins(folder: Path, runs: dict[str, dict]) -> list[dict]:
    """A row a CSV table: table, notebook, code (commit), lists, checkpoints (8 digits; by name where a card has it).

    runs  {notebook: its `metadata.coseg`}; a table whose name begins with no notebook's number was made by a command
    """
    known = {card["sha256"][:8]: card["name"] for card in (*cards(MEASURED_CARDS), *cards())}  # of one file: as shipped
    rows = []
    for name, table in _csv(folder).items():
        notebook = next((n for n in runs if n[:3] == name[:3]), "")
        sets = table["dataset"].dropna().unique() if "dataset" in table else []
        lists = [f"data/lists/groups_{one}.csv" for one in sets]
        lists = [path if (REPOSITORY / path).is_file() else str(one) for path, one in zip(lists, sets, strict=True)]
        sums = table["checkpoint"].dropna().unique() if "checkpoint" in table else []
        rows.append(
            {
                "table": name,
                "notebook": notebook or ("an earlier run" if re.match(r"\d\d_", name) else "a command"),
                "code": runs[notebook]["commit"] if notebook else NONE,
                "lists": ", ".join(lists) or NONE,
                "checkpoints": ", ".join(f"{known[s]} {s}" if s in known else s for s in sums) or NONE,
            }
        )
    return rows


def _markdown(rows: Iterable[Mapping]) -> list[str]:
    rows = [{k: v if isinstance(v, str) else f"{v:.4g}" if v == v else NONE for k, v in row.items()} for row in rows]
    return [
        f"| {' | '.join(rows[0])} |",
        f"|{'---|' * len(rows[0])}",
        *(f"| {' | '.join(row.values())} |" for row in rows),
    ]


def summary(profile: str, folder: Path, notebooks: Path = NOTEBOOKS) -> str:
    """Markdown, from the notebooks in `folder`/notebooks as they ran: status, durations, errors, seeds, machine.

    And from the tables: what the benchmarks come to (`figures`), and what made each table (`origins`).
    """
    ran, waiting = _as_they_ran(folder, notebooks)
    runs = {name: notebook.metadata["coseg"] for name, notebook in ran.items()}
    failed = [name for name, about in runs.items() if about["error"]]
    lines = [
        f"# Report, profile `{profile}`",
        "",
        f"{_state(runs, [path.stem for path in waiting])}. Made by `coseg report --profile {profile}`, which leaves "
        "each notebook as it ran, and a page of it, in `notebooks/`, and all of this in `index.html`.",
        "",
        "| notebook | status | duration | seeds | date | code |",
        "|---|---|---|---|---|---|",
    ]
    for name, about in runs.items():
        row = (name, "FAILED" if about["error"] else "ok", _duration(about["seconds"]))
        lines.append(f"| {' | '.join((*row, about['seeds'] or '–', about['date'], about['commit']))} |")
    if failed:
        lines += ["", "## What failed", "", *(f"- `{name}`: {runs[name]['error']}" for name in failed)]
    benchmarks = figures(folder)
    if len(benchmarks):
        lines += ["", "## J by partner, under protocol `common`", "", *_markdown(benchmarks.to_dict("records"))]
    slow = _slowest(runs)
    if slow:
        lines += ["", "## Slowest cells", ""]
        lines += [f"- `{c['name']}` [{c['cell']}] {c['duration']}: `{c['line']}`" for c in slow]
    made = [p.relative_to(folder).as_posix() for part in ("tables", "plots") for p in sorted((folder / part).glob("*"))]
    if made:
        lines += ["", "## Tables and plots", "", *(f"- [{p}]({p})" for p in made)]
    if made_by := origins(folder, runs):
        lines += ["", "## What made each table", ""]
        lines += _markdown(made_by)
        lines += ["", "Checkpoints without a name were trained by the notebook itself, or are floors."]
    lines += ["", "## Where it ran", ""]
    lines += [f"- {line}" for line in _machines(runs)]
    return "\n".join(lines) + "\n"


def page(profile: str, folder: Path, notebooks: Path = NOTEBOOKS) -> str:
    """index.html: what `summary` says, with the tables and the plots themselves. Opens from disk, without a network."""
    ran, waiting = _as_they_ran(folder, notebooks)
    runs = {name: notebook.metadata["coseg"] for name, notebook in ran.items()}
    facts = {
        "profile": profile,
        "state": _state(runs, [path.stem for path in waiting]),
        "durations": {name: _duration(about["seconds"]) for name, about in runs.items()},
        "slowest": _slowest(runs),
        "machines": _machines(runs),
    }
    titles = {path.stem: site.title(nbformat.read(path, as_version=4), path.stem) for path in waiting}
    return site.index(folder, facts, ran, titles)


def in_turn(some: Sequence[Path], jobs: int) -> tuple[list[Path], list[Path]]:
    """Those that run one by one, and those that run after them, `jobs` at a time, in the order in which they start."""
    if jobs == 1:
        return [], list(some)
    alone = [notebook for notebook in some if notebook.stem in TIMED]
    others = [notebook for notebook in some if notebook.stem not in TIMED]
    return alone, sorted(others, key=lambda notebook: notebook.stem not in LONG)


def run_report(
    profile: str = "smoke",
    only: Sequence[str] = (),
    root: Path = REPORTS,
    notebooks: Path = NOTEBOOKS,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
    jobs: int = 1,
) -> list[str]:
    """Run the notebooks of a profile; write `root`/<profile>/index.html and summary.md. Returns who failed, by name.

    only  numbers or names; the others keep what an earlier run left, and the summary says of when
    jobs  notebooks at a time, which share the cores; those of TIMED run alone, before the others, then those of LONG
    Raises CosegError before anything runs: an unknown profile, notebook or parameter.
    """
    root = Path(root).resolve()
    some = chosen(only, notebooks)
    values = parameters(profile, some, notebooks)
    folder = root / profile
    (folder / "notebooks").mkdir(parents=True, exist_ok=True)
    facts = {
        "profile": profile,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "versions": versions(),
        "machine": machine() + (f", {jobs} notebooks at a time" if jobs > 1 else ""),
    }
    environment = _environment(root)
    beside = environment  # of those that run beside others: their share of the cores
    if jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
        beside = environment | {"OMP_NUM_THREADS": str(max(1, cpu_count() // jobs))}
    number = {notebook.stem: f"[{i}/{len(some)}] {notebook.stem}" for i, notebook in enumerate(some, start=1)}
    alone, others = in_turn(some, jobs)
    errors: dict[str, str] = {}
    told = threading.Lock()

    def run(notebook: Path) -> None:
        name = notebook.stem
        with told:
            say(f"{number[name]} …")
        own = environment if notebook in alone else beside
        about = run_notebook(notebook, values[name], folder / "notebooks", facts, own)
        with told:
            errors[name] = about["error"]
            say(f"{number[name]} {f'FAILED, {errors[name]}' if errors[name] else 'ok'}, {_duration(about['seconds'])}")
            write_text(folder / "summary.md", summary(profile, folder, notebooks))
            write_text(folder / "index.html", page(profile, folder, notebooks))

    with contextlib.chdir(some[0].parent), ThreadPoolExecutor(jobs) as pool:
        try:
            for notebook in alone:
                run(notebook)
            list(pool.map(run, others))  # raises what a run raised
        except BaseException:  # an interrupt ends the cells that run; what waits is not to start
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    failed = [notebook.stem for notebook in some if errors[notebook.stem]]
    say(f"{len(some) - len(failed)} of {len(some)} notebooks ran; {folder / 'index.html'}, {folder / 'summary.md'}")
    return failed
