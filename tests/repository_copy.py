"""A copy of the repository that may be changed."""

import shutil
import subprocess
from pathlib import Path


def copy_repository(repository: Path, target: Path) -> None:
    """Copy the files of the working tree that git knows, or that it does not ignore.

    Raises:
        subprocess.CalledProcessError: the repository is not git's.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (repository / name).exists():  # one that was removed may still be listed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repository / name, target / name)
