"""The explorer in a real browser: JupyterLab on this machine, Chromium without a screen, a hand on the mouse."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from coseglib.core.paths import NOTEBOOKS, REPOSITORY

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="Chromium or chromedriver is not installed: apt-get install chromium chromium-driver",
)

from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402 (only where selenium is)
from selenium.webdriver import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

PATIENCE = 120  # seconds for one thing to appear: machines that do other things besides are slow
# All that can be read of the elements of a selector, at one moment: widgets may replace them between two questions.
TEXT = """
return Array.from(document.querySelectorAll(arguments[0]))
  .filter(element => element.checkVisibility()).map(element => element.innerText).join(' ');
"""
# Every picture of the page: how large it is, and the mean of its red, green and blue.
READ = """
return Array.from(document.querySelectorAll('.coseg-stage img')).map(img => {
  const canvas = document.createElement('canvas');
  if (!img.complete || !img.naturalWidth) return [0, 0, 0, 0];
  canvas.width = img.naturalWidth; canvas.height = img.naturalHeight;
  const pen = canvas.getContext('2d');
  pen.drawImage(img, 0, 0);
  const data = pen.getImageData(0, 0, canvas.width, canvas.height).data, sums = [0, 0, 0];
  for (let i = 0; i < data.length; i += 4) for (let c = 0; c < 3; c++) sums[c] += data[i + c];
  return [canvas.width, ...sums.map(s => s / (canvas.width * canvas.height))];
});
"""
# The column and the row of the cell that is marked.
CELL = """
const cell = document.querySelector('.coseg-stage .coseg-cell rect'), [,, width, height] =
  (cell?.closest('svg').getAttribute('viewBox') ?? '').split(' ');
return cell && [Math.round(cell.getAttribute('x') * 14 / width), Math.round(cell.getAttribute('y') * 14 / height)];
"""


def ended(process: psutil.Process) -> None:
    """A process and all that it started: asked to end, then made to."""
    try:
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        psutil.wait_procs([process], timeout=10)
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab of its own, with a copy of the notebook: nothing of the user's is read or written."""
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    shutil.copy(NOTEBOOKS / "12_explorer.ipynb", work)
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    own = {
        "HOME": home,
        "IPYTHONDIR": home / "ipython",
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "COSEG_REPORTS": tmp_path / "reports",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH")))),
    }
    environment = {k: v for k, v in os.environ.items() if k != "COSEG_DATA"} | {k: str(v) for k, v in own.items()}
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": work,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": token,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", *(f"--{k}={v}" for k, v in options.items())]
    log = tmp_path / "lab.log"
    with open(log, "wb") as file:
        server = subprocess.Popen(command, cwd=work, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        address, limit = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{address}/api?token={token}", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < limit, log.read_text(errors="replace")[-2000:]
                time.sleep(0.2)
        yield f"{address}/lab/tree/12_explorer.ipynb?token={token}"
    finally:
        ended(psutil.Process(server.pid))
        server.wait()


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """Chromium without a window, with a folder of its own."""
    monkeypatch.setenv("SE_OFFLINE", "true")  # selenium is to fetch nothing
    monkeypatch.setenv("SE_AVOID_STATS", "true")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "window-size=1400,1000", f"user-data-dir={tmp_path / 'chromium'}", "disable-gpu"):
        options.add_argument(f"--{argument}")
    for argument in (
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-dev-shm-usage",
    ):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:  # as in a container: Chromium's own sandbox refuses to run as root
        options.add_argument("--no-sandbox")
    service = webdriver.ChromeService(DRIVER)
    driver = None
    try:
        driver = webdriver.Chrome(options=options, service=service)
        driver.set_page_load_timeout(PATIENCE)
        yield driver
    finally:
        family = psutil.Process(service.process.pid) if service.process and service.process.poll() is None else None
        try:
            started = family.children(recursive=True) if family else []
            if driver:
                driver.quit()
        finally:
            if family:
                ended(family)
            for one in started:
                if one.is_running():
                    one.kill()


