"""Where and in what numbers a job computes: one process, or many on Lightning Fabric, bfloat16 where it is fast."""

import ctypes
import logging
import os
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path

import torch

from coseglib.core.errors import CosegError


def launch(devices: int | str = 1, num_nodes=1, accelerator="auto", precision="32-true", some_unused=False):
    """A launched Fabric: in one process, in `devices` that it starts itself, or in those that torchrun has started.

    devices      processes a machine: GPUs, or on CPUs over gloo; "auto": all GPUs, or 1
    some_unused  whether some weights may go without a gradient in some steps
    """
    from lightning_fabric import Fabric  # seconds, which only a job has to wait
    from lightning_fabric.strategies import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the precision is said by whoever launches

    if "TORCHELASTIC_RUN_ID" in os.environ:  # under torchrun, which has counted the processes already
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    if devices == "auto":
        devices = max(1, torch.cuda.device_count()) if accelerator != "cpu" else 1
    alone = num_nodes == 1 and str(devices) == "1"
    # Where the processes meet only after a whole pass, those that are ready first wait for the others, however long.
    strategy = "auto" if alone else DDPStrategy(timeout=timedelta(days=30), find_unused_parameters=some_unused)
    where = {"accelerator": accelerator, "devices": devices, "num_nodes": num_nodes}
    try:
        fabric = Fabric(strategy=strategy, precision=precision, **where)
    except Exception as error:  # Fabric's own, ValueError, or torch's, by what it is that is not there
        raise CosegError(f"--accelerator {accelerator}: {error}; auto and cpu work everywhere") from error
    fabric.launch()
    return fabric


class Alone:
    """One process on one device, with what a launched Fabric has to divide work: importing Fabric takes 2 s."""

    global_rank = local_rank = 0
    world_size = 1

    def __init__(self, device: torch.device):
        self.device = device

    def barrier(self) -> None:
        pass

    def broadcast(self, value):
        return value

    def all_reduce(self, value, reduce_op: str = "mean"):
        return value


def device_of(accelerator: str = "auto") -> torch.device:
    """cpu, cuda or mps; "auto": the fastest that is here. Raises CosegError for one that is not."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = next(name for name in here if here[name]) if accelerator == "auto" else accelerator
    if not here.get(name):
        raise CosegError(f"--accelerator {accelerator}: not here; auto and cpu work everywhere")
    return torch.device(name)


def sharing(devices: int | str = 1, num_nodes: int = 1, accelerator: str = "auto"):
    """What divides work among processes, of `launch`'s arguments: a launched Fabric, or `Alone`."""
    if "TORCHELASTIC_RUN_ID" in os.environ or num_nodes > 1 or str(devices) != "1":
        return launch(devices, num_nodes, accelerator)
    return Alone(device_of(accelerator))


def device_name(device: torch.device, processes: int = 1) -> str:
    """What a result was computed on, for its record: the GPU's name, or "1 × CPU, 2 threads"."""
    cpus = f"{processes} × CPU, {torch.get_num_threads()} threads"
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpus


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware, so that autocast is faster than fp32."""
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


@cache
def _malloc_trim():
    """glibc's, or None: other C libraries have none."""
    with suppress(OSError, AttributeError, TypeError):
        return ctypes.CDLL(None).malloc_trim
    return None


def give_back_memory() -> None:
    """What is free goes back to the system, where the C library can: glibc keeps it, more with every thousand images,
    since maps of several sizes that come and go leave holes between what stays."""
    if trim := _malloc_trim():
        trim(0)


def precision_of(name: str, device: str | torch.device = "auto") -> str:
    """A Fabric precision: "auto" is bf16-mixed where the device has it in hardware, else 32-true.

    device  Fabric's accelerator or torch's device: "auto", "cpu", "cuda", "cuda:1", "mps", …
    """
    if name != "auto":
        return name
    kind = str(device).partition(":")[0]
    if kind in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        # not torch.cuda.is_bf16_supported(): GPUs before Ampere (8.0) emulate it, slowly
        fast = torch.cuda.get_device_capability(device if kind == "cuda" else None) >= (8, 0)
    else:
        fast = kind in ("auto", "cpu") and cpu_has_bfloat16()
    return "bf16-mixed" if fast else "32-true"
