"""Sums over the processes of a distributed run."""

import torch
import torch.distributed
from detectron2.utils import comm
from torch import Tensor


@torch.no_grad()
def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of ``tensor`` over all processes; the tensor itself when there is only one.

    Every process must call it, with the same shape and dtype. No gradient flows through it.
    """
    if comm.get_world_size() == 1:
        return tensor
    total = tensor.clone()
    torch.distributed.all_reduce(total)
    return total
