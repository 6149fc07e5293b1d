"""The machine under a measurement."""

import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

GIB = 2**30


def machine() -> dict[str, Any]:
    """Hardware and what PyTorch uses of it; nothing is read from environment variables."""
    accelerator = torch.accelerator.current_accelerator()
    devices = torch.accelerator.device_count()
    return {
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "accelerator": f"{devices} × {accelerator.type}" if accelerator else None,
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
    }


def _processor() -> str:
    """The processor's name, which Linux keeps in a file."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
