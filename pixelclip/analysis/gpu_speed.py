"""What a device achieves: training steps, evaluation, and the samples that the CPU makes for it."""

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from pixelclip.analysis.checks import PASSED, Line, Verdict, attempt, skipped
from pixelclip.analysis.memory import (
    MemoryModel,
    fit_memory_model,
    measure_peak_bytes,
    prepare_step,
)
from pixelclip.analysis.profiling import measure_peak
from pixelclip.analysis.speed import Configuration, Measurement
from pixelclip.data.loader import ResumableLoader
from pixelclip.data.mapper import MaskDatasetMapper
from pixelclip.data.sa1b import load_sa1b

# Synchronizations of a training step that are accepted.
MAX_SYNCHRONIZATIONS = 2
# Share of the counted memory by which the measured one may differ.
MEMORY_TOLERANCE = 0.15
_LOADING_SECONDS = 8.0


def check_matrix_products(device: str) -> Iterator[Line]:
    """Operations per second of plain matrix products, in each number format."""
    for name, precision, tf32 in (
        ("float32", "float32", False),
        ("TF32", "float32", True),
        ("bfloat16", "bfloat16", False),
        ("float16", "float16", False),
    ):
        if device == "cpu" and name not in ("float32", "bfloat16"):
            continue
        torch.backends.cuda.matmul.allow_tf32 = tf32
        yield attempt(f"matrix product, {name}", _measure_product, device, precision)


def _measure_product(device: str, precision: str) -> Verdict:
    peak = measure_peak(torch.device(device), precision)
    return Verdict(True, f"{peak / 1e12:.3g} TFLOP/s", {"operations_per_second": peak})


def check_memory(
    cases: Mapping[str, Configuration], batch_size: int, images: Path, folder: Path
) -> Iterator[Line]:
    """Compare the counted memory of a training step with what torch's allocator gives out."""
    for what, configuration in cases.items():
        yield attempt(what, _compare_memory, configuration, batch_size, images, folder)


def _compare_memory(
    configuration: Configuration, batch_size: int, images: Path, folder: Path
) -> Verdict:
    cfg = configuration.load()
    model = fit_memory_model(cfg, images, folder)
    measured = measure_peak_bytes(
        torch.device(cfg.MODEL.DEVICE), lambda: prepare_step(cfg, batch_size, images, folder)
    )
    counted = model.peak(batch_size)
    text = (
        f"{model.fixed / 1e9:.2f} GB and {model.per_image / 1e9:.3f} for each image: "
        f"{counted / 1e9:.2f} GB for {batch_size}; measured {measured / 1e9:.2f}"
    )
    values = {"memory_model": model._asdict(), "counted": counted, "measured": measured}
    return Verdict(abs(counted / measured - 1) <= MEMORY_TOLERANCE, text, values)


def check_training(
    configuration: Configuration,
    what: str,
    memory: Mapping[str, Any],
    images: Path,
    folder: Path,
) -> Iterator[Line]:
    """Time, memory, stages and synchronizations of training steps of the configured batch.

    Args:
        configuration: says the batch and the number format.
        what: names them.
        memory: values of the line of :func:`check_memory`, or none: a batch that does not fit into
            the GPU is skipped.
        images, folder: see ``WORKLOADS``.
    """
    cfg = configuration.load()
    if (reason := _find_lack_of_memory(cfg, memory)) is not None:
        yield skipped(what, reason)
        return
    result = _measure("train", configuration, images, folder)
    yield Line(PASSED, what, _describe(result), {**result, "kind": "training"})
    yield Line(PASSED, f"{what}: stages", _describe_stages(result))
    synchronizations = f"{what}: synchronizations per step"
    if cfg.MODEL.DEVICE == "cpu":
        yield skipped(synchronizations, "needs a GPU")
    else:
        yield attempt(synchronizations, _judge_synchronizations, result["synchronizations"])


def _find_lack_of_memory(cfg: CfgNode, memory: Mapping[str, Any]) -> str | None:
    """Why a batch does not fit into the GPU, by what was counted; None where it may."""
    if cfg.MODEL.DEVICE == "cpu" or "memory_model" not in memory:
        return None
    model = MemoryModel(**memory["memory_model"])
    needed = model.peak(cfg.SOLVER.IMS_PER_BATCH)
    free, _ = torch.cuda.mem_get_info(torch.device(cfg.MODEL.DEVICE))
    if needed <= free:
        return None
    fitting = model.largest_batch(free)
    return f"needs {needed / 1e9:.0f} GB, {free / 1e9:.0f} are free: {fitting} images at a time fit"