class Page:
    """What a person does with the notebook's page, and what there is to see."""

    def __init__(self, driver):
        self.driver = driver

    def until(self, true, what: str):
        """What `true` gives, once it holds; an element that the page replaced meanwhile is looked for again."""
        stale = (StaleElementReferenceException,)
        return WebDriverWait(self.driver, PATIENCE, 0.1, ignored_exceptions=stale).until(lambda _: true(), what)

    def all(self, selector: str):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str):
        return self.until(lambda: next(iter(self.all(selector)), None), f"no {selector}")

    def seen(self, find, what: str):
        """The first of the elements found, scrolled into the window."""

        def shown():
            if found := find():
                self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found[0])
            return found[:1]

        return self.until(shown, what)[0]

    def click(self, find, what: str) -> None:
        self.until(lambda: self.seen(find, what).click() is None, what)

    def open(self, address: str) -> None:
        self.driver.get(address)
        self.one(".jp-Notebook .jp-Cell")
        self.until(lambda: "| Idle" in self.text("#jp-main-statusbar"), "no kernel")  # before it, Run asks for one

    def run_all(self) -> None:
        """By the menu, as a person does."""
        self.click(lambda: [e for e in self.all(".lm-MenuBar-item") if e.text == "Run"], "no menu Run")
        self.click(lambda: self.all(".lm-Menu-item[data-command='runmenu:run-all']"), "no Run All Cells")
        self.until(lambda: min((p[0] for p in self.pictures()), default=0) > 0, "no pictures")

    def pictures(self) -> list[list[float]]:
        return self.driver.execute_script(READ)

    def settle(self) -> None:
        """Until all is drawn, by the kernel and by the browser."""
        self.until(lambda: re.search(r"drawn in [\d.]+ s$", self.text(".coseg-status")), "it is still computed")
        self.until(lambda: min(p[0] for p in self.pictures()) > 0, "it is still drawn")

    def brightness(self) -> list[float]:
        return [sum(p[1:]) / 3 for p in self.pictures()]

    def text(self, selector: str) -> str:
        return self.driver.execute_script(TEXT, selector)

    def press(self, label: str, within: str) -> None:
        self.click(lambda: [e for e in self.all(f"{within} button") if e.text == label], f"no button {label}")

    def drag_threshold(self, pixels: int) -> None:
        handle = self.seen(lambda: self.all(".coseg-explorer .coseg-threshold .noUi-handle"), "no threshold")
        ActionChains(self.driver).click_and_hold(handle).move_by_offset(pixels, 0).release().perform()

    def hand(self, number: int, *path: tuple[float, float], shift: bool = False) -> None:
        """A click, or a path with the button held; (y, x) in shares of the picture's height and width."""
        stage = self.seen(lambda: self.all(".coseg-stage")[number:], f"no picture {number}")
        height, width = stage.size["height"], stage.size["width"]
        places = [(round((x - 0.5) * width), round((y - 0.5) * height)) for y, x in path]
        chain = ActionChains(self.driver, duration=50)
        if shift:
            chain.key_down(Keys.SHIFT)
        chain.move_to_element_with_offset(stage, *places[0]).click_and_hold()
        for place in places[1:]:
            chain.move_to_element_with_offset(stage, *place)
        chain.release()
        if shift:
            chain.key_up(Keys.SHIFT)
        chain.perform()

    def marked(self, kind: str) -> int:
        """How many marks of a kind are drawn now."""
        return len(self.all(f".coseg-stage .coseg-{kind}"))

    def until_said(self, count: int, line: int, text: str, *near: int) -> None:
        """Until the list has so many lines, one with this text and numbers near these, and all is drawn."""

        def said() -> list[str]:
            return [row.text for row in self.all(".coseg-said .widget-html")]

        self.until(lambda: len(said()) == count and text in said()[line], f"{text} is not line {line} of {count}")
        self.settle()
        found = said()[line].partition(text)[2]
        assert list(map(int, re.findall(r"\d+", found))) == pytest.approx(near, abs=2 if len(near) > 1 else 0)
        assert not self.text(".coseg-trouble")

    def upload(self, *files: Path) -> None:
        """As by the file dialogue, which has no window here: its input is put where it can be reached."""
        self.driver.execute_script(
            "HTMLInputElement.prototype.click = function () {"
            "  this.value = ''; this.id = 'chosen'; document.body.append(this); }"
        )
        self.click(lambda: self.all(".coseg-explorer .widget-upload"), "nothing to upload with")
        self.one("#chosen").send_keys("\n".join(map(str, files)))


