#!/usr/bin/env python
"""Install Detectron2 0.5 into this interpreter's site-packages as pure Python; keep one that works.

PyPI has no detectron2, but its source archive detectron2-cdo 0.5 holds the Python files of
upstream's tag v0.5. Without the compiled operators, which PixelCLIP does not use, it needs no
compiler, and five mends make it run with current libraries.
"""

import argparse
import base64
import csv
import hashlib
import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from shutil import rmtree

REQUIREMENT = "detectron2-cdo==0.5"
ARCHIVE_SHA256 = "53c9e79e9cc943e80419c588ea44b5479507a8628ed14a4e06bd093e29311b18"
SETUPTOOLS_REQUIREMENT = "setuptools>=70.1,<81"

# Sign in pip's error -> what to do. An extra of the archive, which is not installed, names a URL:
# newer pips refuse even to download such an archive.
PIP_REMEDIES = {
    "direct URL": 'run python -m pip install "pip<26.3"',
    "HASHES": "find out where pip's settings take this file from",
    "": "check the network and pip's settings",
}

# Folder of the archive -> folder in site-packages; upstream's setup maps the projects so too.
PACKAGE_FOLDERS = {
    "detectron2": "detectron2",
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}
NEEDED_MODULES = ("detectron2.engine", "detectron2.evaluation", "detectron2.projects.point_rend")

# What is mended -> (what it looks like in the source, what takes its place).
SOURCE_MENDS = {
    "Image.LINEAR -> Image.BILINEAR": (re.compile(r"\bImage\.LINEAR\b"), "Image.BILINEAR"),
    "np.bool, int, float, object, str -> the built-in ones": (
        re.compile(r"(?<![\w.])np\.(bool|int|float|object|str)\b"),
        r"\1",
    ),
    # Python 3.11 samples sequences only; Detectron2 does it when a mapper returned None.
    "random.sample of a set -> of a list": (
        re.compile(r"\b_rng\.sample\(self\._fallback_candidates,"),
        "_rng.sample(sorted(self._fallback_candidates),",
    ),
}

