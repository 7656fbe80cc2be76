"""Progress of a training as lines in the log."""

import datetime
import logging

import torch
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

from pixelclip.utils.console import PROGRESS

logger = logging.getLogger(__name__)


class ProgressLines(EventWriter):
    """Log iteration, time left, loss, largest cluster, times and a learning rate in one line.

    In the place of Detectron2's ``CommonMetricPrinter``, which counts iterations from 0 and does
    not say whose learning rate it shows. Loss and cluster are medians, times means, of the last 20
    iterations; the time left follows from the median time of the last 1000.

    Args:
        max_iter: number of iterations of the training.
    """

    WINDOW = 20

    def __init__(self, max_iter: int) -> None:
        self._max_iter = max_iter
        self._last = -1  # the iteration of the last line

    def write(self) -> None:
        """Log a line, once per iteration."""
        storage = get_event_storage()
        if self._last < storage.iter < self._max_iter:
            self._last = storage.iter
            logger.info("  ".join(self._parts(storage)), extra=PROGRESS)

    def _parts(self, storage: EventStorage) -> list[str]:
        histories = storage.histories()
        parts = [f"iteration: {storage.iter + 1}/{self._max_iter}"]
        if "time" in histories:
            seconds = histories["time"].median(1000) * (self._max_iter - storage.iter - 1)
            parts.insert(0, f"eta: {datetime.timedelta(seconds=int(seconds))}")
        if "total_loss" in histories:
            parts.append(f"loss: {histories['total_loss'].median(self.WINDOW):.4g}")
        if "clusters/largest" in histories:
            share = histories["clusters/largest"].median(self.WINDOW)
            parts.append(f"largest cluster: {share:.0%} of masks")
        for name in ("time", "data_time"):
            if name in histories:
                parts.append(f"{name}: {histories[name].avg(self.WINDOW):.4f} s")
        if "lr" in histories:
            parts.append(f"lr of the mask decoder: {histories['lr'].latest():.4g}")
        if torch.cuda.is_available():
            parts.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        return parts
