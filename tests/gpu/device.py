"""The device of these tests: a CUDA device, or, to try them out, the CPU (OPRD_GPU_DEVICE=cpu)."""

import os

import pytest
import torch

DEVICE = torch.device(os.environ.get("OPRD_GPU_DEVICE", "cuda"))

on_the_device = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"
    ),
]
of_cuda_alone = pytest.mark.skipif(DEVICE.type != "cuda", reason="of a CUDA device alone")
