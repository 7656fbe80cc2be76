"""Write the masks of a folder of images as SA-1B files, which training reads as they are.

    OUTPUT/images/a/X.jpg     a copy of the image, or a link to it
    OUTPUT/images/a/X.json    its masks
    OUTPUT/problems/a/X.txt   instead of both, why the image could not be read
    OUTPUT/generator.json     the generator that made them, and the folder of images
    OUTPUT/summary.json       how many masks, how much they cover, what could not be read
    OUTPUT/contact_sheet.png  some of the images with their masks

Files appear whole or not at all, and an image's JSON last, so that a run that was killed resumes
where it was. Several processes may run at once: each takes what is not finished yet of its shard.
The last two files describe all images, so that a process that has only a shard does not write them.
"""

import contextlib
import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from pixelclip.data.images import ImageReadError, read_rgb_image
from pixelclip.data.sa1b_files import write_sa1b_annotation
from pixelclip.data.sa1b_index import IMAGE_SUFFIXES, JSON_SUFFIX
from pixelclip.mask_generation.base_generator import BaseGenerator
from pixelclip.mask_generation.summary import MaskSummary, Outcome, write_contact_sheet
from pixelclip.mask_generation.workers import choose_devices, run_tasks
from pixelclip.utils.atomic_write import atomic_writer, write_text
from pixelclip.utils.shards import WHOLE, Shard, WorkStatus

# Below the output; next to it lie reports, which are not to be trained on.
COPIES, _PROBLEMS = "images", "problems"
# What training cannot pair with a JSON is written as JPEG.
_SUFFIXES = (*IMAGE_SUFFIXES, ".webp", ".tif", ".tiff", ".bmp")


class ImagePaths(NamedTuple):
    """Where an image and its results lie.

    Attributes:
        name: the image below the folder of all images.
        image: its copy (or link) with a suffix that training knows.
        annotation: the JSON next to that.
        problem: a text instead of both.
    """

    source: Path
    name: PurePath
    image: Path
    annotation: Path
    problem: Path


def generate_masks(
    images: Path,
    output: Path,
    generator: BaseGenerator,
    link: bool = False,
    num_workers: int | None = None,
    shard: Shard = WHOLE,
) -> MaskSummary:
    """Find masks in every image of a folder, see the top of this file; skip what cannot be read.

    Args:
        images, output: folders to read from, at any depth, and to write to.
        generator: is loaded when there is something to do.
        link: write symbolic links to the images instead of copies.
        num_workers: processes, see :func:`choose_devices`.
        shard: the images to do; the summary is of these.

    Raises:
        FileNotFoundError, ValueError: see :func:`find_images`; ValueError also where the output
            holds masks of another generator or other images.
        OSError: a file cannot be written.
    """
    found = [paths for paths in find_images(images, output) if shard.owns(paths.name)]
    devices = choose_devices(bool(generator.default_model), num_workers, shard)
    _claim_folder(output, {**generator.settings, "images": str(images.resolve())})
    # Processes that have the same images meet less often when each has its own order.
    in_turn = random.SystemRandom().sample(found, len(found))
    results = run_tasks(partial(_write, generator, link), in_turn, devices)
    outcomes = dict(tqdm(results, shard.label("masks"), len(found), unit=" images"))
    summary = MaskSummary.from_outcomes([outcomes[paths] for paths in found], generator.settings)
    if shard.is_whole:
        write_text(output / "summary.json", summary.to_json())
        usable = [(paths.image, paths.annotation) for paths in found if outcomes[paths].num_masks]
        write_contact_sheet(usable, output / "contact_sheet.png")
    return summary


def find_status(images: Path, output: Path, generator: BaseGenerator) -> WorkStatus:
    """How many images have masks, from the files that exist; none of them is opened.

    An image that has changed since counts as done; the next run does it again.

    Raises:
        FileNotFoundError, ValueError: see :func:`generate_masks`.
    """
    found = find_images(images, output)
    _check_folder(output, {**generator.settings, "images": str(images.resolve())})
    return WorkStatus({paths.name: _find_problem(paths) for paths in found})


def find_images(images: Path, output: Path) -> list[ImagePaths]:
    """List the images below a folder, sorted, without hidden files and what is below ``output``.

    Copies keep their folders. Where two images of a folder differ in their suffix only, the later
    ones' copies carry it in their names: ``a.jpg`` and ``a.png`` become ``a`` and ``a_png``.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: ``output`` is a file, or the folder of images lies in it.
    """
    if not images.is_dir():
        raise FileNotFoundError(f"{images} is not a folder; expected one with images.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give a folder to write to.")
    if images.resolve().is_relative_to(output.resolve()):
        raise ValueError(f"The images of {images} lie in {output}; give another folder.")
    found = list(_name_copies(images.resolve(), output.resolve()))
    if not found:
        raise FileNotFoundError(f"{images} holds no image; looked for {', '.join(_SUFFIXES)}.")
    return found


