"""`coseg report`: the notebooks run in order by papermill, and a page that says what they found.

    reports/<profile>/index.html   the page to open: what was found, systems, notebooks, and folded tables and plots
    reports/<profile>/summary.md   the same in Markdown, from the notebooks as they ran, those of earlier runs too
    reports/<profile>/notebooks/   NN_name.ipynb as it ran, NN_name.html
    reports/<profile>/tables/      what the notebooks save, see `coseglib.core.paths.report_folder`
    reports/<profile>/plots/

What was found are sentences that notebooks print in cells tagged `finding`, see `coseglib.report.findings`.
What decides a run is written into the notebook that it leaves (`metadata.coseg`): parameters, commit, versions, …
"""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
from joblib import cpu_count
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from papermill.exceptions import PapermillExecutionError

from coseglib.core.config import read_text
from coseglib.core.errors import CosegError, one_line
from coseglib.core.files import writable, write_text
from coseglib.core.paths import NOTEBOOKS, REPOSITORY, named_roots, reports_root
from coseglib.report.notebooks import declared, selected
from coseglib.report.site import duration, notebook_page, pages

VERSIONS = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "pandas", "scikit-learn", "coseglib")
TIMED = ("07_training",)  # seconds are among its results: nothing runs beside it
POLL_SECONDS = 0.2  # between two looks at kernels that are to end
SLOWEST = 3  # cells a notebook that its page names
LONG = ("08_benchmark_tables", "11_failure_analysis")  # of notebooks that run side by side these start first


def parameters(profile: str, some: Sequence[Path], notebooks: Path = NOTEBOOKS) -> dict[str, dict]:
    """What some notebooks get: `profile` itself and the values of params/<profile>.yaml, {notebook: {name: value}}.

    Raises CosegError where that file is missing or malformed, or speaks of a notebook that is not there or a parameter
    that is not declared: papermill only warns of the latter, and the report would show something else than was asked.
    """
    file = notebooks / "params" / f"{profile}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in file.parent.glob("*.yaml"))) or "none"
        raise CosegError(f"{profile}: no such profile; one of {known}")
    given = read_text(file.read_text(encoding="utf-8"), file) or {}
    if not isinstance(given, dict) or not all(isinstance(v, dict | None) for v in given.values()):
        raise CosegError(f"{file}: not a mapping of notebooks to their parameters; mend it")
    there = {p.stem for p in notebooks.glob("*.ipynb")}
    if missing := [name for name in given if name not in there]:
        raise CosegError(f"{profile}.yaml: {missing[0]}: no such notebook; one of {', '.join(sorted(there))}")
    values = {}
    for notebook in some:
        known = declared(notebook)
        values[notebook.stem] = {"profile": profile, **(given.get(notebook.stem) or {})}
        if unknown := [name for name in values[notebook.stem] if name not in known]:
            names = ", ".join(known) or "none"
            raise CosegError(f"{profile}.yaml: {notebook.stem} has no parameter {unknown[0]}; it declares {names}")
    return values


def commit() -> str:
    """What `git describe` says of the code that runs, "-dirty" where it was changed since; "no git" without it.

    What lies in reports/ is no code: a report writes there itself.
    """
    asked = "status --porcelain --untracked-files=no -- . :!reports", "describe --always"
    how = {"cwd": REPOSITORY, "capture_output": True, "text": True, "check": True}
    try:
        changed, name = (subprocess.run(["git", *command.split()], **how).stdout.strip() for command in asked)
    except (OSError, subprocess.CalledProcessError):
        return "no git"
    return f"{name}-dirty" if changed else name


def package_versions() -> str:
    """Python's and the packages' that figures depend on."""
    found = [f"Python {platform.python_version()}"]
    for name in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def machine() -> str:
    """System, processor, cores and GPU."""
    import torch

    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        name = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), name)
    graphics = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.system()}, {name}, {os.cpu_count()} cores, {graphics}"


