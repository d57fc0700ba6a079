"""Checkpoints: safetensors with a JSON card in the header. Tensors only: nothing in a file is ever executed."""

import hashlib
import json
import os
from pathlib import Path

import safetensors.torch
import torch

from coseglib.core.errors import CosegError
from coseglib.core.files import atomic, read_json
from coseglib.core.paths import CHECKPOINTS, SCENES
from coseglib.models.backbones import fill, read_safetensors, sha256
from coseglib.models.contract import LOOKS, POSTS, Model
from coseglib.models.folding import fold
from coseglib.models.registry import build_model

__all__ = ["FORMAT", "find", "in_half", "load_model", "read_tensors", "save_model", "sha256", "write_tensors"]

FORMAT = "coseg-1"
STATED = ("method", "backbone", "variant", "input_size", "origin")  # what a model's header cannot do without


def _content(header: dict, tensors: dict[str, torch.Tensor]) -> str:
    """SHA-256 of the header and of every tensor: safetensors has no checksum of its own. ValueError for NaN."""
    total = hashlib.sha256(json.dumps(header, sort_keys=True, allow_nan=False).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def write_tensors(path: str | Path, tensors: dict[str, torch.Tensor], header: dict) -> str:
    """safetensors, there whole or not at all. Returns the file's SHA-256. Raises ValueError for NaN in the header."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = _content(header, tensors)
    stated = json.dumps({**header, "content": content}, sort_keys=True)  # one entry: the order of two changes each time
    data = safetensors.torch.save(tensors, {"coseg": stated})
    with atomic(path) as part, open(part, "wb") as file:  # not `save_file`, which lets nobody else read what it wrote
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict, str]:
    """Tensors, header and SHA-256 of a file of ours, of one reading."""
    if not path.is_file():
        raise CosegError(f"{path}: no such checkpoint; `coseg doctor` lists the shipped ones")
    tensors, stated, digest = read_safetensors(path)
    try:
        header = json.loads(stated.get("coseg", "null"))
    except ValueError as error:
        raise CosegError(f"{path}: its coseg header is damaged ({error}); fetch or train it again") from error
    if not isinstance(header, dict) or not str(header.get("format", "")).startswith("coseg-"):
        raise CosegError(f"{path}: no checkpoint of this project (no coseg header); give one that `coseg train` wrote")
    if header["format"] != FORMAT:
        raise CosegError(f"{path}: format {header['format']}, this version reads {FORMAT}; update the project")
    content = header.pop("content", None)  # older files have none
    if content is not None and content != _content(header, tensors):
        raise CosegError(f"{path}: damaged (its checksum is another one); fetch or train it again")
    return tensors, header, digest


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and header of a file of ours. Raises CosegError for a missing, damaged, foreign or newer file."""
    return _read(Path(path))[:2]


def in_half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices in half precision, for files; batch-norm variances, vectors, leave its range and stay as they are."""
    return {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in tensors.items()}


def save_model(path: str | Path, model: Model, config: dict, half: bool = False) -> str:
    """Write a model that `build_model` made and the configuration that trained it. Returns the file's SHA-256.

    config  must hold method and backbone; origin, variant, input_size and options are taken from the model itself
    half    `in_half`: half the size, for what ships
    """
    tensors = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    tensors = in_half(tensors) if half else tensors
    header = {**config, "format": FORMAT, "origin": model.backbone.origin, "variant": model.variant}
    header |= {"input_size": model.input_size, "options": dict(model.options)}
    if model.looks > 1:
        header["looks"] = model.looks
    if model.post != type(model).post:
        header["post"] = model.post
    return write_tensors(path, tensors, header)


def find(name_or_path: str | Path) -> Path:
    """A file as it is; a shipped checkpoint by its name ("ca-mobilenet_v2", "ca-scenes"); a run's folder."""
    path = Path(name_or_path)
    shipped = {p.stem: p for folder in (CHECKPOINTS, SCENES) for p in sorted(folder.glob("[!.]*.safetensors"))}
    if str(name_or_path) in shipped:  # whatever else is called so here; ./NAME means that
        return shipped[str(name_or_path)]
    if path.suffix == ".safetensors" or path.is_file():
        return path
    of_run = path / "model.safetensors"
    if of_run.is_file():
        return of_run
    names = ", ".join(shipped) or "none"
    raise CosegError(f"{name_or_path}: no such checkpoint; shipped: {names}; or give a .safetensors file")


def load_model(
    name_or_path: str | Path,
    expect: str | None = None,
    looks: int | None = None,
    post: str | None = None,
    precision: str = "auto",
    folded: bool = True,
) -> Model:
    """A trained model in evaluation mode, fp32, with `model.card`: the header, name, file, sha256, and, where the card
    beside the file has them, common_from (`coseglib.evaluation.shipping`) and withdrawn (`coseglib.evaluation.cards`).

    expect  the method that it must be of     looks, post  None: as its header or its training says, else its method
    precision  in which it is to answer, `model.precision`
    folded  with its batch norms in its convolutions (`coseglib.models.folding`); False: to train or save it
    Raises CosegError: wrong checksum (against the card beside the file), another model, a newer format, a damaged file,
    looks that the model does not have.
    """
    path = find(name_or_path)
    tensors, header, digest = _read(path)
    card_file, mend = path.with_suffix(".json"), "it is no card of this checkpoint: move it away"
    beside = read_json(card_file, mend) if card_file.exists() else {"sha256": digest}
    if "sha256" not in beside:
        raise CosegError(f"{card_file}: has no sha256; {mend}")
    if beside["sha256"] != digest:
        stated = f"its card {card_file.name} says {str(beside['sha256'])[:8]}…"
        raise CosegError(f"{path}: SHA-256 {digest[:8]}…, {stated}; fetch it again")
    if missing := [key for key in STATED if key not in header]:
        why = "it is a training state or damaged: give model.safetensors"
        raise CosegError(f"{path}: its header lacks {', '.join(missing)}; {why}")
    method, backbone, variant, input_size, origin = (header[key] for key in STATED)
    if expect and method != expect:
        raise CosegError(f"{path}: holds a {method} model, {expect} was asked for; give another checkpoint")
    model = build_model(method, backbone, variant, input_size, None, origin=origin, options=header.get("options"))
    if wrong := fill(model, tensors):
        raise CosegError(f"{path}: its tensors do not fit {method} on {backbone} (first: {wrong})")
    looks = looks or header.get("looks", 1)
    if looks not in LOOKS or (looks > 1 and model.kind != "context"):
        raise CosegError(f"{path}: looks = {looks}: 1 or 2, and 2 for ca, fca and csa alone; leave it out")
    learned = header.get("training", {}) if model.online else {}
    post = post or header.get("post") or learned.get("post") or model.post
    if post not in POSTS:
        raise CosegError(f"{path}: post = {post}: one of {', '.join(POSTS)}")
    model.looks, model.post = looks, post
    stated = {key: beside[key] for key in ("common_from", "withdrawn") if key in beside}
    about = {"looks": looks, "post": post, "name": path.stem, "file": str(path), "sha256": digest}
    model.card = {**header, **about, **stated}
    model.precision = model.precision if model.online else precision
    if not folded or model.online:  # online: the very maps it learned
        return model.eval()
    return fold(model, torch.bfloat16 if header.get("precision") == "bf16-mixed" else torch.float32)
