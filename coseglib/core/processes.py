"""One process or many: how a job is launched on Lightning Fabric, for training and inference alike."""

import os
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from coseglib.core.errors import CosegError


def launch(
    devices: int | str = 1,
    num_nodes: int = 1,
    accelerator: str = "auto",
    precision: str = "32-true",
    some_unused: bool = False,
) -> Fabric:
    """A launched Fabric: in one process, in `devices` that it starts itself, or in those that torchrun has started.

    devices      processes a machine: GPUs, or on CPUs over gloo; "auto": all GPUs, or 1
    some_unused  whether some weights may go without a gradient in some steps
    """
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


def device_name(device: torch.device, processes: int = 1) -> str:
    """What a result was computed on, for its record: the GPU's name, or "1 × CPU, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processes} × CPU, {torch.get_num_threads()} threads"
