"""Write the masks of a folder of photographs as SA-1B files, which training reads as they are.

    OUTPUT/photographs/a/X.jpg   a copy of the photograph, or a link to it
    OUTPUT/photographs/a/X.json  its masks
    OUTPUT/generator.json        the generator that made them, and the folder of photographs
    OUTPUT/summary.json          how many masks, how much they cover, what could not be read
    OUTPUT/contact_sheet.png     some of the photographs with their masks

Files appear whole or not at all, and a photograph's JSON last, so that a run that was killed goes
on where it was. Several processes may run at once: each takes what is not finished yet.
"""

import dataclasses
import json
import os
import random
import shutil
import uuid
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pixelclip.data.image_reading import ImageReadError, read_rgb_image
from pixelclip.data.sa1b_writing import write_sa1b_annotation
from pixelclip.mask_generation.contact_sheet import write_contact_sheet
from pixelclip.mask_generation.generators import GeneratorChoice
from pixelclip.mask_generation.image_records import Photograph, find_photographs
from pixelclip.mask_generation.mask_generator import MaskGenerator
from pixelclip.mask_generation.summary import MaskSummary, Outcome, read_outcome, summarize
from pixelclip.mask_generation.worker_pool import run_tasks
from pixelclip.utils.atomic_write import atomic_writer

_JPEG_QUALITY = 95


def generate_masks(
    images: Path,
    output: Path,
    choice: GeneratorChoice,
    link: bool = False,
    num_workers: int | None = None,
) -> MaskSummary:
    """Find masks in every photograph of a folder; see the top of this file.

    A photograph that cannot be read is left out and reported.

    Args:
        images: folder with photographs, at any depth.
        output: folder to write to.
        choice: the generator.
        link: write symbolic links to the photographs instead of copies.
        num_workers: processes; by default one for each GPU that the generator can use, or else for
            each processor core.

    Returns:
        What ``summary.json`` holds.

    Raises:
        FileNotFoundError: no photograph was found.
        ValueError: the output is no folder to write to, or holds another generator's masks, or
            those of another folder of photographs.
        OSError: a file cannot be written.
    """
    photographs = find_photographs(images, output)
    _claim_folder(images, output, choice)
    for folder in {photograph.image.parent for photograph in photographs}:
        folder.mkdir(parents=True, exist_ok=True)
    prepare = partial(_PhotographWriter, choice, link)
    devices = choose_devices(choice, num_workers)
    # Processes that run at once meet less often when each has an order of its own.
    in_turn = random.Random(uuid.uuid4().int).sample(photographs, len(photographs))
    bar = tqdm(run_tasks(prepare, in_turn, devices), "masks", len(photographs), unit=" photographs")
    outcomes = dict(bar)
    summary = summarize([outcomes[photograph] for photograph in photographs], choice)
    _write_json(output / "summary.json", dataclasses.asdict(summary))
    usable = [photograph for photograph in photographs if outcomes[photograph].num_masks]
    write_contact_sheet(usable, output / "contact_sheet.png")
    return summary


def choose_devices(choice: GeneratorChoice, num_workers: int | None) -> list[torch.device]:
    """The device of each worker process: the GPUs in turn, or the CPU.

    Raises:
        ValueError: less than one worker.
    """
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"{num_workers} workers were asked for; expected at least 1.")
    gpus = torch.cuda.device_count() if choice.has_network else 0
    if gpus:
        return [torch.device("cuda", index % gpus) for index in range(num_workers or gpus)]
    # A network uses all cores by itself.
    usual = 1 if choice.has_network else os.cpu_count() or 1
    return [torch.device("cpu")] * (num_workers or usual)


def _claim_folder(images: Path, output: Path, choice: GeneratorChoice) -> None:
    """Write down which generator and photographs the folder is for; two must not be mixed unseen.

    Copies of two folders could have the same place. What was written before photographs were
    noted gets them now.
    """
    path = output / "generator.json"
    settings, folder = dataclasses.asdict(choice), str(images.resolve())
    if path.exists():
        before = json.loads(path.read_bytes())
        folder_before = before.pop("images", None)
        if before != settings:
            raise ValueError(
                f"{output} holds masks of the generator {before}, not of {settings}; choose "
                "another folder for these."
            )
        if folder_before == folder:
            return
        if folder_before is not None:
            raise ValueError(
                f"{output} holds masks of the photographs in {folder_before}, not of those in "
                f"{folder}; choose another folder for these. If you moved the photographs, change "
                f"'images' in {path}."
            )
    output.mkdir(parents=True, exist_ok=True)
    _write_json(path, {**settings, "images": folder})


def _write_json(path: Path, content: dict[str, object]) -> None:
    with atomic_writer(path) as file:
        file.write(json.dumps(content, indent=2).encode())


class _PhotographWriter:
    """Writes a photograph's copy and masks, unless they are there."""

    def __init__(self, choice: GeneratorChoice, link: bool, device: torch.device) -> None:
        self._choice = choice
        self._link = link
        self._device = device
        self._generator: MaskGenerator | None = None

    def __call__(self, photograph: Photograph) -> tuple[Photograph, Outcome]:
        finished = _find_finished(photograph)
        return photograph, finished or self._write(photograph)

    def _write(self, photograph: Photograph) -> Outcome:
        try:
            source = _identify(photograph.source)
            pixels = read_rgb_image(photograph.source)
        except (ImageReadError, OSError) as error:
            # A file name may have bytes that are no text, which could not be printed.
            return Outcome(problem=str(error).encode(errors="backslashreplace").decode())
        if self._generator is None:  # a run that finds everything finished needs none
            self._generator = self._choice.build(self._device)
        height, width = pixels.shape[:2]
        masks = self._generator.generate(pixels)
        _write_image(photograph, pixels, self._link)
        name = photograph.image.name
        write_sa1b_annotation(photograph.annotation, name, (height, width), masks, source)
        return read_outcome(photograph.annotation)


def _find_finished(photograph: Photograph) -> Outcome | None:
    """What an earlier run found; None where something is missing or the photograph changed."""
    try:
        if photograph.image.exists():
            outcome = read_outcome(photograph.annotation)
            if _is_of_same_file(outcome.source, photograph):
                return dataclasses.replace(outcome, was_finished=True)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _is_of_same_file(source: dict[str, int] | None, photograph: Photograph) -> bool:
    if source is None:  # JSONs of the first versions do not say what they were made of
        written = photograph.annotation.stat().st_mtime_ns
        return written >= photograph.source.stat().st_mtime_ns
    return source == _identify(photograph.source)


def _identify(path: Path) -> dict[str, int]:
    """A file's size and time of the last change: when they stay, so does the content."""
    status = path.stat()
    return {"bytes": status.st_size, "changed": status.st_mtime_ns}


def _write_image(photograph: Photograph, pixels: NDArray[np.uint8], link: bool) -> None:
    """Link or copy the file where training can read it as it is; else write its pixels as JPEG."""
    source, target = photograph.source, photograph.image
    if source.suffix != target.suffix:
        with atomic_writer(target) as file:
            Image.fromarray(pixels).save(file, "jpeg", quality=_JPEG_QUALITY)
    elif link:
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        temporary.symlink_to(source.resolve())
        os.replace(temporary, target)
    else:
        with open(source, "rb") as original, atomic_writer(target) as file:
            shutil.copyfileobj(original, file)
