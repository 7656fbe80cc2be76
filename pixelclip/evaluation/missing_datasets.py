"""Which data sets cannot be evaluated here, and why: found out before anything is evaluated."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from pixelclip.evaluation.mask_regions import mask_file


def find_missing_datasets(names: Sequence[str], mask_folder: Path | None = None) -> dict[str, str]:
    """Look at data sets on all processes.

    Every process must call it; all of them get the same answer, and a data set that one of them
    lacks is missing for all.

    Args:
        names: registered data sets.
        mask_folder: where each image must have an SA-1B JSON, if anywhere.

    Returns:
        For each data set that is not whole, one line that says what was looked for and how to fix
        it.
    """
    own = {name: _find_problem(name, mask_folder) for name in names}
    missing_datasets: dict[str, str] = {}
    for rank, found in enumerate(comm.all_gather(own)):
        for name, problem in found.items():
            if problem and name not in missing_datasets:
                missing_datasets[name] = f"on process {rank}: {problem}" if rank else problem
    return missing_datasets


def _find_problem(name: str, mask_folder: Path | None) -> str | None:
    # Ours raise FileNotFoundError or ValueError, Detectron2's own loaders AssertionError too.
    try:
        records = DatasetCatalog.get(name)
    except (OSError, ValueError, AssertionError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return text + _preparation(name, text)
    if not len(records):
        return f"{name} is empty: its loader found no images.{_preparation(name, '')}"
    return _find_missing_masks(records, mask_folder) if mask_folder else None


def _preparation(name: str, said: str) -> str:
    """The command that prepares the data set, where that is known and not yet said."""
    benchmark = getattr(MetadataCatalog.get(name), "benchmark", None)
    command = getattr(benchmark, "prepare_command", None)
    return f" After the download, run: {command}" if command and command not in said else ""


def _find_missing_masks(records: Iterable[dict[str, Any]], mask_folder: Path) -> str | None:
    files = [mask_file(mask_folder, record["file_name"]) for record in records]
    present = set(os.listdir(mask_folder))
    missing = [file.name for file in files if file.name not in present]
    if not missing:
        return None
    return (
        f"{len(missing)} of {len(files)} images have no masks in {mask_folder.absolute()}, looked "
        f"for {', '.join(missing[:3])}: generate them, or set TEST.MASKS to another folder or "
        "'ground_truth'."
    )