class Kernels:
    """Kernels of this very interpreter, whatever kernels are installed for the user or the system; `end` ends them.

    Each has a session of its own, where no Ctrl-C of a terminal arrives.
    """

    def __init__(self):
        self.started: list[AsyncKernelManager] = []
        self.ended = False

    def manager(self, environment: dict[str, str]) -> type[AsyncKernelManager]:
        """What papermill is to start a kernel with."""
        # Recent kernels warn at every start that they talk in the clear, to this very machine, and some call the
        # interrupt that comes before their end an error.
        arguments = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=CRITICAL"]
        spec = KernelSpec(argv=arguments, display_name="Python 3", language="python", env=environment)

        def begin(manager, *args, **kwargs):
            AsyncKernelManager.__init__(manager, *args, **kwargs)
            self.started.append(manager)

        return type("ThisInterpreter", (AsyncKernelManager,), {"kernel_spec": spec, "__init__": begin})

    def end(self, work: Sequence[Future]) -> None:
        """Kill those that run, and what they have started, until the work is done: some were just starting."""
        self.ended = True
        while not all(future.done() for future in work):
            for manager in self.started:
                if manager.provisioner is not None and manager.provisioner.has_process:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(manager.provisioner.pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)


def _timings(notebook: nbformat.NotebookNode) -> list[dict]:
    """The slowest cells, the slowest first: how many seconds, the number in brackets beside it, its first line."""
    cells = []
    for cell in notebook.cells:
        seconds = cell.metadata.get("papermill", {}).get("duration")
        if cell.cell_type == "code" and seconds and cell.get("execution_count"):
            lines = [line for line in cell.source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
            first = one_line(lines[0], 60) if lines else ""
            cells.append({"cell": cell.execution_count, "seconds": round(seconds, 1), "line": first})
    return sorted(cells, key=lambda c: -c["seconds"])[:SLOWEST]


def _cut_short(notebook: nbformat.NotebookNode) -> str:
    """What a cell that ends the process leaves, sys.exit(0): papermill takes that for the end, the rest unrun."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    unrun = [cell for cell in code if cell.metadata.get("papermill", {}).get("status") == "pending"]
    last = max((cell.execution_count or 0 for cell in code), default=0)
    return f"cell [{last}]: ended the notebook; {len(unrun)} cells after it were not run" if unrun else ""


def run_notebook(notebook: Path, values: dict, out: Path, facts: dict, environment: dict, kernels: Kernels) -> dict:
    """Run one in the folder where this process is; leave `out`/NN_name.ipynb and .html, of a failed one too.

    Returns its `metadata.coseg`; error in it is "" or one line: the failing cell's number, its error.
    Raises CosegError, and leaves what an earlier run left, where the kernels were ended meanwhile.
    """
    part = out / f".{notebook.stem}.{os.getpid()}.ipynb"
    started, error = time.perf_counter(), ""
    try:
        try:
            how = {"kernel_name": "python3", "language": "python", "kernel_manager_class": kernels.manager(environment)}
            papermill.execute_notebook(notebook, part, values, progress_bar=False, **how)
        except PapermillExecutionError as failure:
            error = one_line(f"cell [{failure.exec_count}]: {failure.ename}: {failure.evalue}")
        except Exception as failure:  # a kernel that dies or does not start; jupyter has a class for each
            error = one_line(f"{type(failure).__name__}: {failure}")
        if kernels.ended:
            raise CosegError(f"{notebook.stem}: stopped; run it again with --only {notebook.stem[:2]}")
        ran = nbformat.read(part if part.is_file() else notebook, as_version=4)
        error = error or _cut_short(ran)
        used = declared(notebook) | values
        seeds = ", ".join(f"{name} = {used[name]}" for name in used if "seed" in name)
        about = {**facts, "parameters": values, "seeds": seeds, "seconds": round(time.perf_counter() - started, 1)}
        about |= {"error": error, "slowest": _timings(ran)}
        ran.metadata["coseg"] = about
        write_text(out / f"{notebook.stem}.html", notebook_page(ran, notebook.stem, facts["profile"]))
        write_text(out / notebook.name, nbformat.writes(ran))
    finally:
        part.unlink(missing_ok=True)
    return about


def in_turn(some: Sequence[Path], jobs: int) -> tuple[list[Path], list[Path]]:
    """Those that run one by one, and those that run after them, `jobs` at a time, in the order in which they start."""
    if jobs == 1:
        return [], list(some)
    alone = [notebook for notebook in some if notebook.stem in TIMED]
    others = [notebook for notebook in some if notebook not in alone]
    return alone, sorted(others, key=lambda notebook: notebook.stem not in LONG)


def _share_of_cores(jobs: int) -> dict[str, str]:
    """The environment of a notebook that runs beside others: torch's threads, and what joblib counts as cores.

    `coseglib.evaluation.benchmark` and the CRF start workers by the latter: with threads alone they would take all.
    """
    share = str(max(1, cpu_count() // jobs))
    threads = os.environ.get("OMP_NUM_THREADS", share)
    return {"OMP_NUM_THREADS": threads, "LOKY_MAX_CPU_COUNT": share} if jobs > 1 else {}


def run_report(
    profile: str = "smoke",
    only: Sequence[str] = (),
    root: Path | None = None,
    notebooks: Path = NOTEBOOKS,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
    jobs: int = 1,
) -> list[str]:
    """Run the notebooks of a profile; write `root`/<profile>/index.html and summary.md. Returns who failed, by name.

    only  numbers or names; the others keep what an earlier run left, and the summary says of when
    jobs  notebooks at a time, which share the cores; those of TIMED run alone, before the others, then those of LONG
    Raises CosegError before anything runs: an unknown profile, notebook or parameter.
    """
    root = Path(root or reports_root()).expanduser().resolve()
    some = selected(only, notebooks)
    values = parameters(profile, some, notebooks)
    folder = root / profile
    for part in ("notebooks", "tables", "plots"):
        writable(folder / part, folder=True).mkdir(parents=True, exist_ok=True)
    facts = {"profile": profile, "date": datetime.date.today().isoformat(), "commit": commit()}
    beside_it = f", {jobs} notebooks at a time" if jobs > 1 else ""
    facts |= {"versions": package_versions(), "machine": machine() + beside_it}
    # Absolute paths: a kernel works in the notebook's folder, not in the caller's.
    environment = named_roots() | {"COSEG_REPORTS": str(root)}
    beside = environment | _share_of_cores(jobs)
    number = {notebook.stem: f"[{i}/{len(some)}] {notebook.stem}" for i, notebook in enumerate(some, start=1)}
    alone, others = in_turn(some, jobs)
    errors: dict[str, str] = {}
    told, kernels = threading.Lock(), Kernels()

    def run(notebook: Path) -> None:
        name = notebook.stem
        with told:
            say(f"{number[name]} …")
        own = environment if notebook in alone else beside
        about = run_notebook(notebook, values[name], folder / "notebooks", facts, own, kernels)
        with told:
            errors[name] = about["error"]
            say(f"{number[name]} {f'FAILED, {errors[name]}' if errors[name] else 'ok'}, {duration(about['seconds'])}")
            for file, text in pages(profile, folder, notebooks).items():
                write_text(folder / file, text)

    with contextlib.chdir(some[0].parent), ThreadPoolExecutor(jobs) as pool:
        asked: list[Future] = []
        try:
            for part in (*([notebook] for notebook in alone), others):
                asked += [pool.submit(run, notebook) for notebook in part]
                for future in asked:  # here, in the main thread, an interrupt arrives
                    future.result()  # raises what a run raised
        except BaseException:  # what waits is not to start, and what runs is to end
            pool.shutdown(wait=False, cancel_futures=True)
            kernels.end(asked)
            raise
    failed = [notebook.stem for notebook in some if errors[notebook.stem]]
    say(f"{len(some) - len(failed)} of {len(some)} notebooks ran; {folder / 'index.html'}, {folder / 'summary.md'}")
    return failed
