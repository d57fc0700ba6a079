"""`coseg doctor`: what works here, a line for each part, whether photographs can be segmented; a folder's faults."""

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from coseglib.cli import options
from coseglib.cli.options import argument, flag
from coseglib.core.errors import CosegError
from coseglib.core.paths import CHECKPOINTS, DEFAULT_CHECKPOINT, OWN, SCENES, data_root, weights_root

PYTHONS = ((3, 11), (3, 14))  # the first and the last that requirements.lock has packages for
SHOWN = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "pillow", "papermill")


class Finding(NamedTuple):
    """A part, whether it works, what is to be said, and whether segmenting photographs needs it."""

    part: str
    good: bool
    text: str
    needed: bool = False

    @property
    def word(self) -> str:
        return "OK" if self.good else "FAIL" if self.needed else "--"


Folder = argument(Path | None, "Photographs of your own, with or without masks.", "DIR")
SelfTest = flag("--self-test", "Segment drawn scenes with every shipped checkpoint, and compare with their cards.")


def doctor(
    folder: Folder = None, self_test: SelfTest = False, data: options.Data = None, weights: options.Weights = None
) -> None:
    """Say what works here: a line for each part. Or, of a folder of your own, all that is wrong with it.

    OK: it works. --: it does not, and photographs are segmented without it; the line says what it is for. FAIL: they
    cannot be segmented, and the exit code is 1.

    Of a folder every photograph and mask is read, before anything runs on them. FAIL: it would be left out, refused or
    scored wrongly, and the exit code is 1. --: worth knowing. At the end stands what can be done with the folder.

    Example:
      coseg doctor
      coseg doctor photos/
      coseg doctor --self-test
      coseg doctor --data /data/sets --weights /data/weights
    """
    if folder is not None:
        options.refuse("asks about this installation, DIR about photographs", self_test=self_test)
        from coseglib.segmenting.check import check_folder

        found = check_folder(folder)
        for line in (*found.remarks, *found.advice):
            typer.echo(line)
        good = found.good
    elif self_test:
        from coseglib.evaluation.self_test import self_test as compare

        good = compare(options.say_at_once)
    else:
        good = examine(print)
    if not good:
        raise typer.Exit(1)


def python() -> Finding:
    """One of those that the packages come for."""
    good = PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]
    text = f"{platform.python_version()}, {sys.executable}"
    return Finding("Python", good, text if good else f"{text}; use 3.11 to 3.14 (make setup)", needed=True)


def packages() -> Finding:
    """What pyproject.toml names is installed, but for extras, and torch loads."""
    try:
        needed = [line for line in importlib.metadata.requires("coseglib") or () if "extra ==" not in line]
        found = {name: importlib.metadata.version(name) for name in (re.match(r"[\w.-]+", line)[0] for line in needed)}
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except importlib.metadata.PackageNotFoundError as error:
        return Finding("packages", False, f"{error.name} is missing; run make setup", needed=True)
    except Exception as error:  # a library that does not load raises OSError, a wrong pair RuntimeError
        return Finding("packages", False, f"torch does not load ({error}); run make setup", needed=True)
    shown = ", ".join(f"{name} {found[name]}" for name in SHOWN if name in found)
    return Finding("packages", True, f"all {len(found)}: {shown}, …", needed=True)


def crf() -> Finding:
    """A dense CRF of 8 × 8 pixels, two labels: the half that is likely foreground stays foreground."""
    try:
        import numpy as np
        import pydensecrf.densecrf as dcrf

        foreground = np.tile(np.float32([0.2] * 4 + [0.8] * 4), (8, 1))
        field = dcrf.DenseCRF2D(8, 8, 2)
        field.setUnaryEnergy(-np.log(np.stack([1 - foreground, foreground]).reshape(2, 64)))
        field.addPairwiseGaussian(sxy=1, compat=3)
        labels = np.argmax(field.inference(3), axis=0).reshape(8, 8)
    except Exception as error:  # a missing or half-built extension fails in many ways
        why = f"pydensecrf does not work ({type(error).__name__}: {error})"
        costs = "without it masks are made by argmax, their contours less exact"
        return Finding("CRF", False, f"{why}; {costs}; for it a C++ compiler and make -B setup")
    if not (labels == (foreground > 0.5)).all():  # worse than none: masks would be wrong
        return Finding("CRF", False, "pydensecrf gives a wrong answer on 8 × 8 pixels; run make -B setup", needed=True)
    return Finding("CRF", True, f"pydensecrf2 {importlib.metadata.version('pydensecrf2')}")


