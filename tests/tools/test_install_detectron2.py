import base64
import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tarfile
import venv
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
    "detectron2/projects/__init__.py": "",
    "projects/PointRend/point_rend/__init__.py": "from detectron2 import __version__\n",
    "projects/DeepLab/deeplab/__init__.py": "",
    "projects/Panoptic-DeepLab/panoptic_deeplab/__init__.py": "",
    "projects/PointRend/setup.py": "raise RuntimeError\n",
    "tools/train_net.py": "raise RuntimeError\n",
    "setup.py": "raise RuntimeError\n",
    "LICENSE": "Apache License\n",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A source archive of the published one's shape, with a few small files."""
    path = tmp_path / "detectron2_cdo-0.5.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, source in SOURCES.items():
            member = tarfile.TarInfo(f"detectron2_cdo-0.5/{name}")
            member.size = len(source.encode())
            tar.addfile(member, io.BytesIO(source.encode()))
    return path


@pytest.fixture
def site_packages(tmp_path: Path) -> Path:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return folder


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """The interpreter of a new virtual environment that has nothing, not even pip."""
    venv.create(tmp_path / "environment", with_pip=False)
    return tmp_path / "environment" / "bin" / "python"


@pytest.fixture
def absent_detectron2(monkeypatch: pytest.MonkeyPatch, site_packages: Path) -> Path:
    """Let the script see an interpreter without Detectron2 whose site-packages is a new folder."""
    failed = subprocess.CompletedProcess([], 1, "", "ModuleNotFoundError: No module named ...\n")
    version = install_detectron2.installed_version
    monkeypatch.setattr(install_detectron2, "find_detectron2", lambda: None)
    monkeypatch.setattr(install_detectron2, "try_import", lambda: failed)
    monkeypatch.setattr(
        install_detectron2,
        "installed_version",
        lambda name: None if name == "detectron2" else version(name),
    )
    monkeypatch.setattr(
        install_detectron2.sysconfig, "get_paths", lambda: {"purelib": str(site_packages)}
    )
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py"])
    return site_packages