def test_a_person_moves_the_threshold_says_what_is_meant_and_uploads(lab, browser, tmp_path):
    page = Page(browser)
    page.open(lab)
    page.run_all()
    assert len(page.pictures()) == 6

    # A higher threshold marks less: fewer white pixels in the masks.
    page.press("Masks", ".coseg-views")
    page.until(lambda: "white" in page.text(".coseg-scale"), "the masks are not shown")
    page.until(lambda: all(p[1] == p[2] == p[3] for p in page.pictures()), "the masks are not grey")
    page.settle()
    before = page.brightness()
    page.drag_threshold(60)
    page.until(lambda: page.brightness() != before, "the masks do not change")
    page.settle()
    assert float(page.one(".coseg-threshold .widget-readout").text) > 0.5
    assert all(b <= a for a, b in zip(before, page.brightness(), strict=True))

    # A click asks what the place matches; the pictures become heat maps, and the cell is marked.
    page.press("what matches?", ".coseg-tools")
    page.hand(1, (0.4, 0.6))
    page.until(lambda: "cosine" in page.text(".coseg-scale"), "no matches after a click")
    cell = page.until(lambda: browser.execute_script(CELL), "no cell is marked")
    assert cell == [8, 5]  # .6 and .4 of 14 cells
    page.until(lambda: any(abs(p[1] - p[3]) > 3 for p in page.pictures()), "the pictures stay grey")
    page.until(lambda: page.text(".coseg-values").count("best") == 5, "the best matches are not named")
    page.settle()
    first = page.brightness()
    page.hand(1, (0.05, 0.05))
    page.until(lambda: page.brightness() != first, "another place, the same matches")

    # A partner less.
    page.settle()
    partner = page.seen(lambda: page.all(".coseg-card input[type='checkbox']"), "no partner to choose")
    partner.send_keys(Keys.SPACE)
    page.until(lambda: "5 of 6 photographs are partners" in page.text(".coseg-status"), "the partner is still one")

    # A click says this, with the shift key not this, a drawn box where; the browser marks it before the kernel answers.
    page.settle()
    page.press("Overlays", ".coseg-views")
    page.press("this", ".coseg-tools")
    page.until(lambda: "in colour: foreground" in page.text(".coseg-scale"), "no overlays")
    page.settle()
    plain = page.brightness()
    page.hand(0, (0.5, 0.4))
    assert page.marked("point") == 1
    page.until_said(1, 0, ": this, at", 51, 64)  # of 128 pixels
    assert page.marked("point") == 1 and page.brightness() != plain
    page.hand(0, (0.1, 0.9), shift=True)
    assert page.marked("not_point") == 1
    page.until_said(2, 1, ": not this, at", 115, 13)
    page.hand(2, (0.2, 0.25), (0.5, 0.5), (0.75, 0.8))
    assert page.marked("box") == 1
    page.until_said(3, 2, ": this, in", 32, 25, 103, 97)
    assert (page.marked("box"), page.marked("point"), page.marked("not_point")) == (1, 1, 1)

    # The brush paints in one mask; a thing said is taken back by its button, what was done last by undo.
    page.press("brush", ".coseg-tools")
    page.hand(3, (0.1, 0.1), (0.1, 0.5), (0.1, 0.9))
    page.until_said(4, 3, ": mask corrected,", 1)
    page.hand(3, (0.1, 0.5), shift=True)
    page.until_said(4, 3, ": mask corrected,", 2)
    page.press("undo", ".coseg-hand")
    page.until_said(4, 3, ": mask corrected,", 1)
    page.click(lambda: page.all(".coseg-said button"), "nothing to take back")
    page.until_said(3, 0, ": not this, at", 115, 13)
    page.press("clear", ".coseg-hand")
    page.until(lambda: not page.text(".coseg-said").strip(), "not cleared")
    page.settle()

    # The same typed; what is wrong is one line.
    page.press("this", ".coseg-tools")
    typed = page.seen(lambda: page.all(".coseg-explorer input[placeholder^='x,y']"), "nowhere to type")
    typed.send_keys("500,3", Keys.ENTER)
    page.until(lambda: "point 500,3 is outside the photograph's 128 × 128" in page.text(".coseg-trouble"), "no line")
    typed.clear()
    typed.send_keys("40,41", Keys.ENTER)
    page.until_said(1, 0, ": this, at", 40, 41)

    # What is no photograph is named in one line, and all stays; what is one is shown.
    broken, sound = tmp_path / "broken.jpg", tmp_path / "sound.png"
    broken.write_bytes(b"no picture")
    from PIL import Image

    Image.effect_noise((60, 40), 60).save(sound)
    page.upload(broken)
    page.until(lambda: "broken.jpg: no image format" in page.text(".coseg-trouble"), "the fault is not named")
    assert len(page.all(".coseg-stage")) == 6
    page.upload(broken, sound)
    page.until(lambda: len(page.all(".coseg-stage")) == 1, "the upload is not shown")
    page.until(lambda: re.search("1 of 1 photographs", page.text(".coseg-status")), "the upload is not segmented")
