"""In what numbers to compute: bfloat16 where it is fast on the device that was chosen."""

import torch

AMPERE = (8, 0)  # compute capability of the first GPUs with bfloat16; older ones emulate it, slowly


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware, so that autocast is faster than fp32."""
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def precision_of(name: str, device: str | torch.device = "auto") -> str:
    """A Fabric precision: "auto" is bf16-mixed where the device has it in hardware, else 32-true.

    device  Fabric's accelerator or torch's device: "auto", "cpu", "cuda", "cuda:1", "mps", …
    """
    if name != "auto":
        return name
    kind = str(device).partition(":")[0]
    if kind in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        # not torch.cuda.is_bf16_supported(), which counts emulation
        fast = torch.cuda.get_device_capability(device if kind == "cuda" else None) >= AMPERE
    else:
        fast = kind in ("auto", "cpu") and cpu_has_bfloat16()
    return "bf16-mixed" if fast else "32-true"
