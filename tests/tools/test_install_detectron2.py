import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import install_detectron2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from install_detectron2 import InstallError

SCRIPT = Path(install_detectron2.__file__)
ALIASES = ("bool", "int", "float", "object", "str")

SOURCES = {
    "detectron2/__init__.py": "__version__ = '0.5'\n",
    "detectron2/layers/ops.py": "from detectron2 import _C\n\n\ndef call():\n    return _C.nms()\n",
    "detectron2/data/mask.py": "import numpy as np\n\nBOOL, INT = np.bool, np.int64\n",
    "detectron2/model_zoo/configs/Base.yaml": "MODEL: np.bool\n",
    "detectron2/model_zoo/configs/LVISv0.5/Mask.yaml": "MODEL: {}\n",
    "detectron2/projects/__init__.py": "",
    "projects/PointRend/point_rend/__init__.py": "from detectron2 import __version__\n",
    "projects/DeepLab/deeplab/__init__.py": "",
    "projects/Panoptic-DeepLab/panoptic_deeplab/__init__.py": "",
    "projects/PointRend/setup.py": "raise RuntimeError\n",
    "tools/train_net.py": "raise RuntimeError\n",
    "setup.py": "raise RuntimeError\n",
    "LICENSE": "Apache License\n",
}


def write_archive(path: Path) -> None:
    """Write a source archive of the published one's shape, with a few small files."""
    with tarfile.open(path, "w:gz") as tar:
        for name, source in SOURCES.items():
            member = tarfile.TarInfo(f"detectron2_cdo-0.5/{name}")
            member.size = len(source.encode())
            tar.addfile(member, io.BytesIO(source.encode()))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of a small archive."""
    folder = tmp_path_factory.mktemp("wheels")
    write_archive(folder / "archive.tar.gz")
    install_detectron2.build_wheel(folder / "archive.tar.gz", str(folder))
    return folder


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """The interpreter of a new virtual environment that has nothing, not even pip."""
    venv.create(tmp_path / "environment", with_pip=False)
    return tmp_path / "environment" / "bin" / "python"


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return folder


@pytest.fixture
def absent_detectron2(monkeypatch: pytest.MonkeyPatch, site_packages: Path) -> Path:
    """Let the script see an interpreter without Detectron2 whose site-packages is a new folder.

    Of pip's commands, the one for setuptools does nothing.
    """
    run_pip = install_detectron2.run_pip

    def run_some(purpose: str, *arguments: str) -> None:
        if "setuptools" not in purpose:
            run_pip(purpose, *arguments)

    problem = "ModuleNotFoundError: No module named ..."
    monkeypatch.setattr(install_detectron2, "try_import", lambda: ("", "", problem))
    monkeypatch.setattr(install_detectron2, "run_pip", run_some)
    monkeypatch.setattr(
        install_detectron2.sysconfig, "get_paths", lambda: {"purelib": str(site_packages)}
    )
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py"])
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return site_packages


def purelib(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(subprocess.check_output([python, "-c", code], text=True).strip())


def pip(python: Path, *arguments: str) -> str:
    """Run this environment's pip for another one, which has none."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    return subprocess.check_output([*command, *arguments], text=True)


def install_wheel(python: Path, wheels: Path) -> Path:
    """Install the wheel as the script does; return the folder of the package."""
    pip(python, "install", "--no-deps", "--no-index", "-f", str(wheels), "detectron2==0.5")
    return purelib(python) / "detectron2"


@pytest.mark.parametrize("alias", ALIASES)
def test_a_removed_alias_becomes_the_builtin(alias: str) -> None:
    patched, places = install_detectron2.patch_source(f"a.astype(np.{alias}); b = np.{alias}(1)")
    assert patched == f"a.astype({alias}); b = {alias}(1)"
    assert sum(places.values()) == 2


@pytest.mark.parametrize(
    "source",
    ["np.bool_", "np.int64", "np.intp", "np.float32", "np.object_", "np.str_", "np.strings"]
    + ["xnp.bool", "a.np.int", "np.integer", "Image.LINEAR_GRADIENT", "MyImage.LINEAR", "LINEAR"],
)
def test_other_names_are_not_patched(source: str) -> None:
    patched, places = install_detectron2.patch_source(source)
    assert patched == source
    assert not sum(places.values())


def test_samples_come_from_a_list() -> None:
    line = "cur_idx = self._rng.sample(self._fallback_candidates, k=1)[0]"
    patched, _ = install_detectron2.patch_source(line)
    assert patched == "cur_idx = self._rng.sample(sorted(self._fallback_candidates), k=1)[0]"


