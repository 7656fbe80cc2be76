"""Measure one configuration, or two that take turns, each in a process of its own."""

import logging
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Protocol

import torch
from detectron2.config import CfgNode
from tqdm import tqdm

from pixelclip.analysis.generated_images import write_photographs
from pixelclip.analysis.peak_memory import read_peak_memory, reset_peak_memory
from pixelclip.analysis.speed_operations import count_operations, measure_peak, synchronize
from pixelclip.analysis.speed_workloads import build_workload
from pixelclip.analysis.stage_clock import StageClock
from pixelclip.engine.setup import allow_tf32, load_config

COMMANDS = ("data", "train", "eval")
_GENERATED_PHOTOGRAPHS = 8
_STAGE_STEPS = 3

Result = dict[str, Any]


class Configuration(NamedTuple):
    """What is measured: a config file and KEY VALUE pairs that override it."""

    file: str
    overrides: tuple[str, ...]

    def load(self) -> CfgNode:
        """The config, without weights; see :func:`pixelclip.engine.setup.load_config`.

        Raises:
            ValueError, KeyError, FileNotFoundError: the file or the overrides are wrong.
        """
        keys = ("MODEL.WEIGHTS", "MODEL.CLIP.PRETRAINED", "MODEL.PIXELCLIP.DINO.WEIGHTS")
        without_weights = [word for key in keys for word in (key, "")]
        return load_config(self.file, (*self.overrides, *without_weights))

    def __str__(self) -> str:
        return " ".join((Path(self.file).stem, *self.overrides))


class Party(Protocol):
    """One of the configurations that are measured."""

    def step(self) -> float:
        """Do one step; return its seconds."""

    def start(self) -> None:
        """End the warm-up: memory counts from here on."""

    def finish(self) -> Result:
        """Everything but the seconds of the steps."""


class LocalParty:
    """A configuration that is measured in this process."""

    def __init__(
        self, command: str, configuration: Configuration, photographs: Path, folder: Path
    ) -> None:
        cfg = configuration.load()
        allow_tf32()
        is_amp = command == "train" and cfg.SOLVER.AMP.ENABLED
        self._precision = cfg.SOLVER.AMP.PRECISION if is_amp else "float32"
        self._workload = build_workload(command, cfg, photographs, folder)
        self._device = self._workload.device

    def step(self) -> float:
        """Do one step; return its seconds."""
        synchronize(self._device)
        start = time.perf_counter()
        self._workload.step()
        synchronize(self._device)
        return time.perf_counter() - start

    def start(self) -> None:
        """End the warm-up: memory counts from here on."""
        reset_peak_memory(self._device)

    def finish(self) -> Result:
        """Peak memory of the steps so far, then stages and operations of some more steps."""
        memory = read_peak_memory(self._device)
        return {
            "images_per_step": self._workload.images,
            "peak_memory_bytes": memory,
            "stages": self._stage_shares(),
            "operations_per_step": count_operations(self._workload.step),
            **self._peak(),
        }

    def _stage_shares(self) -> dict[str, float]:
        clock = StageClock(lambda: synchronize(self._device))
        with clock.watch(self._workload.stages):
            total = sum(self.step() for _ in range(_STAGE_STEPS))
        shares = {name: seconds / total for name, seconds in clock.seconds.items()}
        return {**shares, "the rest": 1 - sum(shares.values())}

    def _peak(self) -> Result:
        peak = measure_peak(self._device, getattr(torch, self._precision))
        return {"peak_dtype": self._precision, "peak_operations_per_second": peak}


class RemoteParty:
    """A configuration that is measured in another process, so that its memory is its own.

    Raises:
        RuntimeError: that process failed; its error is on the standard error stream.
    """

    def __init__(self, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(other_end, arguments), daemon=True)
        self._process.start()
        other_end.close()
        self._receive()

    def step(self) -> float:
        """See :class:`LocalParty`."""
        return self._ask("step")

    def start(self) -> None:
        """See :class:`LocalParty`."""
        self._ask("start")

    def finish(self) -> Result:
        """See :class:`LocalParty`."""
        return self._ask("finish")

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()

    def _ask(self, what: str) -> Any:
        self._connection.send(what)
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError as error:
            raise RuntimeError("a configuration could not be measured; see above why") from error


def _serve(connection: Connection, arguments: tuple[Any, ...]) -> None:
    logging.disable(logging.INFO)
    party = LocalParty(*arguments)
    connection.send(None)
    try:
        while True:
            connection.send(getattr(party, connection.recv())())
    except EOFError:  # closed on the other side
        return


def analyze_speed(
    command: str,
    configurations: list[Configuration],
    warm_up: int,
    repeats: int,
    photographs: str | None = None,
) -> Result:
    """Measure one or several configurations; several take turns, step by step.

    Args:
        command: "data", "train" or "eval".
        configurations: one is measured in this process, several in one process each.
        warm_up: steps of each that do not count.
        repeats: steps of each that count.
        photographs: folder of photographs with masks, see ``sa1b.py``; by default some are
            generated, of SA-1B's size with 60 masks each.

    Returns:
        What ``report.py`` shows and JSON can hold: the device, and of each configuration all
        seconds, images per second, peak memory, shares of the stages and operations.

    Raises:
        ValueError, KeyError, FileNotFoundError: a configuration is wrong, or there are no
            photographs, before anything is measured.
    """
    if warm_up < 0 or repeats < 1:
        raise ValueError(
            f"got {warm_up} warm-up steps and {repeats} that count; expected at least 0 and 1"
        )
    devices = [configuration.load().MODEL.DEVICE for configuration in configurations]
    with _photographs(photographs) as folder, _parties(command, configurations, folder) as parties:
        seconds = _take_turns(parties, warm_up, repeats)
        results = [
            _combine(str(configuration), times, party.finish())
            for configuration, times, party in zip(configurations, seconds, parties, strict=True)
        ]
    return {
        "command": command,
        "photographs": photographs or "generated",
        "devices": [_describe(device) for device in devices],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "configurations": results,
    }


@contextmanager
def _photographs(folder: str | None) -> Iterator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as generated:
        write_photographs(Path(generated), _GENERATED_PHOTOGRAPHS)
        yield Path(generated)


@contextmanager
def _parties(
    command: str, configurations: list[Configuration], photographs: Path
) -> Iterator[list[Party]]:
    with ExitStack() as stack:
        parties: list[Party] = []
        for configuration in configurations:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            arguments = (command, configuration, photographs, folder)
            if len(configurations) == 1:
                parties.append(LocalParty(*arguments))
                continue
            remote = RemoteParty(*arguments)
            stack.callback(remote.close)
            parties.append(remote)
        yield parties


def _take_turns(parties: list[Party], warm_up: int, repeats: int) -> list[list[float]]:
    """Seconds of each party's steps after the warm-up."""
    seconds: list[list[float]] = [[] for _ in parties]
    for index in tqdm(range(warm_up + repeats), "Measuring", unit="round"):
        for party, times in zip(parties, seconds, strict=True):
            if index == warm_up:
                party.start()
            times.append(party.step())
    return [times[warm_up:] for times in seconds]


def _combine(name: str, seconds: list[float], measured: Result) -> Result:
    middle = median(seconds)
    per_second = measured["operations_per_step"] / middle
    return {
        "name": name,
        "seconds": seconds,
        "median_seconds": middle,
        "images_per_second": measured["images_per_step"] / middle,
        **measured,
        "operations_per_second": per_second,
        "share_of_peak": per_second / measured["peak_operations_per_second"],
    }


def _describe(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