def purelib(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return Path(subprocess.check_output([python, "-c", code], text=True).strip())


@pytest.mark.parametrize("alias", ALIASES)
def test_mend_replaces_a_removed_alias_by_the_builtin(alias: str) -> None:
    mended, places = install_detectron2.mend_source(f"a.astype(np.{alias}); b = np.{alias}(1)")
    assert mended == f"a.astype({alias}); b = {alias}(1)"
    assert sum(places.values()) == 2


@pytest.mark.parametrize(
    "source",
    ["np.bool_", "np.int64", "np.intp", "np.float32", "np.object_", "np.str_", "np.strings"]
    + ["xnp.bool", "a.np.int", "np.integer", "Image.LINEAR_GRADIENT", "MyImage.LINEAR", "LINEAR"],
)
def test_mend_leaves_other_names_alone(source: str) -> None:
    mended, places = install_detectron2.mend_source(source)
    assert mended == source
    assert not sum(places.values())


def test_mend_samples_from_a_list() -> None:
    line = "cur_idx = self._rng.sample(self._fallback_candidates, k=1)[0]"
    mended, _ = install_detectron2.mend_source(line)
    assert mended == "cur_idx = self._rng.sample(sorted(self._fallback_candidates), k=1)[0]"


def test_mend_replaces_the_removed_resampling_name() -> None:
    mended, _ = install_detectron2.mend_source("interp=Image.LINEAR, b=PIL.Image.LINEAR)")
    assert mended == "interp=Image.BILINEAR, b=PIL.Image.BILINEAR)"


@given(st.lists(st.sampled_from(["np.", "Image.", "LINEAR", "bool", "int", "_", "64", " ", ","])))
def test_mend_is_idempotent(parts: list[str]) -> None:
    mended, _ = install_detectron2.mend_source("".join(parts))
    again, places = install_detectron2.mend_source(mended)
    assert again == mended
    assert not sum(places.values())


def test_lay_in_maps_the_projects_and_leaves_the_rest_out(
    archive: Path, site_packages: Path
) -> None:
    files, places = install_detectron2.lay_in(archive, site_packages)
    laid = {path.relative_to(site_packages).as_posix() for path in site_packages.rglob("*.py")}
    assert "detectron2/projects/point_rend/__init__.py" in laid
    assert "detectron2/projects/deeplab/__init__.py" in laid
    assert "detectron2/projects/panoptic_deeplab/__init__.py" in laid
    assert "detectron2/_C.py" in laid
    assert not any("setup" in path or "train_net" in path for path in laid)
    assert {path.name for path in site_packages.iterdir()} == {
        "detectron2",
        install_detectron2.DIST_INFO,
    }
    assert files == sum(path.is_file() for path in site_packages.rglob("*"))
    assert dict(places) == {"np.bool, int, float, object, str -> the built-in ones": 1}


def test_lay_in_mends_python_files_only(archive: Path, site_packages: Path) -> None:
    install_detectron2.lay_in(archive, site_packages)
    package = site_packages / "detectron2"
    assert "BOOL, INT = bool, np.int64\n" in (package / "data" / "mask.py").read_text()
    assert (package / "model_zoo" / "configs" / "Base.yaml").read_text() == "MODEL: np.bool\n"


def test_distribution_is_readable_and_its_record_is_true(
    archive: Path, site_packages: Path
) -> None:
    install_detectron2.lay_in(archive, site_packages)
    (distribution,) = importlib.metadata.distributions(path=[str(site_packages)])
    assert (distribution.name, distribution.version) == ("detectron2", "0.5")
    on_disk = {p.relative_to(site_packages) for p in site_packages.rglob("*") if p.is_file()}
    assert {Path(path) for path in distribution.files or []} == on_disk
    for path in distribution.files or []:
        if path.name != "RECORD":
            content = (site_packages / path).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            assert path.hash and digest.rstrip("=") == path.hash.value
            assert path.size == len(content)


def test_pip_lists_it_and_uninstalls_it_whole(archive: Path, bare_python: Path) -> None:
    site_packages = purelib(bare_python)
    install_detectron2.lay_in(archive, site_packages)
    subprocess.run([bare_python, "-c", "import detectron2.layers.ops"], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", bare_python]
    assert "detectron2==0.5" in subprocess.check_output([*pip, "freeze"], text=True)
    subprocess.run([*pip, "uninstall", "--yes", "detectron2"], check=True, capture_output=True)
    assert not list(site_packages.iterdir())


def test_stand_in_for_the_operators_speaks_up_on_use_only(
    archive: Path, bare_python: Path
) -> None:
    install_detectron2.lay_in(archive, purelib(bare_python))

    def run(code: str) -> str:
        result = subprocess.run([bare_python, "-c", code], capture_output=True, text=True)
        return result.stdout.strip() or result.stderr.splitlines()[-1]

    assert run("from detectron2.layers import ops; print('ok')") == "ok"
    error = run("from detectron2.layers import ops; ops.call()")
    assert error.startswith("ImportError: detectron2._C.nms ") and "official build" in error
    assert run("from detectron2 import _C; print(hasattr(_C, '__path__'))") == "False"
    assert "pure-Python" in run("from detectron2 import _C; print(_C.get_compiler_version())")


@pytest.mark.parametrize("renames_before_the_kill", [0, 1, 2, 3])
def test_cut_short_it_leaves_no_half_package_and_can_be_repeated(
    archive: Path,
    site_packages: Path,
    monkeypatch: pytest.MonkeyPatch,
    renames_before_the_kill: int,
) -> None:
    install_detectron2.lay_in(archive, site_packages)
    real_rename, done = os.rename, []

    def rename(source: Path, target: Path) -> None:
        if len(done) == renames_before_the_kill:
            raise KeyboardInterrupt
        done.append(source)
        real_rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            install_detectron2.lay_in(archive, site_packages)
    package = site_packages / "detectron2"
    assert package.exists() == (renames_before_the_kill == 0)
    assert not package.exists() or (package / "data" / "mask.py").is_file()

    (site_packages / f"{install_detectron2.STAGING_PREFIX}left").mkdir()
    files, _ = install_detectron2.lay_in(archive, site_packages)
    assert files == sum(path.is_file() for path in site_packages.rglob("*"))
    assert len(list(site_packages.iterdir())) == 2


def test_another_hash_is_refused(tmp_path: Path) -> None:
    content = b"not the archive"
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(content)
    install_detectron2.verify_archive(path, hashlib.sha256(content).hexdigest())
    with pytest.raises(InstallError, match="archive.tar.gz has SHA-256 .* was expected"):
        install_detectron2.verify_archive(path)


def test_wrong_archive_is_one_sentence_and_leaves_nothing(
    absent_detectron2: Path,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(install_detectron2, "pin_setuptools", lambda: "setuptools kept")
    monkeypatch.setattr(install_detectron2, "download_archive", lambda folder: archive)
    assert install_detectron2.main() == 1
    error = capsys.readouterr().err
    assert "SHA-256" in error and len(error.splitlines()) == 1
    assert not list(absent_detectron2.iterdir())


def test_offline_is_one_sentence_and_leaves_nothing(
    absent_detectron2: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(install_detectron2, "pin_setuptools", lambda: "setuptools kept")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip_error: str, remedy: str
) -> None:
    stderr = f"WARNING: noise\n{pip_error}\n"
    failed = subprocess.CompletedProcess([], 1, "Collecting noise\n", stderr)
    monkeypatch.setattr(install_detectron2, "run_python", lambda *arguments: failed)
    with pytest.raises(InstallError) as caught:
        install_detectron2.download_archive(tmp_path)
    assert remedy in str(caught.value)
    assert pip_error.split(". ")[0] in str(caught.value)
    assert "noise" not in str(caught.value)


def test_bare_interpreter_is_told_what_to_do_first(bare_python: Path) -> None:
    result = subprocess.run([bare_python, SCRIPT], capture_output=True, text=True)
    assert result.returncode == 1
    assert "torch is not installed" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not list(purelib(bare_python).iterdir())


def test_one_that_imports_is_kept(bare_python: Path) -> None:
    package = purelib(bare_python) / "detectron2"
    for name in ("engine", "evaluation", "projects/point_rend"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").touch()
    (package / "projects" / "__init__.py").touch()
    (package / "__init__.py").write_text("__version__ = '0.6'\n")
    output = subprocess.check_output([bare_python, SCRIPT], text=True)
    assert output.startswith("Kept: Detectron2 0.6 in ") and str(package) in output


def test_one_that_does_not_import_is_not_replaced(bare_python: Path) -> None:
    package = purelib(bare_python) / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('built for another torch')\n")
    result = subprocess.run([bare_python, SCRIPT], capture_output=True, text=True)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1
    assert str(package) in result.stderr and "pip uninstall detectron2" in result.stderr
    assert (package / "__init__.py").is_file()


def test_a_damaged_one_of_our_own_may_be_replaced(archive: Path, site_packages: Path) -> None:
    install_detectron2.lay_in(archive, site_packages)
    package = site_packages / "detectron2"
    install_detectron2.refuse_foreign(package, site_packages, "torn")
    with pytest.raises(InstallError, match="torn"):
        install_detectron2.refuse_foreign(site_packages / "other", site_packages, "torn")
    (site_packages / install_detectron2.DIST_INFO / "INSTALLER").write_text("pip")
    with pytest.raises(InstallError, match="torn"):
        install_detectron2.refuse_foreign(package, site_packages, "torn")