def test_the_removed_resampling_name_is_replaced() -> None:
    patched, _ = install_detectron2.patch_source("interp=Image.LINEAR, b=PIL.Image.LINEAR)")
    assert patched == "interp=Image.BILINEAR, b=PIL.Image.BILINEAR)"


@given(st.lists(st.sampled_from(["np.", "Image.", "LINEAR", "bool", "int", "_", "64", " ", ","])))
def test_patches_are_idempotent(parts: list[str]) -> None:
    patched, _ = install_detectron2.patch_source("".join(parts))
    again, places = install_detectron2.patch_source(patched)
    assert again == patched
    assert not sum(places.values())


def test_the_sources_map_the_projects_and_leave_the_rest_out(tmp_path: Path) -> None:
    write_archive(tmp_path / "archive.tar.gz")
    root = tmp_path / "sources"
    places = install_detectron2.write_sources(tmp_path / "archive.tar.gz", root)
    written = {path.relative_to(root).as_posix() for path in root.rglob("*.py")}
    assert written == {
        "detectron2/__init__.py",
        "detectron2/_C.py",
        "detectron2/data/mask.py",
        "detectron2/layers/ops.py",
        "detectron2/projects/__init__.py",
        "detectron2/projects/deeplab/__init__.py",
        "detectron2/projects/panoptic_deeplab/__init__.py",
        "detectron2/projects/point_rend/__init__.py",
    }
    assert {path.name for path in root.iterdir()} == {"detectron2", "LICENSE", "pyproject.toml"}
    assert {patch: count for patch, count in places.items() if count} == {
        "np.bool, np.int, ... -> bool, int, ...": 1
    }


