"""Copies from the host to a device for which neither waits."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; CUDA copies it while the host goes on.

    It does so from pinned memory only, where the tensor is put first if it is elsewhere.
    """
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
