"""Share a model: as a folder, or as a repository of the Hugging Face hub with the same files."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from detectron2.config import CfgNode
from safetensors.torch import save_file

from pixelclip.checkpoint.conversion import select_weights
from pixelclip.checkpoint.saved_config import dump_portable_config
from pixelclip.checkpoint.weights_download import CONFIG_FILE, WEIGHTS_FILE
from pixelclip.inference.model_card import make_model_card
from pixelclip.utils.atomic_write import atomic_folder

if TYPE_CHECKING:
    from pixelclip.meta_arch import PixelCLIP


def write_model_folder(
    folder: str | os.PathLike[str], model: "PixelCLIP", cfg: CfgNode, name: str, license_id: str
) -> None:
    """Write weights, config and model card; see :meth:`Predictor.save_pretrained`.

    Args:
        folder: a new or an empty one.
        model, cfg, name, license_id: see :func:`make_model_card`.

    Raises:
        OSError, ValueError: see :meth:`Predictor.save_pretrained`.
    """
    config = dump_portable_config(cfg)
    weights = select_weights(model.state_dict(), "inference")
    with atomic_folder(folder) as temporary:
        card = make_model_card(model, cfg, name, license_id)
        Path(temporary, "README.md").write_text(card, encoding="utf-8")
        Path(temporary, CONFIG_FILE).write_text(config, encoding="utf-8")
        stored = {name: value.cpu().contiguous() for name, value in weights.items()}
        save_file(stored, os.path.join(temporary, WEIGHTS_FILE), {"format": "pt"})


def push_model(
    repo_id: str, model: "PixelCLIP", cfg: CfgNode, license_id: str, private: bool
) -> str:
    """Upload what :func:`write_model_folder` writes; see :meth:`Predictor.push_to_hub`."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repo_id)
    if "/" not in repo_id:
        raise ValueError(f"The name {repo_id!r} has no owner: expected 'owner/name'.")
    with tempfile.TemporaryDirectory() as parent, _explained_errors(repo_id):
        folder = Path(parent, "model")
        write_model_folder(folder, model, cfg, repo_id, license_id)
        api = HfApi(library_name="pixelclip")
        api.create_repo(repo_id, private=private, exist_ok=True)
        # In one commit: weights and config always belong together.
        files = [CommitOperationAdd(path.name, str(path)) for path in sorted(folder.iterdir())]
        return api.create_commit(repo_id, files, commit_message="Upload the model").commit_url


@contextlib.contextmanager
def _explained_errors(repo_id: str) -> Iterator[None]:
    try:
        yield
    except ValueError:  # of the config, of the name, or of the card's metadata
        raise
    except Exception as error:  # the hub's, and of several libraries below it
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        remedy = "the same call tries again"
        if status in (401, 403):
            remedy = "log in with `hf auth login`, and a token that may write there"
        raise ConnectionError(f"{repo_id!r} was not uploaded ({reason}): {remedy}.") from error
