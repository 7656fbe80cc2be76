"""The scripts of tools/ and datasets/ in a clone, under the names that a wheel has them under.

The console commands of an editable install import them from here; see ``MAPPED_FOLDERS`` in
setup.py.
"""

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
__path__ = [str(_ROOT / "tools"), str(_ROOT)]  # pixelclip_tools.datasets is the folder datasets