def test_the_wheel_holds_all_files_and_only_python_is_patched(wheels: Path) -> None:
    (wheel,) = wheels.glob("detectron2-0.5-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
        mask = file.read("detectron2/data/mask.py").decode()
        config = file.read("detectron2/model_zoo/configs/Base.yaml").decode()
    assert {name for name in names if not name.endswith(".py")} == {
        "detectron2/model_zoo/configs/Base.yaml",
        "detectron2/model_zoo/configs/LVISv0.5/Mask.yaml",
    }
    assert {"detectron2/_C.py", "detectron2/projects/point_rend/__init__.py"} <= names
    assert "BOOL, INT = bool, np.int64\n" in mask
    assert config == "MODEL: np.bool\n"


def test_pip_lists_it_and_uninstalls_it_whole(wheels: Path, bare_python: Path) -> None:
    site_packages = install_wheel(bare_python, wheels).parent
    (distribution,) = importlib.metadata.distributions(path=[str(site_packages)])
    assert (distribution.name, distribution.version) == ("detectron2", "0.5")
    assert "setuptools<81" in (distribution.requires or [])
    assert any(path.name == "LICENSE" for path in distribution.files or [])
    subprocess.run([bare_python, "-c", "import detectron2.layers.ops"], check=True)
    assert pip(bare_python, "freeze").strip() == "detectron2==0.5"
    pip(bare_python, "uninstall", "--yes", "detectron2")
    assert not list(site_packages.iterdir())


def test_the_stand_in_for_the_operators_fails_on_use_only(wheels: Path, bare_python: Path) -> None:
    install_wheel(bare_python, wheels)

    def run(code: str) -> str:
        result = subprocess.run([bare_python, "-c", code], capture_output=True, text=True)
        return result.stdout.strip() or result.stderr.splitlines()[-1]

    assert run("from detectron2.layers import ops; print('ok')") == "ok"
    error = run("from detectron2.layers import ops; ops.call()")
    assert error.startswith("ImportError: detectron2._C.nms ") and "official build" in error
    assert run("from detectron2 import _C; print(hasattr(_C, '__path__'))") == "False"
    for name in ("compiler", "cuda"):
        assert "pure-Python" in run(f"from detectron2 import _C; print(_C.get_{name}_version())")
    assert run("from detectron2 import _C; print(_C.has_cuda())") == "False"


def test_another_hash_is_one_sentence_and_leaves_nothing(
    absent_detectron2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_archive(tmp_path / "detectron2_cdo-0.5.tar.gz")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert install_detectron2.main() == 1
    error = capsys.readouterr().err
    assert "DO NOT MATCH THE HASHES" in error and "find out where" in error
    assert len(error.splitlines()) == 1
    assert not list(absent_detectron2.iterdir())


def test_offline_is_one_sentence_and_leaves_nothing(
    absent_detectron2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "no such folder"))
    assert install_detectron2.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("Detectron2 is not ready: pip could not download detectron2-cdo==0.5")
    assert "check the network" in error and len(error.splitlines()) == 1
    assert not list(absent_detectron2.iterdir())


@pytest.mark.parametrize(
    ("pip_error", "remedy"),
    [
        ("ERROR: Distributions from PyPI cannot declare direct URL dependencies.", "pip<26.3"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES. If you have updated", "where pip's"),
        ("ERROR: No matching distribution found for detectron2-cdo==0.5", "check the network"),
        ("No module named pip", "check the network"),
    ],
)
def test_what_pip_says_decides_on_the_remedy(
    monkeypatch: pytest.MonkeyPatch, pip_error: str, remedy: str
) -> None:
    stderr = f"WARNING: noise\n{pip_error}\n"
    failed = subprocess.CompletedProcess([], 1, "Collecting noise\n", stderr)
    monkeypatch.setattr(install_detectron2, "run_python", lambda *arguments: failed)
    with pytest.raises(InstallError) as caught:
        install_detectron2.run_pip("do it", "download")
    assert remedy in str(caught.value)
    assert pip_error.split(". ")[0] in str(caught.value)
    assert "noise" not in str(caught.value)


def test_bare_interpreter_is_told_what_to_do_first(bare_python: Path) -> None:
    result = subprocess.run([bare_python, SCRIPT], capture_output=True, text=True)
    assert result.returncode == 1
    assert "torch is not installed" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(purelib(bare_python).iterdir())


def test_a_detectron2_that_imports_is_kept(bare_python: Path) -> None:
    package = purelib(bare_python) / "detectron2"
    for name in ("engine", "evaluation", "projects/point_rend"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "projects" / "__init__.py").touch()
    (package / "__init__.py").write_text("__version__ = '0.6'\n")
    output = subprocess.check_output([bare_python, SCRIPT], text=True)
    assert output.startswith("Kept: Detectron2 0.6 in ") and str(package) in output


def test_another_one_that_does_not_import_is_not_replaced(bare_python: Path) -> None:
    package = purelib(bare_python) / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('built for another torch')\n")
    result = subprocess.run([bare_python, SCRIPT], capture_output=True, text=True)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert str(package) in result.stderr and "pip uninstall detectron2" in result.stderr
    assert (package / "__init__.py").is_file()


def test_a_damaged_installation_by_this_script_may_be_replaced(
    wheels: Path, bare_python: Path
) -> None:
    package = install_wheel(bare_python, wheels)
    site_packages = package.parent
    (metadata,) = site_packages.glob("detectron2-*.dist-info")

    def refuse(folder: Path) -> None:
        install_detectron2.refuse_foreign(str(folder), site_packages, "torn")

    refuse(package)
    with pytest.raises(InstallError, match="torn"):
        refuse(site_packages / "other")
    shutil.rmtree(metadata)  # an interrupted one
    refuse(package)
    (package / "_C.py").unlink()
    with pytest.raises(InstallError, match="torn"):
        refuse(package)
    # One of the former version of this script, which wrote its own metadata.
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: detectron2\nVersion: 0.5\nSummary: Detectron2 0.5 as pure "
        "Python, laid in by PixelCLIP's tools/install_detectron2.py\n"
    )
    refuse(package)


def test_pip_writes_the_sign_of_an_interrupted_installation_first(wheels: Path) -> None:
    (wheel,) = wheels.glob("detectron2-0.5-*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert file.namelist()[0] == "detectron2/_C.py"


def test_a_damaged_one_is_removed_before_its_successor_is_installed(
    absent_detectron2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package, metadata = (
        absent_detectron2 / name for name in ("detectron2", "detectron2-0.5.dist-info")
    )
    commands = []

    def run_pip(purpose: str, *arguments: str) -> None:
        is_download = arguments[0] == "download"
        commands.append((arguments[0], package.exists(), metadata.exists()))
        if is_download:
            write_archive(Path(arguments[arguments.index("-d") + 1]) / "archive.tar.gz")

    for folder in (package, metadata):
        folder.mkdir()
        (folder / "old").touch()
    monkeypatch.setattr(install_detectron2, "run_pip", run_pip)
    assert install_detectron2.main() == 1  # nothing was installed, so it does not import
    assert commands == [
        ("install", True, True),
        ("download", True, True),
        ("wheel", True, True),
        ("install", False, False),
    ]
    assert "it was installed but does not import" in capsys.readouterr().err
