#!/usr/bin/env python
"""Install Detectron2 0.5 as pure Python; keep a Detectron2 that works.

PyPI has no detectron2, but its source archive detectron2-cdo 0.5 holds the Python files of tag
v0.5. PixelCLIP does not use their compiled operators; five patches make the rest run today.
"""

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from shutil import rmtree

REQUIREMENT = "detectron2-cdo==0.5"
ARCHIVE_SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"
SETUPTOOLS_REQUIREMENT = "setuptools>=70.1,<81"

# Sign in pip's error -> what to do. Newer pips refuse an archive whose extras name a URL.
PIP_REMEDIES = {
    "direct URL": 'run python -m pip install "pip<26.3"',
    "HASHES": "find out where pip's settings take this file from",
    "": "check the network and pip's settings",
}

# Path in the archive -> path in the wheel's sources; upstream's setup maps the projects so too.
SOURCES = {
    "LICENSE": "LICENSE",
    "detectron2": "detectron2",
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}
REMEDY = "run pip install -e . in PixelCLIP's folder, then this again."
NEEDED_MODULES = ("detectron2.engine", "detectron2.evaluation", "detectron2.projects.point_rend")

# What is patched -> (its pattern in the source, what takes its place).
PATCHES = {
    "Image.LINEAR -> Image.BILINEAR": (r"\bImage\.LINEAR\b", "Image.BILINEAR"),
    "np.bool, np.int, ... -> bool, int, ...": (
        r"(?<![\w.])np\.(bool|int|float|object|str)\b",
        r"\1",
    ),
    # Python 3.11 samples sequences only; Detectron2 does it when a mapper returned None.
    "random.sample of a set -> of a list": (
        r"\b_rng\.sample\((self\._fallback_candidates),",
        r"_rng.sample(sorted(\1),",
    ),
}

# Detectron2 imports this module early, but calls it only for operators, and for its compiler's name
# in the list of versions that opens each training's log (detectron2.utils.collect_env).
EXTENSION_STAND_IN = '''\
"""Stands in for the compiled operators, which this pure-Python Detectron2 does not have."""

def get_compiler_version():
    return "none, this is a pure-Python installation"

get_cuda_version = get_compiler_version

def has_cuda():
    return False

def __getattr__(name):
    if name.startswith("__"):  # Python's own questions to a module
        raise AttributeError(name)
    raise ImportError(
        f"detectron2._C.{name} is a compiled operator, and this pure-Python Detectron2 has none: "
        "install the official build of Detectron2 to use it."
    )
'''
# Both files tell an installation by this script, the second also an interrupted one.
OWN_SIGNS = {
    "detectron2-0.5.dist-info/METADATA": "PixelCLIP's tools/install_detectron2.py",
    "detectron2/_C.py": EXTENSION_STAND_IN.splitlines()[0],
}
PYPROJECT = f"""\
[build-system]
requires = ["{SETUPTOOLS_REQUIREMENT}"]
build-backend = "setuptools.build_meta"
[project]
name = "detectron2"
version = "0.5"
description = "Detectron2 0.5 as pure Python, by PixelCLIP's tools/install_detectron2.py"
dependencies = [
    "cloudpickle", "fvcore", "hydra-core", "iopath", "matplotlib", "omegaconf", "Pillow",
    "pycocotools", "setuptools<81", "tabulate", "tensorboard", "termcolor", "tqdm", "yacs",
]
[tool.setuptools.packages.find]
include = ["detectron2*"]
[tool.setuptools.package-data]
detectron2 = ["**/*"]
"""


class InstallError(RuntimeError):
    """One sentence for the user: what went wrong and what to do."""


def run_python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run this interpreter in a new process and capture what it prints."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace")


def run_pip(purpose: str, *arguments: str) -> None:
    """Run this interpreter's pip with the user's settings; raise InstallError where it fails."""
    result = run_python("-m", "pip", "--disable-pip-version-check", "--no-input", *arguments)
    if result.returncode:
        errors = re.findall(r"(?im)^error: .*", result.stderr)
        error = (errors[-1] if errors else last_line(result.stderr)).split(". ")[0]
        remedy = next(remedy for sign, remedy in PIP_REMEDIES.items() if sign in error)
        raise InstallError(f"pip could not {purpose} ({error}); {remedy}, then run this again.")


def last_line(text: str) -> str:
    """Return the last line that is not blank, where Python says what went wrong."""
    return text.strip().split("\n")[-1].strip() or "no message"


def try_import() -> tuple[str, str, str]:
    """Import Detectron2 in a new process; return its folder, version and what is wrong, or ""."""
    code = (
        "import sys; sys.path = [p for p in sys.path if p]\n"  # not from the current folder
        "from importlib.util import find_spec; "
        "spec = find_spec('detectron2'); print(spec and spec.submodule_search_locations[0] or ''); "
        f"import {', '.join(NEEDED_MODULES)}; print(detectron2.__version__)"
    )
    result = run_python("-c", code)
    version, problem = last_line(result.stdout), last_line(result.stderr)
    return result.stdout.split("\n")[0], *(("", problem) if result.returncode else (version, ""))


