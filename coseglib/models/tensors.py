"""A safetensors file read once: its tensors, what its header says, and its checksum. Nothing in it is ever executed."""

import hashlib
import json
from pathlib import Path

import safetensors.torch
from torch import Tensor

from coseglib.core.errors import CosegError


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file."""
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
