"""One optimizer step: mixed precision, and batches in several parts."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import isfinite
from statistics import mean
from typing import Any, get_args

import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pixelclip.data.sa1b_files import Corruption
from pixelclip.engine.non_finite import Batch, NonFiniteError
from pixelclip.engine.step_facts import DeferredScalars, Fact, share_facts
from pixelclip.utils.distributed import StepBarrier

# A scale of gradients that was too large is halved with each skipped step, and a few are enough.
_MAX_SKIPPED_IN_A_ROW = 20

# Facts that the processes share, next to losses and the numbers of corrupt records.
_GRADIENT_IS_FINITE, _IS_ASKED_TO_STOP = "gradient is finite", "is asked to stop"
_DATA_TIME = "data time"


class TrainingStep(SimpleTrainer):
    """Detectron2's simple trainer, which can compute in 16 bits and take a batch in parts.

    (Detectron2's own AMPTrainer knows float16 on GPUs only in version 0.5, and no parts.)

    With several accumulation steps a batch goes through the model part by part, and the optimizer
    steps once. Masks are clustered among those of one part, on all processes; the teacher moves
    once, before the first part; the loss is the mean over the valid pixels of the whole batch.
    Where the clustering agrees, so does the gradient with that of the undivided batch.

    Args:
        model: a PixelCLIP model, or one wrapped for distributed training.
        data_loader: yields batches, lists of dicts.
        optimizer: steps once per batch.
        precision: of autocast: "float16" (with scaled gradients), "bfloat16", or None for the
            parameters' own.
        accumulation_steps: number of parts of a batch.
        time_limit: seconds that a process waits for the others' batches.

    Attributes:
        is_asked_to_stop: whether this process was, by a signal.
        must_stop: whether any process was, when the latest step's facts were shared.
        skipped: number of corrupt records that all processes have skipped then, by kind.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        precision: str | None = None,
        accumulation_steps: int = 1,
        time_limit: float = 1800.0,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self._pixelclip: Any = model.module if isinstance(model, DistributedDataParallel) else model
        self._device_type = str(self._pixelclip.device.type)
        # "float16" is torch.float16
        self._precision = None if precision is None else getattr(torch, precision)
        self._accumulation_steps = accumulation_steps
        self.grad_scaler = _build_grad_scaler(self._device_type, precision == "float16")
        self._barrier = StepBarrier(time_limit)
        self._scale = 0.0  # of the gradients in the step before
        self._skipped_in_a_row = 0
        self.is_asked_to_stop = self.must_stop = False
        self.skipped: Counter[str] = Counter()

    def run_step(self) -> None:
        """Take a batch and step.

        With float16, a gradient that overflows is not an error: the step is skipped and the next
        ones are scaled less.

        Raises:
            NonFiniteError: in every process: the loss is infinite or NaN in one of them, or the
                gradient is; with float16, the gradient stayed so for many steps.
            RuntimeError: another process has no batch within the time limit.
        """
        assert self.model.training, "The model was changed to eval mode."
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        # Loading, evaluating and writing files differ between processes most, and here it is known
        # who is missing.
        self._barrier.wait(self.iter + 1)
        with DeferredScalars() as scalars:
            losses = self.compute_gradients(batch)
        facts = {**losses, **self._facts(data_time)}
        self._learn(batch, list(losses), share_facts(facts, scalars, self._pixelclip.device))
        # Before the step, whose hook clips the gradient: a fused optimizer would unscale it last.
        self.grad_scaler.unscale_(self.optimizer)
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def compute_gradients(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a batch; their gradients, scaled with float16, are the parameters'."""
        self.optimizer.zero_grad()
        if self._accumulation_steps == 1:
            return self._backward(self._forward(batch))
        return self._accumulate(_split(batch, self._accumulation_steps))

    def _facts(self, data_time: float) -> dict[str, Fact]:
        """What this process tells the others, apart from losses."""
        skipped = getattr(self.data_loader, "skipped", Counter())
        return {
            _GRADIENT_IS_FINITE: self._gradient_is_finite(),
            _IS_ASKED_TO_STOP: float(self.is_asked_to_stop),
            _DATA_TIME: data_time,
            **{kind: float(skipped[kind]) for kind in get_args(Corruption)},
        }

    def _learn(self, batch: Batch, losses: Sequence[str], facts: list[dict[str, float]]) -> None:
        """Refuse non-finite losses and gradients, record the others; facts are by rank."""
        self.must_stop = any(own[_IS_ASKED_TO_STOP] for own in facts)
        counts = {kind: sum(own[kind] for own in facts) for kind in get_args(Corruption)}
        self.skipped = +Counter({kind: int(count) for kind, count in counts.items()})
        by_rank = [{name: own[name] for name in losses} for own in facts]
        # Losses differ between processes. One that stopped alone would leave the others waiting.
        bad = {r: own for r, own in enumerate(by_rank) if not all(map(isfinite, own.values()))}
        if bad:
            raise NonFiniteError(f"{_describe(bad)}{self._hint_at_float16()}", batch)
        if self.grad_scaler.is_enabled():
            self._count_skipped_steps(batch)
        elif not all(own[_GRADIENT_IS_FINITE] for own in facts):
            problem = f"the loss is finite, {by_rank[comm.get_rank()]}, and its gradient is not"
            raise NonFiniteError(problem, batch)
        if comm.is_main_process():
            _record(by_rank, max(own[_DATA_TIME] for own in facts))

    def _gradient_is_finite(self) -> Tensor:
        """Whether the gradient is, as a scalar bool."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        return torch.stack(torch._foreach_norm(gradients)).isfinite().all()

    def _count_skipped_steps(self, batch: Batch) -> None:
        """Note whether the step before was left out: then the scale has fallen."""
        scale = self.grad_scaler.get_scale()
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if scale < self._scale else 0
        self._scale = scale
        storage = get_event_storage()
        storage.put_scalar("amp/gradient_scale", scale, smoothing_hint=False)
        storage.put_scalar("amp/skipped_in_a_row", self._skipped_in_a_row, smoothing_hint=False)
        if self._skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteError(
                f"the gradient was infinite or NaN in the last {self._skipped_in_a_row} steps, "
                f"down to a scale of {scale:g}, so that nothing was learned"
                f"{self._hint_at_float16()}",
                batch,
            )

    def _hint_at_float16(self) -> str:
        is_float16 = self._precision == torch.float16
        return " (float16 ends at 65504; try SOLVER.AMP.PRECISION bfloat16)" if is_float16 else ""

    def _forward(self, batch: Batch, **options: bool) -> Any:
        with torch.autocast(self._device_type, self._precision, self._precision is not None):
            return self.model(batch, **options)

    def _backward(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the losses' gradients to the parameters'; returns the losses without graph."""
        total = torch.stack(list(losses.values())).sum()
        self.grad_scaler.scale(total).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def _accumulate(self, parts: Sequence[Batch]) -> dict[str, Tensor]:
        """Losses and gradients of the whole batch, each part weighted by its valid pixels."""
        weights: list[Tensor] = []
        reference = torch.ones(())
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(parts):
            with self._within_batch(index, len(parts)):
                losses, pixel_count = self._forward(part, with_pixel_count=True)
                pixels = pixel_count.float()
                if index == 0:
                    reference = pixels.clamp(min=1)
                # Of the order of one: float16's range is small.
                weights.append(pixels / reference)
                weighted = {name: loss * weights[-1] for name, loss in losses.items()}
                for name, loss in self._backward(weighted).items():
                    sums[name] = sums[name] + loss if name in sums else loss
        total = torch.stack(weights).sum()
        total = torch.where(total > 0, total, 1.0)  # without any mask, all of it is zero
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, 1 / total)
        return {name: loss / total for name, loss in sums.items()}

    @contextmanager
    def _within_batch(self, index: int, number: int) -> Iterator[None]:
        """The teacher moves in the first part, and processes exchange gradients in the last."""
        with ExitStack() as stack:
            if index > 0:
                stack.enter_context(self._pixelclip.teacher.held())
            if index < number - 1 and isinstance(self.model, DistributedDataParallel):
                stack.enter_context(self.model.no_sync())
            yield

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds: optimizer and gradient scale."""
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned, also of a training in another precision."""
        super().load_state_dict(state_dict)
        if self.grad_scaler.is_enabled() and state_dict.get("grad_scaler"):
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])


def _split(batch: Batch, number: int) -> list[Batch]:
    size = len(batch) // number
    return [batch[start : start + size] for start in range(0, number * size, size)]


def _record(losses_by_rank: list[dict[str, float]], data_time: float) -> None:
    """Put what Detectron2's trainer does into the event storage: means, and the longest wait."""
    storage = get_event_storage()
    storage.put_scalar("data_time", data_time)
    means = {name: mean(own[name] for own in losses_by_rank) for name in losses_by_rank[0]}
    storage.put_scalar("total_loss", sum(means.values()))
    if len(means) > 1:
        storage.put_scalars(**means)


def _describe(losses_by_rank: dict[int, dict[str, float]]) -> str:
    if comm.get_world_size() == 1:
        return f"the loss is {losses_by_rank[0]}"
    return "the loss is " + ", ".join(f"{own} in rank {r}" for r, own in losses_by_rank.items())


def _build_grad_scaler(device_type: str, enabled: bool) -> Any:
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device_type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)  # before torch 2.3