def _judge_synchronizations(places: Mapping[str, int]) -> Verdict:
    number = sum(places.values())
    text = ", ".join(f"{place} {count} times" for place, count in places.items()) or "none"
    return Verdict(number <= MAX_SYNCHRONIZATIONS, f"{number} ({text})")


def check_evaluation(
    configuration: Configuration, what: str, images: Path, folder: Path
) -> Iterator[Line]:
    """Images labeled per second, in COCO-Stuff's 171 classes; arguments: :func:`check_training`."""
    result = _measure("eval", configuration, images, folder)
    yield Line(PASSED, what, _describe(result), {**result, "kind": "evaluation"})
    yield Line(PASSED, f"{what}: stages", _describe_stages(result))


def _measure(
    command: str, configuration: Configuration, images: Path, folder: Path
) -> dict[str, Any]:
    measurement = Measurement(command, configuration, images, folder)
    on_gpu = configuration.load().MODEL.DEVICE != "cpu"
    for _ in range(3 if on_gpu else 1):
        measurement.step()
    measurement.start()
    for _ in range(10 if on_gpu else 2):
        measurement.step()
    return measurement.finish()


def _describe(result: dict[str, Any]) -> str:
    peak = result["peak_operations_per_second"] / 1e12
    return (
        f"{1e3 * result['median_seconds']:.1f} ms, {result['images_per_second']:.3g} images per "
        f"second, {result['share_of_peak']:.0%} of {peak:.3g} TFLOP/s ({result['peak_dtype']}), "
        f"{result['peak_memory_bytes'] / 1e9:.2f} GB"
    )


def _describe_stages(result: dict[str, Any]) -> str:
    stages = sorted(result["stages"].items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in stages if share >= 0.005)


def check_loading(
    configuration: Configuration, lines: Sequence[Line], gpus: int, images: Path
) -> Iterator[Line]:
    """Samples per second of as many loading processes as there are cores, and what GPUs take."""
    workers = count_cores()
    rate = measure_loading(configuration, workers, images)
    values = {"workers": workers, "samples_per_second": rate}
    text = f"{rate:.0f} samples per second, {rate / workers:.1f} by each"
    yield Line(PASSED, f"{workers} loading processes, one for each core", text, values)
    training = [line.values for line in lines if line.values.get("kind") == "training"]
    if not training:
        yield skipped("what the training takes", "no training step was measured")
        return
    fastest = max(values["images_per_second"] for values in training)
    yield Line(PASSED, "what to set", advise(fastest, rate / workers, workers, gpus))


def count_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_loading(configuration: Configuration, workers: int, images: Path) -> float:
    """Training samples per second of so many loading processes, when all of them work."""
    mapper = MaskDatasetMapper(configuration.load(), True)
    loader = ResumableLoader(
        load_sa1b(images), mapper.map_record, total_batch_size=4, seed=0, num_workers=workers
    )
    batches = iter(loader)
    for _ in islice(batches, 2 * workers):  # those of the processes' start
        pass
    start, samples = time.perf_counter(), 0
    while (seconds := time.perf_counter() - start) < _LOADING_SECONDS:
        samples += len(next(batches))
    return samples / seconds


def advise(images_per_second: float, samples_per_second: float, cores: int, gpus: int) -> str:
    """What to set for a GPU that takes so many images, where a loading process makes so many.

    Args:
        images_per_second: of one GPU.
        samples_per_second: of one loading process.
        cores: of the machine.
        gpus: of the machine, which share the cores; 0 for a training on the CPU.
    """
    needed = math.ceil(images_per_second / samples_per_second)
    affordable = max(1, cores // max(1, gpus))
    text = f"the fastest step takes {images_per_second:.0f} images per second: "
    setting = f"DATALOADER.NUM_WORKERS {min(needed, affordable)}"
    if needed <= affordable:
        return f"{text}{setting}"
    return (
        f"{text}{setting}, all cores for each GPU, where {needed} would be needed. The data limit "
        f"the training to {affordable * samples_per_second:.0f} images per second and GPU; "
        "`pixelclip datasets resize-sa1b` and INPUT.REDUCED_JPEG_DECODING make samples faster"
    )