def refuse_foreign(folder: str, site_packages: Path, problem: str) -> None:
    """Raise InstallError for a Detectron2 that does not import, unless it is this script's own."""
    signs = [(site_packages / path, sign) for path, sign in OWN_SIGNS.items()]
    is_own = any(path.is_file() and sign in path.read_text() for path, sign in signs)
    is_here = Path(folder).resolve() == (site_packages / "detectron2").resolve()
    if folder and not (is_own and is_here):
        raise InstallError(
            f"there is one already ({folder}), but it does not import ({problem}); repair it, or "
            "remove it (pip uninstall detectron2, and its folder if it stays), then run this again."
        )


def patch_source(source: str) -> tuple[str, Counter[str]]:
    """Return the patched source, and how many places each patch changed."""
    places: Counter[str] = Counter()
    for patch, (pattern, replacement) in PATCHES.items():
        source, places[patch] = re.subn(pattern, replacement, source)
    return source, places


def write_sources(archive: Path, root: Path) -> Counter[str]:
    """Write a project that pip can build; return how many places each patch changed."""
    places: Counter[str] = Counter()
    with tarfile.open(archive) as tar:
        for member in filter(tarfile.TarInfo.isfile, tar):
            path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
            source = next((source for source in SOURCES if path.is_relative_to(source)), None)
            if source is None:
                continue
            target = root / SOURCES[source] / path.relative_to(source)
            content = tar.extractfile(member).read()  # type: ignore[union-attr]
            if path.suffix == ".py":
                text, patched = patch_source(content.decode())
                content, places = text.encode(), places + patched
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    (root / "detectron2" / "_C.py").write_text(EXTENSION_STAND_IN)
    (root / "pyproject.toml").write_text(PYPROJECT)
    return places


def build_wheel(archive: Path, folder: str) -> Counter[str]:
    """Patch the archive's sources and build their wheel in a folder; count the patched places."""
    with tempfile.TemporaryDirectory() as sources:
        places = write_sources(archive, Path(sources))
        run_pip("build it", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, sources)
    return places


def install_archive(site_packages: Path) -> None:
    """Download, patch, build and install, and say so line by line."""
    run_pip(f"install {SETUPTOOLS_REQUIREMENT}", "install", SETUPTOOLS_REQUIREMENT)
    print(f"Patch: {SETUPTOOLS_REQUIREMENT} (detectron2.model_zoo needs its pkg_resources).")
    with tempfile.TemporaryDirectory() as folder:
        requirements = f"{folder}/requirements.txt"
        Path(requirements).write_text(f"{REQUIREMENT} --hash=sha256:{ARCHIVE_SHA256}\n")
        options = ("--no-deps", "--no-build-isolation", "--no-binary", "detectron2-cdo")
        run_pip(f"download {REQUIREMENT}", "download", *options, "-d", folder, "-r", requirements)
        print(f"Archive: {REQUIREMENT}, SHA-256 {ARCHIVE_SHA256} as pinned.")
        places = build_wheel(next(Path(folder).glob("*.tar.gz")), folder)
        for name in ("detectron2", "detectron2-0.5.dist-info"):  # damaged, of an earlier run
            rmtree(site_packages / name, ignore_errors=True)
        # By name: pip would record the path of a wheel, which is about to go.
        run_pip("install it", "install", "--no-deps", "--no-index", "-f", folder, "detectron2==0.5")
    print("Patch: detectron2/_C.py stands in for the compiled operators.")
    for patch, count in places.items():
        print(f"Patch: {patch} ({count} times).")


def install() -> None:
    """Keep a Detectron2 that imports, or install one; check it by importing it in a new process."""
    folder, version, problem = try_import()
    if version:
        print(f"Kept: Detectron2 {version} in {folder} imports; nothing to do.")
        return
    site_packages = Path(sysconfig.get_paths()["purelib"])
    refuse_foreign(folder, site_packages, problem)
    if not os.access(site_packages, os.W_OK):
        raise InstallError(f"{site_packages} cannot be written to; use a virtual environment.")
    if find_spec("torch") is None:
        raise InstallError(f"torch is not installed here; {REMEDY}")
    install_archive(site_packages)
    _, version, problem = try_import()
    if problem:
        raise InstallError(f"it was installed but does not import ({problem}); {REMEDY}")
    print(f"Checked: Detectron2 {version}: {', '.join(NEEDED_MODULES)} import.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    try:
        install()
    except (InstallError, OSError) as error:
        print(f"Detectron2 is not ready: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
