"""Check on this machine that a GPU computes what the CPU does, and measure how fast."""

import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed
from tqdm import tqdm

from pixelclip.analysis import gpu_correctness, gpu_processes, gpu_speed
from pixelclip.analysis.checks import (
    CONTEXT,
    FAILED,
    PASSED,
    Check,
    Line,
    count_lines,
    format_lines,
    run_checks,
    skipped,
)
from pixelclip.analysis.speed import Configuration
from pixelclip.analysis.speed_workloads import write_images
from pixelclip.utils.atomic_write import write_text

_CONFIGS = {
    "ViT-B/16": "configs/pixelclip_vitb16.yaml",
    "ConvNeXt-B": "configs/pixelclip_convnextb.yaml",
}
_SMALL = Configuration("configs/demo/toy.yaml", ("MODEL.CLIP.DENSE_PATH", "pixelclip"))
# The number formats of a training.
_FORMATS: dict[str, tuple[str, ...]] = {"float32": (), "bfloat16": ("SOLVER.AMP.ENABLED", "True")}
_TOY = {"toy CLIP": _SMALL}  # stands in for both where there is no GPU
_NEEDS_GPU = "needs a GPU"


class Machine(NamedTuple):
    """What is checked, and with what.

    Attributes:
        device: "cuda" or "cpu".
        gpus: number of GPUs.
        images: folder that ``load_sa1b`` reads.
        folder: for what the checks write.
    """

    device: str
    gpus: int
    images: Path
    folder: Path


def check_gpu(output: Path, seconds: float = 300.0) -> bool:
    """Run all checks; print their lines as they come, and write a report after each of them.

    Args:
        output: folder of ``report.md``, ``report.json`` and ``log.txt``, made where it is missing.
        seconds: after which no check starts any more.

    Returns:
        Whether no check failed.

    Raises:
        OSError: the folder cannot be written to.
    """
    # Else the check that starts a process for each GPU would start CUDA by asking whether there is
    # one, after which no process that is forked can use it.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output} is a file; the output is a folder of several")
    output.mkdir(parents=True, exist_ok=True)
    log = output / "log.txt"
    write_text(log, "")
    start = time.monotonic()
    lines: list[Line] = []
    write_report(output, lines, 0.0, is_complete=False)
    with tempfile.TemporaryDirectory() as root:
        with ProcessPoolExecutor(1, CONTEXT) as process:  # this one must not start CUDA
            gpus = process.submit(torch.cuda.device_count).result()
        machine = Machine("cuda" if gpus else "cpu", gpus, Path(root, "images"), Path(root))
        machine.images.mkdir()
        write_images(machine.images, count=8)
        for line in run_checks(list_checks(machine), machine, seconds, log):
            tqdm.write(f"{line.status:<8}{line.check}: {line.what}: {line.result}")
            lines.append(line)
            write_report(output, lines, time.monotonic() - start, is_complete=False)
    write_report(output, lines, time.monotonic() - start, is_complete=True)
    return all(line.status != FAILED for line in lines)


def list_checks(machine: Machine) -> list[Check]:
    """All checks, the fundamental ones first. Without a GPU they are fewer and smaller."""
    steps = [("ViT-B/16", "float32", 1), ("ViT-B/16", "bfloat16", 1), ("ConvNeXt-B", "float32", 1)]
    batches = [("ViT-B/16", 1), ("ConvNeXt-B", 1)]
    if machine.gpus:
        steps = [(name, "bfloat16", batch) for name in _CONFIGS for batch in (6, 48)]
        steps += [(name, "float32", 48) for name in _CONFIGS]
        batches.append(("ViT-B/16", 8))
    return [
        Check("Machine", _check_machine),
        Check("Matrix products", _check_matrix_products),
        Check("Stages: the GPU against the CPU", _check_stages),
        Check("Number formats: against float32", _check_formats),
        Check("Options: against a step without", _check_options),
        Check("Memory: counted against measured", _check_memory),
        *(Check("Training steps", partial(_check_training, *step)) for step in steps),
        *(Check("Evaluation, 171 classes", partial(_check_evaluation, *b)) for b in batches),
        Check("Loading samples", _check_loading),
        Check("Several processes", _check_processes),
        Check("Several GPUs", _check_scaling),
        Check("Compiling", _check_compilation),
    ]


def _configure(name: str, number_format: str, *overrides: str) -> Configuration:
    return Configuration(_CONFIGS[name], (*_FORMATS[number_format], *overrides))


def _small_or_full(machine: Machine) -> dict[str, Configuration]:
    return {name: _configure(name, "float32") for name in _CONFIGS} if machine.gpus else _TOY