# Detectron2 imports this module early, but calls it only for operators, and for its compiler's name
# in the list of versions that opens each training's log (detectron2.utils.collect_env).
EXTENSION_STAND_IN = '''\
"""Stands in for the compiled operators, which this pure-Python Detectron2 does not have."""


def get_compiler_version():
    return "none, this is a pure-Python installation"


def get_cuda_version():
    return "none, this is a pure-Python installation"


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

DIST_INFO = "detectron2-0.5.dist-info"
INSTALLER = "pixelclip-install-detectron2"
METADATA = """\
Metadata-Version: 2.1
Name: detectron2
Version: 0.5
Summary: Detectron2 0.5 as pure Python, laid in by PixelCLIP's tools/install_detectron2.py
Home-page: https://github.com/facebookresearch/detectron2
License: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.6
Requires-Dist: cloudpickle
Requires-Dist: fvcore
Requires-Dist: hydra-core
Requires-Dist: iopath
Requires-Dist: matplotlib
Requires-Dist: omegaconf
Requires-Dist: Pillow
Requires-Dist: pycocotools
Requires-Dist: setuptools<81
Requires-Dist: tabulate
Requires-Dist: tensorboard
Requires-Dist: termcolor
Requires-Dist: tqdm
Requires-Dist: yacs
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: pixelclip\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

STAGING_PREFIX = ".detectron2-staging-"


class InstallError(RuntimeError):
    """One sentence for the user: what went wrong and what to do."""


def run_python(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run this interpreter in a new process and capture what it prints."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, errors="replace"
    )


def run_code(code: str) -> "subprocess.CompletedProcess[str]":
    """Run code that imports only what is installed, not what lies in the current folder."""
    return run_python("-c", f"import sys; sys.path = [p for p in sys.path if p]; {code}")


def run_pip(purpose: str, *arguments: str) -> None:
    """Run this interpreter's pip with the user's own settings.

    Raises:
        InstallError: pip failed; holds the purpose and pip's last error line.
    """
    result = run_python("-m", "pip", "--disable-pip-version-check", "--no-input", *arguments)
    if result.returncode:
        errors = re.findall(r"(?im)^error: .*", result.stderr)
        error = (errors[-1] if errors else last_line(result.stderr)).split(". ")[0]
        remedy = next(remedy for sign, remedy in PIP_REMEDIES.items() if sign in error)
        raise InstallError(f"pip could not {purpose} ({error}); {remedy}, then run this again.")


def last_line(text: str) -> str:
    """Return the last line that is not blank, where Python says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def find_detectron2() -> Path | None:
    """Return the folder that `import detectron2` would take, without importing it, or None."""
    result = run_code(
        "from importlib.util import find_spec; spec = find_spec('detectron2'); "
        "print(spec.submodule_search_locations[0] if spec else '')"
    )
    found = last_line(result.stdout) if result.stdout.strip() else None
    return Path(found) if found else None


def try_import() -> "subprocess.CompletedProcess[str]":
    """Import what PixelCLIP needs of Detectron2 in a new process, which prints its version last."""
    return run_code(f"import {', '.join(NEEDED_MODULES)}; print(detectron2.__version__)")


def installed_version(distribution: str) -> str | None:
    """Return the version that pip knows of a distribution, or None where there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def refuse_foreign(folder: Path | None, site_packages: Path, problem: str) -> None:
    """Refuse to replace a Detectron2 that does not import, unless this script laid it in.

    Raises:
        InstallError: it is somebody else's; says where it is and what to do with it.
    """
    installer = site_packages / DIST_INFO / "INSTALLER"
    ours = installer.is_file() and installer.read_text() == INSTALLER
    elsewhere = folder is not None and folder.resolve() != (site_packages / "detectron2").resolve()
    known = folder or installed_version("detectron2")
    if known and (elsewhere or not ours):
        raise InstallError(
            f"there is one already ({known}), but it does not import ({problem}); repair it, or "
            "remove it (pip uninstall detectron2, and its folder if it stays), then run this again."
        )


def pin_setuptools() -> str:
    """Make sure of a setuptools that still has pkg_resources; return what was done, in words."""
    before = installed_version("setuptools")
    run_pip(f"install {SETUPTOOLS_REQUIREMENT}", "install", SETUPTOOLS_REQUIREMENT)
    importlib.invalidate_caches()
    after = installed_version("setuptools")
    return f"setuptools {after} kept" if after == before else f"setuptools {before} -> {after}"


def download_archive(folder: Path) -> Path:
    """Download the source archive into a folder; pip refuses another hash before it opens it."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{ARCHIVE_SHA256}\n")
    run_pip(
        f"download {REQUIREMENT}",
        *("download", "--no-deps", "--no-build-isolation", "--no-binary", "detectron2-cdo"),
        *("--dest", str(folder), "--requirement", str(requirements)),
    )
    return next(folder.glob("*.tar.gz"))


def verify_archive(archive: Path, expected: str = ARCHIVE_SHA256) -> None:
    """Raise InstallError if the file's SHA-256 is not the expected one (hexadecimal)."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise InstallError(
            f"the archive {archive.name} has SHA-256 {found}, but {expected} was expected; "
            "find out where pip's index takes it from, then run this again."
        )


def installed_path(member: str) -> PurePosixPath | None:
    """Return the path in site-packages of a path in the archive, None if it is not installed."""
    inside = PurePosixPath(*PurePosixPath(member).parts[1:])
    if inside == PurePosixPath("LICENSE"):
        return PurePosixPath(DIST_INFO, "LICENSE")
    for source, target in PACKAGE_FOLDERS.items():
        if inside.is_relative_to(source):
            return PurePosixPath(target) / inside.relative_to(source)
    return None


def installed_files(archive: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the path in site-packages and the content of each file that is installed."""
    with tarfile.open(archive) as tar:
        for member in tar:
            path = installed_path(member.name)
            content = tar.extractfile(member) if path else None
            if path and content:
                yield path, content.read()


def mend_source(source: str) -> tuple[str, Counter[str]]:
    """Return the mended source, and how many places each mend changed."""
    places: Counter[str] = Counter()
    for mend, (pattern, replacement) in SOURCE_MENDS.items():
        source, places[mend] = pattern.subn(replacement, source)
    return source, places


def write_package(archive: Path, root: Path) -> Counter[str]:
    """Write the package, mended, under a root folder; return how many places each mend changed."""
    places: Counter[str] = Counter()
    for path, content in installed_files(archive):
        if path.suffix == ".py":
            source, mended = mend_source(content.decode())
            content, places = source.encode(), places + mended
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "detectron2" / "_C.py").write_text(EXTENSION_STAND_IN)
    return places


def write_dist_info(root: Path) -> int:
    """Describe all files under a root folder to pip (list, uninstall); return their number."""
    folder = root / DIST_INFO
    folder.mkdir(exist_ok=True)
    for name, text in {"METADATA": METADATA, "WHEEL": WHEEL, "INSTALLER": INSTALLER}.items():
        (folder / name).write_text(text)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    rows = [record_row(path, root) for path in files] + [(f"{DIST_INFO}/RECORD", "", "")]
    with open(folder / "RECORD", "w", newline="") as record:
        csv.writer(record, lineterminator="\n").writerows(rows)
    return len(rows)


def record_row(path: Path, root: Path) -> tuple[str, str, str]:
    """Return path, hash and size of a file as RECORD has them (binary distribution format)."""
    content = path.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return path.relative_to(root).as_posix(), f"sha256={digest}", str(len(content))


def move_in(staging: Path, site_packages: Path) -> None:
    """Swap the staged folders for old ones; cut short, it leaves no package, never half of one."""
    for name in ("detectron2", DIST_INFO):
        if (site_packages / name).exists():
            os.rename(site_packages / name, staging / f"old-{name}")
    for name in (DIST_INFO, "detectron2"):
        os.rename(staging / name, site_packages / name)


def lay_in(archive: Path, site_packages: Path) -> tuple[int, Counter[str]]:
    """Install the archive's package into site-packages, whole or not at all.

    Returns the number of files and how many places each mend changed.
    """
    for stale in site_packages.glob(f"{STAGING_PREFIX}*"):
        rmtree(stale)
    with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=site_packages) as folder:
        staging = Path(folder)
        places = write_package(archive, staging)
        files = write_dist_info(staging)
        move_in(staging, site_packages)
    return files, places


def install_archive(site_packages: Path) -> None:
    """Download, verify and lay in, and say so line by line."""
    if not os.access(site_packages, os.W_OK):
        raise InstallError(f"{site_packages} cannot be written to; use a virtual environment.")
    if installed_version("torch") is None:
        raise InstallError(
            "torch is not installed here; first run pip install -e . in PixelCLIP's folder, "
            "then this again."
        )
    print(f"Mend: {pin_setuptools()} (detectron2.model_zoo needs its pkg_resources).")
    with tempfile.TemporaryDirectory() as folder:
        archive = download_archive(Path(folder))
        verify_archive(archive)
        print(f"Archive: {archive.name}, SHA-256 {ARCHIVE_SHA256} as pinned.")
        files, places = lay_in(archive, site_packages)
    print(f"Files: {files} laid into {site_packages}.")
    print("Mend: detectron2/_C.py stands in for the compiled operators.")
    for mend, count in places.items():
        print(f"Mend: {mend} ({count} times).")


def install() -> None:
    """Keep a Detectron2 that imports, or install one; check it by importing it in a new process.

    Raises:
        InstallError: nothing was installed, or what was does not import.
    """
    site_packages = Path(sysconfig.get_paths()["purelib"])
    folder, attempt = find_detectron2(), try_import()
    if attempt.returncode == 0:
        print(f"Kept: Detectron2 {last_line(attempt.stdout)} in {folder} imports; nothing to do.")
        return
    refuse_foreign(folder, site_packages, last_line(attempt.stderr))
    install_archive(site_packages)
    attempt = try_import()
    if attempt.returncode:
        raise InstallError(
            f"it was laid in but does not import ({last_line(attempt.stderr)}); "
            "run pip install -e . in PixelCLIP's folder, then this again."
        )
    print(f"Checked: Detectron2 {last_line(attempt.stdout)}: {', '.join(NEEDED_MODULES)} import.")


def main() -> int:
    """Run the command line; return the exit code."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        install()
    except (InstallError, OSError) as error:
        print(f"Detectron2 is not ready: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
