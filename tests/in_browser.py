"""Pages in a browser without a screen, for the tests of several rooms."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MEASURE = """<script>addEventListener("load", () => { const root = document.documentElement;
parent.postMessage(root.scrollWidth + " " + root.scrollHeight, "*"); });</script>"""
FRAME = """<iframe width="{width}" height="800" style="border: 0" src="{page}"></iframe>
<script>onmessage = (e) => document.body.setAttribute("data-size", e.data);</script>"""


def shown_in_browser(page: Path, folder: Path) -> str:
    """A page's elements, as HTML, when its scripts have run. The test is skipped where there is no Chromium."""
    browser = shutil.which("chromium") or pytest.skip("no chromium here")
    how = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"]
    how += [f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900", "--dump-dom", page.as_uri()]
    return subprocess.run([browser, *how], capture_output=True, text=True, timeout=120, check=True).stdout


def size_in_browser(page: Path, width: int, folder: Path) -> tuple[int, int]:
    """Width and height of what a page needs in a frame of 800 pixels' height, in pixels of CSS."""
    copy = page.with_name(f"measured_{page.name}")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    frame = folder / "frame.html"  # a window is at least 500 pixels wide
    frame.write_text(FRAME.format(width=width, page=copy.as_uri()))
    shown = shown_in_browser(frame, folder)
    copy.unlink()
    needed, height = re.search(r'data-size="(\d+) (\d+)"', shown).groups()
    return int(needed), int(height)