def _check_machine(machine: Machine, _: Sequence[Line]) -> Iterator[Line]:
    packages = ("pixelclip", "torch", "torchvision", "detectron2", "open_clip_torch", "timm")
    versions = [f"{name} {_find_version(name)}" for name in packages]
    versions.append(f"Python {platform.python_version()}")
    yield Line(PASSED, "software", ", ".join(versions), {"versions": versions})
    processor = f"{gpu_speed.count_cores()} cores, {_read_memory() / 1e9:.0f} GB"
    yield Line(PASSED, "processor", processor)
    if not machine.gpus:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        yield skipped("GPU", f"there is none that torch can use (it is {built})")
        return
    yield Line(PASSED, "driver and libraries", _describe_libraries())
    for index in range(machine.gpus):
        found = torch.cuda.get_device_properties(index)
        text = (
            f"{found.name}, {found.total_memory / 1e9:.0f} GB, capability {found.major}."
            f"{found.minor}, {found.multi_processor_count} multiprocessors"
        )
        yield Line(PASSED, f"GPU {index}", text)


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(version unknown)"


def _read_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _describe_libraries() -> str:
    driver = "unknown"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        driver = (answer.stdout.split() or [driver])[0]
    has_nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if has_nccl else "none"
    return (
        f"driver {driver}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
        f"NCCL {nccl}"
    )


def _check_matrix_products(machine: Machine, _: Sequence[Line]) -> Iterator[Line]:
    return gpu_speed.check_matrix_products(machine.device)


def _check_stages(machine: Machine, _: Sequence[Line]) -> Iterator[Line]:
    if not machine.gpus:
        yield skipped("values and gradients of each stage", _NEEDS_GPU)
        return
    yield from gpu_correctness.check_stages(_small_or_full(machine), machine.device)


def _check_formats(machine: Machine, _: Sequence[Line]) -> Iterator[Line]:
    return gpu_correctness.check_formats(_small_or_full(machine), machine.device)


def _check_options(machine: Machine, _: Sequence[Line]) -> Iterator[Line]:
    models = {"ViT-B/16": _configure("ViT-B/16", "float32")} if machine.gpus else _TOY
    return gpu_correctness.check_options(models, machine.device)


def _check_compilation(machine: Machine, _: Sequence[Line]) -> Iterator[Line]:
    return gpu_correctness.check_compilation(_SMALL, machine.device)


def _check_memory(machine: Machine, _: Sequence[Line]) -> Iterator[Line]:
    cases = _TOY
    if machine.gpus:  # _check_training looks them up
        cases = {
            f"{name}, {kind}": _configure(name, kind) for name in _CONFIGS for kind in _FORMATS
        }
    return gpu_speed.check_memory(cases, 16, machine.images, machine.folder)


def _check_training(
    name: str, number_format: str, batch_size: int, machine: Machine, lines: Sequence[Line]
) -> Iterator[Line]:
    # float32 with TF32, as a training allows it.
    configuration = _configure(name, number_format, "SOLVER.IMS_PER_BATCH", str(batch_size))
    what = f"{name}, {number_format}"
    memory = next((line.values for line in lines if line.what == what and line.values), {})
    return gpu_speed.check_training(
        configuration, f"{what}, batch {batch_size}", memory, machine.images, machine.folder
    )


def _check_evaluation(
    name: str, batch_size: int, machine: Machine, _: Sequence[Line]
) -> Iterator[Line]:
    configuration = _configure(name, "float32", "TEST.IMS_PER_BATCH", str(batch_size))
    what = f"{name}, {batch_size} at a time"
    return gpu_speed.check_evaluation(configuration, what, machine.images, machine.folder)


def _check_loading(machine: Machine, lines: Sequence[Line]) -> Iterator[Line]:
    configuration = _configure("ViT-B/16", "float32")
    return gpu_speed.check_loading(configuration, lines, machine.gpus, machine.images)


def _check_processes(machine: Machine, _: Sequence[Line]) -> Iterator[Line]:
    several = machine.gpus > 1
    if not several:
        yield skipped("NCCL", "needs 2 GPUs; two processes on the CPU and gloo take its place")
    device, number = ("cuda", machine.gpus) if several else ("cpu", 2)
    yield from gpu_processes.check_processes(_SMALL, device, number, machine.folder)


def _check_scaling(machine: Machine, _: Sequence[Line]) -> Iterator[Line]:
    configuration = _configure("ViT-B/16", "bfloat16")
    return gpu_processes.check_scaling(configuration, machine.gpus, machine.images, machine.folder)


def write_report(output: Path, lines: Sequence[Line], seconds: float, is_complete: bool) -> None:
    """Write ``report.md`` and ``report.json``.

    Args:
        output: folder.
        lines: of the checks that have run.
        seconds: they took.
        is_complete: whether there are no more.
    """
    date = time.strftime("%Y-%m-%d", time.gmtime())
    summary = f"{count_lines(lines)}, in {seconds:.0f} seconds"
    if not is_complete:
        summary = f"Not complete: {summary}"
    text = (
        f"# Check of a GPU\n\n{summary}. Written by `pixelclip check-gpu` on {date}; weights are "
        f"random and images generated.\n\n{format_lines(lines)}\n"
    )
    content = {
        "date": date,
        "seconds": seconds,
        "is_complete": is_complete,
        "lines": [line._asdict() for line in lines],
    }
    write_text(output / "report.md", text)
    write_text(output / "report.json", json.dumps(content, indent=2) + "\n")
