"""Hooks of the training loop."""

import json
import os

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm


class SeedEveryIteration(HookBase):
    """Make the model's random numbers (stochastic depth) a function of seed, iteration and process.

    A resumed run then draws the same ones as an uninterrupted run, without saved generator states.
    """

    def before_step(self) -> None:
        """Seed torch's generators on all devices."""
        key = (self.trainer.seed, self.trainer.iter, comm.get_rank())
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


class MonitorClusters(HookBase):
    """Record how evenly the clusters share the latest batch's masks over all processes.

    Scalars: ``clusters/used`` (share of the clusters with at least one mask) and
    ``clusters/largest`` (share of the masks in the fullest cluster), both in 0..1.
    """

    def after_step(self) -> None:
        """Put the two scalars into the event storage."""
        model = self.trainer.model
        usage = getattr(model, "module", model).cluster_usage
        total = np.sum(comm.gather(usage.cpu().numpy()) or [0], axis=0)
        if np.sum(total):  # not without masks, and not without clusters
            self.trainer.storage.put_scalar("clusters/used", float(np.mean(total > 0)))
            self.trainer.storage.put_scalar("clusters/largest", float(total.max() / total.sum()))


class IterationLog(HookBase):
    """Append one JSON line per iteration to ``iterations.jsonl``, unsmoothed.

    Detectron2's ``metrics.json`` holds medians over windows that a restart empties; these lines are
    exact, so that two runs can be compared. A resumed run repeats the iterations after its
    checkpoint; the last line of an iteration counts.
    """

    def __init__(self, output_dir: str) -> None:
        self._path = os.path.join(output_dir, "iterations.jsonl")

    def after_step(self) -> None:
        """Write iteration (from 1), total loss, learning rate and the clusters' shares."""
        if not comm.is_main_process():
            return
        latest = {name: value for name, (value, _) in self.trainer.storage.latest().items()}
        names = ("total_loss", "lr", "clusters/used", "clusters/largest")
        line = {"iteration": self.trainer.iter + 1}
        line.update({name: float(latest[name]) for name in names if name in latest})
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
