"""Where benchmarks are written down: `reports/benchmarks.md`, one section each, replaced when it is run again."""

import datetime
import os
import platform
import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import torch

from coseglib.core.paths import REPORTS

HEAD = """# Benchmarks

Each figure stands beside a stated alternative, measured in the same run on the same machine. A section is replaced when
its command is run again.
"""


def processor() -> str:
    """The CPU's name as the system gives it, and how many of them there are."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return f"{found[1] if found else platform.processor() or platform.machine()}, {os.cpu_count()} processors"


def record(title: str, script: str, rows: list[dict], text: str = "", file: Path = REPORTS / "benchmarks.md") -> str:
    """Write one section: title, the command that was given, date, machine, versions, the table and the text below it.

    script  as called from the repository's root ("benchmarks/precision.py"); the command's options are this process's
    Returns the section, which is printed as well.
    """
    options = shlex.join(sys.argv[1:])
    lines = [
        f"## {title}\n",
        f"`python {script}{' ' if options else ''}{options}`, {datetime.date.today().isoformat()}, {processor()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, threads {torch.get_num_threads()}\n",
        pd.DataFrame(rows).to_markdown(index=False) + "\n",
    ]
    section = "\n".join(lines + ([text.strip() + "\n"] if text else []))
    before = file.read_text() if file.exists() else HEAD
    # Sections begin with "## "; the first part is what stands above them all.
    parts = re.split(r"^(?=## )", before, flags=re.MULTILINE)
    places = [i for i, part in enumerate(parts) if part.startswith(f"## {title}\n")]
    if places:
        parts[places[0]] = section
    else:
        parts.append(section)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.write_text("\n".join(p.strip() + "\n" for p in parts))
    os.replace(part, file)
    print(section, flush=True)
    return section
