"""pyproject.toml, environment.yml and requirements.lock name the same packages."""

import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from coseglib.cli import doctor
from coseglib.core.paths import REPOSITORY

NOT_PYTHON = {"pip", "cxx-compiler", "make", "cython"}  # what conda gives besides Python itself
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


def _metadata() -> dict:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def _project(extra: str = "") -> dict[str, Requirement]:
    lines = _metadata()["dependencies"] + (_metadata()["optional-dependencies"][extra] if extra else [])
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def _locked() -> dict[str, list[Requirement]]:
    """Pins by name; a package may have several, for different Pythons."""
    text = (REPOSITORY / "requirements.lock").read_text().replace("\\\n", " ")
    pins: dict[str, list[Requirement]] = {}
    for line in text.splitlines():
        pin = Requirement(line.split("--hash")[0])
        pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def test_environment_yml_asks_for_what_pyproject_asks_for():
    dependencies = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    by_pip = next(d["pip"] for d in dependencies if isinstance(d, dict))
    assert {canonicalize_name(r.name): r.specifier for r in map(Requirement, by_pip)} == {
        name: r.specifier for name, r in _project().items()
    }
    by_conda = [d for d in dependencies if isinstance(d, str)]
    python, *others = (Requirement(d) for d in by_conda)
    assert python.specifier == Requirement(f"python{_metadata()['requires-python']}").specifier
    assert {r.name for r in others} == NOT_PYTHON


def test_the_dense_crf_is_an_extra_that_the_lock_and_environment_yml_can_build():
    extra = {name: r for name, r in _project("crf").items() if name not in _project()}
    assert set(extra) == {"cython", "pydensecrf2"}
    assert extra["cython"].specifier.contains("3.3") and not extra["cython"].specifier.contains("0.29.36")
    assert f"- cython{extra['cython'].specifier} " in (REPOSITORY / "environment.yml").read_text()
    assert f'--no-build-isolation "{extra["pydensecrf2"]}"' in (REPOSITORY / "postBuild").read_text()
    set_up = (REPOSITORY / ".ci" / "setup").read_text()
    assert "--no-build-isolation -r <(sed -n '/^pydensecrf2==/" in set_up and "setup: no dense CRF" in set_up


def test_onnx_is_an_extra_that_the_lock_has_and_environment_yml_and_the_readme_name():
    """The error that names them says what to install: the same two."""
    extra = {name: r for name, r in _project("onnx").items() if name not in _project()}
    assert set(extra) == {"onnx", "onnxruntime"} and set(extra) <= set(_locked())
    for file in ("environment.yml", "README.md"):
        assert "pip install onnxruntime onnx" in (REPOSITORY / file).read_text(encoding="utf-8"), file
    assert "--extra onnx" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def test_every_python_that_the_project_says_it_supports_is_one_that_doctor_and_set_up_take():
    wanted = Requirement(f"python{_metadata()['requires-python']}").specifier
    taken = [v for v in (f"3.{minor}" for minor in range(9, 20)) if wanted.contains(f"{v}.1")]
    assert tuple(taken) == PYTHONS == tuple(f"3.{m}" for m in range(doctor.PYTHONS[0][1], doctor.PYTHONS[1][1] + 1))
    assert "(3, 11) <= sys.version_info[:2] <= (3, 14)" in (REPOSITORY / ".ci" / "setup").read_text()


def test_every_dependency_in_environment_yml_has_a_reason_beside_it():
    lines = (REPOSITORY / "environment.yml").read_text().split("dependencies:", 1)[1].splitlines()
    entries = [line for line in lines if line.strip().startswith("- ") and line.strip() != "- pip:"]
    assert len(entries) == len(_project()) + len(NOT_PYTHON) + 1
    for entry in entries:
        assert re.fullmatch(r"\s+- \S+  # \S.{5,}", entry), entry


def test_the_lock_pins_every_package_of_pyproject_within_its_range():
    locked = _locked()
    for name, wanted in (_project("crf") | _project("onnx")).items():
        assert name in locked, name
        for pin in locked[name]:
            version = str(pin.specifier).removeprefix("==")
            assert wanted.specifier.contains(version), f"{pin} is not {wanted}"


def test_the_lock_covers_every_python_with_one_version_each():
    for name, pins in _locked().items():
        for python in PYTHONS:
            environment = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
            fitting = [p for p in pins if p.marker is None or p.marker.evaluate(environment)]
            assert len(fitting) <= 1, f"{name}: {fitting}"
            assert fitting or name not in _project("crf") | _project("onnx"), f"{name} for Python {python}"


def test_the_lock_holds_versions_and_hashes_and_nothing_else():
    pin = r"[a-z0-9][a-z0-9._-]*==[^\s;]+( ; [^\\]+)?"
    for line in (REPOSITORY / "requirements.lock").read_text().replace("\\\n", " ").splitlines():
        assert re.fullmatch(rf"{pin}(\s+--hash=sha256:[0-9a-f]{{64}})+\s*", line), line[:100]
        assert "://" not in line
