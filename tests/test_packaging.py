"""What an installed package holds, and that it works from any folder."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 12e6
# Folder of the repository -> where a build has it.
PLACES = {
    "pixelclip": "pixelclip",
    "configs": "pixelclip/configs",
    "tools": "pixelclip_tools",
}
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what is built, as setuptools writes next to the sources."""
    folder = tmp_path_factory.mktemp("sources")
    for name in PLACES:
        shutil.copytree(ROOT / name, folder / name, ignore=IGNORED)
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def source_files(folder):
    for source, place in PLACES.items():
        for path in (folder / source).rglob("*"):
            is_data = source == "tools" and path.suffix != ".py"
            if path.is_file() and not is_data:
                yield Path(place, path.relative_to(folder / source))


def test_a_build_holds_every_file_and_is_small(sources, tmp_path):
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(tmp_path)]
    subprocess.run(command, cwd=sources, check=True, capture_output=True)
    built = {
        path.relative_to(tmp_path / "lib"): path.stat().st_size
        for path in (tmp_path / "lib").rglob("*")
        if path.is_file()
    }
    assert set(built) == set(source_files(sources))
    assert {
        Path("pixelclip/toy/assets/toy_clip.safetensors"),
        Path("pixelclip/configs/pixelclip_vitb16.yaml"),
        Path("pixelclip/configs/demo/toy.yaml"),
        Path("pixelclip/py.typed"),
        Path("pixelclip_tools/cli.py"),
    } <= set(built)
    assert sum(built.values()) < LIMIT


def test_it_is_imported_from_the_folder_that_contains_the_clone(tmp_path):
    try:
        importlib.metadata.version("pixelclip")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("pixelclip is not installed here (make install, or pip install -e .)")
    (tmp_path / "pixelclip").symlink_to(ROOT)  # this folder has no __init__.py of its own
    run([sys.executable, "-c", "from pixelclip import Predictor"], tmp_path)


def run(command, folder, expected=0):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["DETECTRON2_DATASETS"] = str(folder)
    result = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == expected, result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def installed(sources, tmp_path_factory):
    """Folder of the programs of a new environment that has the wheel, and nothing else yet."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, sources]
    run(build, folder)
    run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], folder)
    [wheel] = folder.glob("*.whl")
    assert wheel.stat().st_size < LIMIT
    with zipfile.ZipFile(wheel) as archive:
        names = {Path(name) for name in archive.namelist() if ".dist-info/" not in name}
    scripts = {path for path in names if path.parts[0].endswith(".data")}
    assert [path.name for path in scripts] == ["pixelclip"]
    assert names - scripts == set(source_files(sources))
    programs = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    run([*pip, "--python", programs / "python", "install", *offline, wheel], folder)
    return programs


@pytest.mark.slow
def test_a_new_editable_install_beats_the_folder_of_the_clone(sources, tmp_path):
    clone = tmp_path / "pixelclip"
    shutil.copytree(sources, clone)
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], tmp_path)
    programs = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    add_libraries(programs)
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-deps"]
    run([*pip, "--no-index", "--no-build-isolation", "--editable", clone], tmp_path)
    code = "from pixelclip import Predictor; import pixelclip; print(pixelclip.__file__)"
    assert str(clone / "pixelclip") in run([programs / "python", "-c", code], tmp_path)
    for words in (["predict"], ["datasets", "prepare"]):
        usage = f"usage: pixelclip {' '.join(words)}"
        assert usage in run([programs / "pixelclip", *words, "--help"], tmp_path)


@pytest.mark.slow
def test_detectron2_can_be_installed_with_the_wheel_alone(installed, tmp_path):
    program = installed / "pixelclip"
    assert "Install Detectron2 0.5" in run([program, "install-detectron2", "--help"], tmp_path)
    assert "Use:" in run([program, "--help"], tmp_path)
    said = run([program, "predict", "a.jpg", "--words", "sky"], tmp_path, expected=1)
    assert said.startswith("error: PixelCLIP needs Detectron2") and len(said.splitlines()) == 1
    assert "pixelclip install-detectron2" in said


@pytest.fixture(scope="module")
def with_libraries(installed):
    """The same environment with this one's libraries, but not its PixelCLIP."""
    add_libraries(installed)
    return installed


def add_libraries(programs):
    site_packages = programs.parent.glob("lib*/python*/site-packages")
    [place] = {path.resolve() for path in site_packages}
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    # Folders that a .pth file names have their own .pth files passed over.
    (place / "libraries.pth").write_text("\n".join(here))


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(with_libraries, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    code = (
        "import pixelclip, sys; assert pixelclip.__file__.startswith(sys.prefix)\n"
        "from pixelclip import Predictor\n"
        "predictor = Predictor.from_config('configs/demo/toy.yaml')\n"
        "print(predictor('photo.png', 'toy_scenes_20_synonyms').labels.shape)\n"
    )
    assert "torch.Size([40, 60])" in run([with_libraries / "python", "-c", code], tmp_path)
    program = with_libraries / "pixelclip"
    command = [program, "predict", "photo.png", "--words", "sky, car", "--weights", "toy"]
    assert "1 labeled; wrote output/predictions/photo_overlay.jpg" in run(command, tmp_path)
    assert (tmp_path / "output/predictions/photo_overlay.jpg").is_file()
    check = [program, "datasets", "check"]
    assert "camvid" in run([*check, "configs/datasets/camvid.yaml"], tmp_path, expected=1)
    evaluation = ["evaluate", "--weights", "toy", "--output", tmp_path / "x"]
    output = run([program, *evaluation], tmp_path, expected=1)
    assert "pixelclip datasets prepare toy_scenes" in output
