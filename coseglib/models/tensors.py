"""A safetensors file read once: its tensors, what its header says, and its checksum. Nothing in it is ever executed."""

import hashlib
import json
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from coseglib.core.errors import CosegError


def sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """Tensors by name, the header's metadata, SHA-256. Raises CosegError where it is no safetensors file."""
    try:
        data = path.read_bytes()
        tensors = safetensors.torch.load(data)  # which has checked what the next line reads
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except Exception as error:  # safetensors has an error class of its own
        raise CosegError(f"{path}: not a readable safetensors file ({error}); get it again") from error
    return tensors, header.get("__metadata__", {}), hashlib.sha256(data).hexdigest()


def fill(module: nn.Module, tensors: dict[str, Tensor]) -> str:
    """Load tensors into a module, in float32. Returns the name of the first that does not fit, else ""."""
    want = {k: v.shape for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    have = {k: v.shape for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    if wrong := [k for k in (*want, *sorted(have)) if want.get(k) != have.get(k)]:
        return wrong[0]
    module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}, strict=False)
    return ""
