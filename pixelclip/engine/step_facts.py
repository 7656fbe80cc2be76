"""What a training step makes known, read from the GPU at once.

A host that asks its GPU for a number waits until the GPU has finished, and then the GPU waits for
the host. A step therefore asks once, for everything: what the processes tell each other, and the
scalars that the model puts into Detectron2's event storage.
"""

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor

from pixelclip.utils.distributed import all_gather_equal

Fact = Tensor | float


class DeferredScalars(EventStorage):
    """In the place of the event storage, within ``with DeferredScalars() as scalars``.

    Attributes:
        scalars: (name, value) in the order in which they were put; tensors stay where they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scalars: list[tuple[str, Fact]] = []

    def put_scalar(self, name: str, value: Any, smoothing_hint: bool = True) -> None:
        """Keep a scalar for :func:`share_facts`."""
        self.scalars.append((name, value))


def share_facts(
    facts: Mapping[str, Fact], deferred: DeferredScalars, device: torch.device
) -> list[dict[str, float]]:
    """The facts of each process, by rank; the deferred scalars go into the event storage.

    Every process must call it, with facts of the same names. They travel as float32.

    Args:
        facts: scalars by name; tensors are on the device.
        deferred: this process's, which are not shared.
        device: on which the processes' tensors travel.
    """
    shared = all_gather_equal(_stack(list(facts.values()), device))  # (processes, n)
    own = _stack([value for _, value in deferred.scalars], device)
    numbers = torch.cat([shared.flatten(), own]).cpu()  # here the host waits
    names = (name for name, _ in deferred.scalars)
    for name, number in zip(names, numbers[shared.numel() :].tolist(), strict=True):
        get_event_storage().put_scalar(name, number)
    by_rank = numbers[: shared.numel()].view(shared.shape).tolist()
    return [dict(zip(facts, row, strict=True)) for row in by_rank]


def _stack(facts: list[Fact], device: torch.device) -> Tensor:
    """(n,) float32; numbers are filled in, for a copy would wait."""
    filled = [
        fact.float() if isinstance(fact, Tensor) else torch.full((), fact, device=device)
        for fact in facts
    ]
    return torch.stack(filled) if filled else torch.empty(0, device=device)
