"""Measure one configuration, or several that take turns, each in its own process."""

import logging
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing.managers import BaseManager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from tqdm import tqdm

from pixelclip.analysis.profiling import (
    StageClock,
    count_operations,
    find_synchronizations,
    measure_peak,
    read_peak_memory,
    reset_peak_memory,
    synchronize,
)
from pixelclip.analysis.speed_workloads import WORKLOADS, write_images
from pixelclip.engine.setup import allow_tf32, load_config

# What :func:`format_result` shows and JSON can hold.
Result = dict[str, Any]


class Configuration(NamedTuple):
    """What is measured: a config file and KEY VALUE pairs that override it."""

    file: str
    overrides: tuple[str, ...]

    def load(self) -> CfgNode:
        """The config, without weights; see :func:`pixelclip.engine.setup.load_config`."""
        keys = ("MODEL.WEIGHTS", "MODEL.CLIP.PRETRAINED", "MODEL.PIXELCLIP.DINO.WEIGHTS")
        without_weights = [word for key in keys for word in (key, "")]
        return load_config(self.file, (*self.overrides, *without_weights))

    def __str__(self) -> str:
        return " ".join((Path(self.file).stem, *self.overrides))


class Measurement:
    """A configuration that is measured; see ``WORKLOADS`` for the folders."""

    def __init__(
        self, command: str, configuration: Configuration, images: Path, folder: Path
    ) -> None:
        cfg = configuration.load()
        allow_tf32()
        is_amp = command == "train" and cfg.SOLVER.AMP.ENABLED
        self._precision = cfg.SOLVER.AMP.PRECISION if is_amp else "float32"
        self._name = str(configuration)
        self._workload = WORKLOADS[command](cfg, images, folder)
        self._device = self._workload.device
        self._seconds: list[float] = []

    def step(self) -> float:
        """Do one step; return its seconds."""
        synchronize(self._device)
        start = time.perf_counter()
        self._workload.step()
        synchronize(self._device)
        self._seconds.append(time.perf_counter() - start)
        return self._seconds[-1]

    def start(self) -> None:
        """End the warm-up: time and memory count from here on."""
        reset_peak_memory(self._device)
        self._seconds.clear()

    def finish(self) -> Result:
        """What the steps took; stages and operations are those of some more steps."""
        memory, seconds = read_peak_memory(self._device), list(self._seconds)
        images = self._workload.images
        operations = count_operations(self._workload.step)
        peak = measure_peak(self._device, self._precision)
        return {
            "name": self._name,
            "seconds": seconds,
            "median_seconds": median(seconds),
            "images_per_step": images,
            "images_per_second": images / median(seconds),
            "peak_memory_bytes": memory,
            "stages": self._stage_shares(),
            "operations_per_step": operations,
            "operations_per_second": operations / median(seconds),
            "peak_dtype": self._precision,
            "peak_operations_per_second": peak,
            "share_of_peak": operations / median(seconds) / peak,
            "synchronizations": dict(find_synchronizations(self._device, self._workload.step)),
        }

    def _stage_shares(self) -> dict[str, float]:
        clock = StageClock(self._device)
        with clock.watch(self._workload.stages):
            total = sum(self.step() for _ in range(3))
        shares = {name: seconds / total for name, seconds in clock.seconds.items()}
        return {**shares, "the rest": 1 - sum(shares.values())}


class _Process(BaseManager):
    """Another process that holds a measurement, so that its memory is its own."""

    Measurement: Any


_Process.register("Measurement", Measurement)


