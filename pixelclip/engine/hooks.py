"""Hooks of the training loop."""

import json
import logging
import os
from collections import Counter
from contextlib import suppress

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from tqdm import tqdm

from pixelclip.engine.training_step import TrainingStep
from pixelclip.utils.atomic_write import write_text

logger = logging.getLogger(__name__)


class SeedEveryIteration(HookBase):
    """Make the model's random numbers (stochastic depth) a function of seed, iteration and process.

    A resumed run then draws the same ones as an uninterrupted run, without saved generator states.
    """

    def before_step(self) -> None:
        """Seed torch's generators on all devices."""
        key = (self.trainer.seed, self.trainer.iter, comm.get_rank())
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


class WarnOfCollapse(HookBase):
    """Warn where one cluster takes nearly all masks, batch after batch.

    It reads ``clusters/largest``, which the model records; see ``modeling/training_statistics.py``.
    """

    PERIOD = 100
    COLLAPSED_FRACTION = 0.8

    def after_step(self) -> None:
        """Look at the median of the last ``PERIOD`` iterations."""
        is_due = (self.trainer.iter + 1) % self.PERIOD == 0
        history = self.trainer.storage.histories().get("clusters/largest")
        if not (is_due and comm.is_main_process() and history):
            return
        fraction = history.median(self.PERIOD)
        if fraction > self.COLLAPSED_FRACTION:
            logger.warning(
                "The clustering has collapsed: in the median of the last %d batches, a single "
                "cluster took %.0f%% of a batch's masks. Look at clusters/* in TensorBoard; a "
                "lower SOLVER.BASE_LR or MODEL.PIXELCLIP.ASSIGNMENT 'sinkhorn' may help.",
                self.PERIOD,
                100 * fraction,
            )


class CountSkippedRecords(HookBase):
    """Record how many corrupt records all processes have skipped, and log it at the end.

    Scalar: ``skipped_records``, since the start of the training, resumed or not.

    Args:
        step: of the same training; it shares the processes' counts with the losses.
        max_fraction: of corrupt ones among all records read, in 0..1, above which training stops;
            it is checked once ``RECORDS_BEFORE_CHECK`` records were read.
    """

    RECORDS_BEFORE_CHECK = 100

    def __init__(self, step: TrainingStep, max_fraction: float) -> None:
        self._step = step
        self._max_fraction = max_fraction
        self._before: Counter[str] = Counter()  # in the runs that this one continues
        self._total: Counter[str] = Counter()

    def after_step(self) -> None:
        """Put the sum over all processes into the event storage.

        Raises:
            RuntimeError: in every process: too many of the records are corrupt.
        """
        self._total = self._before + self._step.skipped
        if comm.is_main_process():
            total = sum(self._total.values())
            self.trainer.storage.put_scalar("skipped_records", total, smoothing_hint=False)
        self._refuse_corrupt_data()

    def _refuse_corrupt_data(self) -> None:
        corrupt = sum(self._total.values())
        # Of all processes, since the start of the training.
        read = corrupt + getattr(self.trainer.data_loader, "position", 0)
        if read >= self.RECORDS_BEFORE_CHECK and corrupt > self._max_fraction * read:
            raise RuntimeError(
                f"{corrupt} of the {read} records read so far are corrupt ({self._kinds()}), more "
                f"than DATALOADER.MAX_CORRUPT_FRACTION, {self._max_fraction:g}, allows. The log "
                "names the first ones; `pixelclip datasets check --deep` looks at all of them."
            )

    def _kinds(self) -> str:
        return ", ".join(f"{kind}: {count}" for kind, count in self._total.most_common())

    def after_train(self) -> None:
        """Log the count of each kind, if any."""
        if comm.is_main_process() and self._total:
            total = sum(self._total.values())
            logger.warning("Skipped %d corrupt records (%s)", total, self._kinds())

    def state_dict(self) -> dict[str, int]:
        """Counts by kind."""
        return dict(self._total)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting from a checkpoint's counts."""
        self._before = self._total = Counter(state)


class IterationLog(HookBase):
    """Write one JSON line per iteration to ``iterations.jsonl``, unsmoothed.

    Detectron2's ``metrics.json`` holds medians over windows that a restart empties; these lines are
    exact, so that two runs can be compared. At the start, lines of iterations that are still to
    come are removed: they belong to another run, or follow the checkpoint that this one continues.

    Args:
        output_dir: folder of the file.
        base_lr: ``SOLVER.BASE_LR``, of which each parameter's learning rate is a multiple. It is
            the mask decoder's own, which the logs show.
    """

    def __init__(self, output_dir: str, base_lr: float) -> None:
        self._path = os.path.join(output_dir, "iterations.jsonl")
        self._base_lr = base_lr
        self._lr = base_lr
        self._waiting: list[str] = []  # lines that the disk had no room for

    def before_train(self) -> None:
        """Keep the lines of the iterations before this run's first, if there are any."""
        if not (comm.is_main_process() and os.path.exists(self._path)):
            return
        with open(self._path, encoding="utf-8") as file:
            lines = file.readlines()
        kept = [line for line in lines if _iteration_of(line) <= self.trainer.start_iter]
        write_text(self._path, "".join(kept))

    def before_step(self) -> None:
        """Note the learning rate before the schedule moves on."""
        groups = self.trainer.optimizer.param_groups
        factor = max(g["lr"] / g["initial_lr"] for g in groups if g["initial_lr"])
        self._lr = self._base_lr * factor

    def after_step(self) -> None:
        """Write iteration (from 1), total loss, base learning rate, skipped records and shares."""
        if not comm.is_main_process():
            return
        # Detectron2 has recorded that of the group with the most parameters, whichever it is.
        self.trainer.storage.put_scalar("lr", self._lr, smoothing_hint=False)
        latest = {name: value for name, (value, _) in self.trainer.storage.latest().items()}
        names = ("total_loss", "skipped_records", "clusters/used", "clusters/largest")
        line = {"iteration": self.trainer.iter + 1, "lr": self._lr}
        line.update({name: float(latest[name]) for name in names if name in latest})
        self._waiting.append(json.dumps(line) + "\n")
        try:
            self._append("".join(self._waiting))
            self._waiting.clear()
        except OSError as error:
            if len(self._waiting) == 1:
                logger.error("%s cannot be written, its lines are kept: %s", self._path, error)

    def _append(self, text: str) -> None:
        """Append the whole text, or nothing of it."""
        before = os.path.getsize(self._path) if os.path.exists(self._path) else 0
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            with suppress(OSError):
                os.truncate(self._path, before)
            raise


class ProgressBar(HookBase):
    """Show the main process's iterations, loss and largest cluster as a bar on the terminal."""

    def __init__(self, description: str) -> None:
        self._description = description

    def before_train(self) -> None:
        """Begin at the iteration that the training begins at."""
        self._bar = tqdm(
            desc=self._description,
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            unit="iteration",
            dynamic_ncols=True,
            disable=not comm.is_main_process(),
        )

    def after_step(self) -> None:
        """Move on by one."""
        latest = {name: value for name, (value, _) in self.trainer.storage.latest().items()}
        shown = {}
        if "total_loss" in latest:
            shown["loss"] = f"{latest['total_loss']:.4f}"
        if "clusters/largest" in latest:
            shown["largest_cluster"] = f"{latest['clusters/largest']:.0%}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        """Leave the bar as it is, also where the training was interrupted."""
        self._bar.close()


def _iteration_of(line: str) -> float:
    """Iteration of a line; infinity if it is none, as when a kill has cut it off."""
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, TypeError, KeyError):
        return float("inf")