def _name_copies(images: Path, output: Path) -> Iterator[ImagePaths]:
    taken: set[tuple[Path, str]] = set()
    for source in sorted(images.rglob("*")):
        below, suffix = source.relative_to(images), source.suffix
        is_left_out = output in source.parents or any(part[0] == "." for part in below.parts)
        if is_left_out or suffix.lower() not in _SUFFIXES or source.is_dir():
            continue
        target = (output / COPIES / below).with_suffix("")
        # Compared in lower case, as some disks do.
        while (target.parent, target.name.lower()) in taken:
            target = target.with_name(f"{target.name}_{suffix[1:]}")
        taken.add((target.parent, target.name.lower()))
        kept = suffix if suffix.lower() in IMAGE_SUFFIXES else ".jpg"
        copy, annotation = Path(f"{target}{kept}"), Path(f"{target}{JSON_SUFFIX}")
        place = target.relative_to(output / COPIES)
        yield ImagePaths(source, below, copy, annotation, output / _PROBLEMS / f"{place}.txt")


def _claim_folder(output: Path, settings: dict[str, Any]) -> None:
    """Write down which generator and images the folder is for, or refuse another's folder."""
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "generator.json", json.dumps(settings, indent=2), replace=False)
    _check_folder(output, settings)


def _check_folder(output: Path, settings: dict[str, Any]) -> None:
    path = output / "generator.json"
    if path.exists() and (before := json.loads(path.read_bytes())) != settings:
        raise ValueError(
            f"{output} holds masks of the generator and images {before}, not of {settings}; choose "
            f"another folder for these. If you only moved the images, change 'images' in {path}."
        )


def _write(
    generator: BaseGenerator, link: bool, paths: ImagePaths, device: torch.device
) -> tuple[ImagePaths, Outcome]:
    """Write an image's copy and masks, unless they exist."""
    if outcome := _find_finished(paths):
        return paths, outcome
    try:
        source = _identify(paths.source)
        pixels = read_rgb_image(paths.source)
    except (ImageReadError, OSError) as error:
        # A file name may have bytes that are not text, which could not be printed.
        problem = str(error).encode(errors="backslashreplace").decode()
        paths.problem.parent.mkdir(parents=True, exist_ok=True)
        write_text(paths.problem, problem)
        return paths, Outcome(problem=problem)
    paths.problem.unlink(missing_ok=True)
    generator.load(device)
    paths.image.parent.mkdir(parents=True, exist_ok=True)
    _write_image(paths, pixels, link)
    size, masks = (pixels.shape[0], pixels.shape[1]), generator.generate(pixels)
    write_sa1b_annotation(paths.annotation, paths.image.name, size, masks, source)
    return paths, Outcome.from_json(json.loads(paths.annotation.read_bytes()))


def _find_finished(paths: ImagePaths) -> Outcome | None:
    """What an earlier run found; None where something is missing or the image changed."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(paths.annotation.read_bytes())
        if paths.image.exists() and content["source"] == _identify(paths.source):
            return Outcome.from_json(content)._replace(was_finished=True)
    return None


def _find_problem(paths: ImagePaths) -> str | None:
    """Why an image has no masks, "" where it has, or None where it is still to be done."""
    with contextlib.suppress(FileNotFoundError):
        return paths.problem.read_text("utf-8")
    return "" if paths.annotation.exists() and paths.image.exists() else None


def _identify(path: Path) -> dict[str, int]:
    """A file's size and time of the last change: when they stay, so does the content."""
    status = path.stat()
    return {"bytes": status.st_size, "changed": status.st_mtime_ns}


def _write_image(paths: ImagePaths, pixels: NDArray[np.uint8], link: bool) -> None:
    """Link or copy the file where training can read it as it is; else write its pixels as JPEG."""
    source, target = paths.source, paths.image
    is_readable = source.suffix == target.suffix
    if is_readable and link:
        with contextlib.suppress(FileExistsError):  # another process was faster
            target.unlink(missing_ok=True)
            target.symlink_to(source)
        return
    with atomic_writer(target) as file:
        if is_readable:
            file.write(source.read_bytes())
        else:
            Image.fromarray(pixels).save(file, "jpeg", quality=95)