def analyze_speed(
    command: str,
    configurations: Sequence[Configuration],
    warm_up: int,
    repeats: int,
    images: str | None = None,
) -> Result:
    """Measure one or several configurations; several take turns, step by step.

    Args:
        command: "data", "train" or "eval".
        configurations: one is measured in this process, several in one process each.
        warm_up, repeats: steps of each that do not count, and that do.
        images: folder that ``load_sa1b`` reads; by default SA-1B-like images are generated.

    Raises:
        ValueError, KeyError, FileNotFoundError: a configuration is wrong, or there are no images.
    """
    if warm_up < 0 or repeats < 1:
        raise ValueError(f"{warm_up} warm-up and {repeats} counted steps; expected 0 and 1 or more")
    devices = [configuration.load().MODEL.DEVICE for configuration in configurations]
    with tempfile.TemporaryDirectory() as root, ExitStack() as processes:
        source = Path(images or tempfile.mkdtemp(dir=root))
        if images is None:
            write_images(source, count=8)
        measurements = []
        for one in configurations:
            is_alone = len(configurations) == 1
            create: Any = Measurement if is_alone else _start_process(processes).Measurement
            measurements.append(create(command, one, source, Path(tempfile.mkdtemp(dir=root))))
        _take_turns(measurements, warm_up, repeats)
        results = [measurement.finish() for measurement in measurements]
    return {
        "command": command,
        "images": images or "generated",
        "devices": [torch.cuda.get_device_name(d) if "cuda" in d else "CPU" for d in devices],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "configurations": results,
    }


def _start_process(stack: ExitStack) -> _Process:
    process = _Process(ctx=multiprocessing.get_context("spawn"))
    process.start(logging.disable, (logging.INFO,))
    return stack.enter_context(process)


def _take_turns(measurements: Sequence[Measurement], warm_up: int, repeats: int) -> None:
    for index in tqdm(range(warm_up + repeats), "Measuring", unit="round"):
        for measurement in measurements:
            if index == warm_up:
                measurement.start()
            measurement.step()


def format_result(result: Result) -> str:
    """A table in Markdown, one column for each configuration."""
    measured = result["configurations"]
    cells = [_cells(one) for one in measured]
    names = list(dict.fromkeys(name for one in measured for name in one["stages"]))
    names.sort(key=lambda name: -max(one["stages"].get(name, 0.0) for one in measured))
    rows = [[heading, *(one[heading] for one in cells)] for heading in cells[0]]
    rows += [[name, *(f"{one['stages'].get(name, 0.0):.1%}" for one in measured)] for name in names]
    numbers = [str(index + 1) for index in range(len(measured))]
    alignment = ("left", *("right" for _ in measured))
    table = tabulate(rows, ["", *numbers], "github", disable_numparse=True, colalign=alignment)
    titles = [f"{number}: {one['name']}" for number, one in zip(numbers, measured, strict=True)]
    return "\n".join([*titles, "", table, *_compare(measured)])


def _cells(one: Result) -> dict[str, str]:
    seconds = one["seconds"]
    cells = {
        "milliseconds a step (median)": f"{1e3 * one['median_seconds']:.1f}",
        "fastest to slowest": f"{1e3 * min(seconds):.1f} to {1e3 * max(seconds):.1f}",
        "images a step": f"{one['images_per_step']}",
        "images per second": f"{one['images_per_second']:.2f}",
        "peak memory (GB)": f"{one['peak_memory_bytes'] / 1e9:.2f}",
    }
    if one["operations_per_step"]:
        peak = f"{one['peak_operations_per_second'] / 1e9:.0f} ({one['peak_dtype']})"
        cells["operations a step (10^9)"] = f"{one['operations_per_step'] / 1e9:.1f}"
        cells["10^9 operations a second"] = f"{one['operations_per_second'] / 1e9:.1f}"
        cells["share of a matrix product's"] = f"{one['share_of_peak']:.0%} of {peak}"
    return cells


def _compare(measured: list[Result]) -> Iterator[str]:
    """How much faster the later configurations are than the first, round by round."""
    first = measured[0]
    for number, one in enumerate(measured[1:], start=2):
        pairs = zip(first["seconds"], one["seconds"], strict=True)
        scale = one["images_per_step"] / first["images_per_step"]
        ratio = median(before / after for before, after in pairs) * scale
        yield f"\n{number} makes {ratio:.2f} times as many images per second as 1."
