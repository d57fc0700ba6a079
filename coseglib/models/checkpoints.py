"""Checkpoints: safetensors with a JSON card in the header. Tensors only: nothing in a file is ever executed."""

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from coseglib.answering.crf import POSTS, post_of
from coseglib.answering.second_look import LOOKS
from coseglib.answering.second_look import looks as looks_of
from coseglib.core.errors import CosegError
from coseglib.core.paths import CHECKPOINTS

FORMAT = "coseg-1"


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_tensors(path: str | Path, tensors: dict[str, torch.Tensor], header: dict) -> None:
    """safetensors, written beside its place and moved there: a reader sees the old file or the new one, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
            part,
            {"coseg": json.dumps(header, sort_keys=True)},
        )
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and header of a file of ours. Raises CosegError for a missing, damaged, foreign or newer file."""
    path = Path(path)
    if not path.is_file():
        raise CosegError(f"{path}: no such checkpoint; `coseg doctor` lists the shipped ones")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("coseg", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (safe_open is no mapping)
    except Exception as error:  # safetensors has an error class of its own, json another
        raise CosegError(f"{path}: not a readable safetensors file ({error}); fetch or train it again") from error
    if not isinstance(header, dict) or not str(header.get("format", "")).startswith("coseg-"):
        raise CosegError(f"{path}: no checkpoint of this project (no coseg header); give one that `coseg train` wrote")
    if header["format"] != FORMAT:
        raise CosegError(f"{path}: format {header['format']}, this version reads {FORMAT}; update the project")
    return tensors, header


def save_model(path: str | Path, model: torch.nn.Module, config: dict, dtype: torch.dtype | None = None) -> str:
    """Write a model that `build_model` made and the configuration that trained it. Returns the file's SHA-256.

    config  must hold method and backbone; origin, variant, input_size and options are taken from the model itself
    dtype   torch.float16 for shipping (matrices only: batch-norm variances leave fp16's range), None: as they are
    """
    tensors = dict(model.state_dict())
    if dtype is not None:
        tensors = {k: v.to(dtype) if v.is_floating_point() and v.ndim > 1 else v for k, v in tensors.items()}
    tensors = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    header = {
        **config,
        "format": FORMAT,
        "origin": model.backbone.origin,
        "variant": model.variant,
        "input_size": model.input_size,
        "options": model.options,
        **({"looks": model.looks} if looks_of(model) > 1 else {}),
        **({"post": model.post} if post_of(model) == "crf" and not hasattr(model, "classes") else {}),
    }
    write_tensors(path, tensors, header)
    return sha256(path)


def find(name_or_path: str | Path) -> Path:
    """A file as it is; a shipped checkpoint by its name ("ca-mobilenet_v2") in `data/checkpoints/`."""
    path = Path(name_or_path)
    if path.suffix == ".safetensors" or path.exists():
        return path
    shipped = CHECKPOINTS / f"{name_or_path}.safetensors"
    if not shipped.is_file():
        names = ", ".join(sorted(p.stem for p in CHECKPOINTS.glob("*.safetensors"))) or "none"
        raise CosegError(f"{name_or_path}: no such checkpoint; shipped: {names}; or give a .safetensors file")
    return shipped


def load_model(
    name_or_path: str | Path, expect: str | None = None, looks: int | None = None, post: str | None = None
) -> torch.nn.Module:
    """A trained model in evaluation mode, fp32, with `model.card`: the header, name, file, sha256, and, where the card
    beside the file has it, common_from (`coseglib.evaluation.shipping`).

    expect  the method that it must be of
    looks   how often it looks at a photograph (`coseglib.answering.second_look`); None: as its header says, else once
    post    how its maps become masks, "argmax" or "crf" (`coseglib.answering.crf`); None: as its header says, see `post_of`
    Raises CosegError: wrong checksum (against the card beside the file), another model, a newer format, a damaged file,
    looks that the model does not have.
    """
    from coseglib.models import build_model

    path = find(name_or_path)
    tensors, header = read_tensors(path)
    digest = sha256(path)
    card_file, beside = path.with_suffix(".json"), {}
    if card_file.is_file():
        beside = json.loads(card_file.read_text())
        stated = beside.get("sha256")
        if stated != digest:
            raise CosegError(
                f"{path}: SHA-256 {digest[:8]}…, its card {card_file.name} says {str(stated)[:8]}…; fetch it again"
            )
    missing = [key for key in ("method", "backbone", "variant", "input_size", "origin") if key not in header]
    if missing:
        raise CosegError(
            f"{path}: its header lacks {', '.join(missing)}; it is a training state or damaged: give model.safetensors"
        )
    if expect and header["method"] != expect:
        raise CosegError(f"{path}: holds a {header['method']} model, {expect} was asked for; give another checkpoint")
    model = build_model(
        header["method"],
        header["backbone"],
        header["variant"],
        header["input_size"],
        weights=None,
        origin=header["origin"],
        options=header.get("options"),
    )
    want = model.state_dict()
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    wrong = [
        k
        for k in want
        if not k.endswith("num_batches_tracked") and (k not in tensors or tensors[k].shape != want[k].shape)
    ]
    if wrong or set(tensors) - set(want):
        first = (wrong + sorted(set(tensors) - set(want)))[0]
        raise CosegError(f"{path}: its tensors do not fit {header['method']} on {header['backbone']} (first: {first})")
    model.load_state_dict(tensors, strict=False)
    looks = looks or header.get("looks", 1)
    if looks not in LOOKS or (looks > 1 and not hasattr(model, "looks")):
        raise CosegError(f"{path}: looks = {looks}: 1 or 2, and 2 for ca, fca and csa alone; leave it out")
    if looks > 1:
        model.looks = looks
    post = post or header.get("post", "argmax")
    if post not in POSTS:
        raise CosegError(f"{path}: post = {post}: one of {', '.join(POSTS)}")
    model.card = {**header, "looks": looks, "name": path.stem, "file": str(path), "sha256": digest}
    if "common_from" in beside:
        model.card["common_from"] = beside["common_from"]
    if not hasattr(model, "classes"):
        model.post = model.card["post"] = post
    return model.eval()