def onnx() -> Finding:
    """What reads and runs saliency networks of the user's."""
    try:
        found = [f"{name} {importlib.metadata.version(name)}" for name in ("onnxruntime", "onnx")]
    except importlib.metadata.PackageNotFoundError as error:
        why = f"{error.name} is not installed (needed for onnx:FILE, saliency networks of one's own)"
        return Finding("ONNX", False, f"{why}: pip install onnxruntime onnx")
    return Finding("ONNX", True, ", ".join(found))


def gpu() -> Finding:
    """Which GPU there is, or what the CPU has."""
    import torch

    from coseglib.core.devices import cpu_has_bfloat16

    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    has = f"CPU, {os.cpu_count()} cores, bfloat16 in hardware: {'yes' if cpu_has_bfloat16() else 'no'}"
    costs = "needed to train in minutes; the profiles for a CPU are smoke and cpu"
    return Finding("GPU", bool(names), names or f"not here ({costs}); {has}")


def data_sets() -> Iterator[Finding]:
    """A line for each set that is here, one for all others; of a folder that was named one each, which says why."""
    from coseglib.data import available

    lacking = []
    try:
        folder = data_root()
        for name, found in available(folder).items():
            if isinstance(found, str):
                yield Finding(f"data set {name}", True, found)
            elif folder != OWN:
                yield Finding(f"data set {name}", False, f"not here (needed to train or to score on it): {found}")
            else:
                lacking.append(name)
    except CosegError as error:
        yield Finding("data sets", False, f"not here (needed to train or to score on them): {error}")
    if lacking:
        get = "data/README.md says how to get them, --data or COSEG_DATA where they are"
        yield Finding("data sets", False, f"not here (needed to train or to score on): {', '.join(lacking)}; {get}")


def weights() -> Finding:
    """ImageNet weights to start training from: in COSEG_WEIGHTS, or fetched earlier by torchvision."""
    import torch

    from coseglib.models.backbones import BACKBONES

    try:
        folder = weights_root()
    except CosegError as error:
        return Finding("weights", False, f"not here (needed to train): {error}")
    places = filter(os.path.isdir, (folder or "", os.path.join(torch.hub.get_dir(), "checkpoints")))
    files = [file for place in places for file in os.listdir(place)]
    names = [name for name in BACKBONES if any(f.startswith((f"{name}.", f"{name}-")) for f in files)]
    if names:
        return Finding("weights", True, ", ".join(names) + (f" in {folder}" if folder else ""))
    get = "fetched where there is a network; without one set COSEG_WEIGHTS"
    return Finding("weights", False, f"not here (needed to train, and for several classes): {get}")


def checkpoints() -> Iterator[Finding]:
    """Each shipped checkpoint is loaded, which compares its checksum with its card's."""
    from coseglib.models.checkpoints import load_model

    homes, there = ((CHECKPOINTS, "photographs"), (SCENES, "drawn scenes")), {DEFAULT_CHECKPOINT: ""}
    there |= {path.stem: of for folder, of in homes for path in folder.glob("[!.]*.safetensors")}
    for name, of in sorted(there.items()):
        try:
            card = load_model(name).card
            good, text = True, f"{card['method']} on {card['backbone']}, of {of}, {card['sha256'][:8]}"
        except CosegError as error:
            good, text = False, str(error)
        yield Finding(f"checkpoint {name}", good, text, needed=name == DEFAULT_CHECKPOINT)


def findings() -> Iterator[Finding]:
    """All of them, one after the other; without working packages nothing after them can be asked."""
    yield python()
    yield (first := packages())
    if first.good:
        yield crf()
        yield onnx()
        yield gpu()
        yield from data_sets()
        yield weights()
        yield from checkpoints()


def examine(say: Callable[[str], None]) -> bool:
    """Say a line for each part; True where photographs can be segmented."""
    lacking = []
    for finding in findings():
        say(f"{finding.word:4} {finding.part}: {finding.text}")
        lacking += [finding.part] if finding.word == "FAIL" else []
    well = "all is well: photographs can be segmented; what is marked -- is not needed for it"
    say(f"photographs cannot be segmented, for lack of: {', '.join(lacking)}" if lacking else well)
    return not lacking
