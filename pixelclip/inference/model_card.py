"""The model card of a shared model: what it was trained on, its results and licenses, its use."""

from pathlib import Path
from typing import TYPE_CHECKING

from detectron2.config import CfgNode

from pixelclip.checkpoint import read_checkpoint
from pixelclip.evaluation.benchmark import describe_protocol, result_settings
from pixelclip.evaluation.result_cache import hash_weights, load_result, make_fingerprint
from pixelclip.evaluation.table import Row, make_rows
from pixelclip.modeling.clip_loader import BUILT_IN_WEIGHTS, JSON_PREFIX, load_clip_config
from pixelclip.modeling.image_encoder import is_vit

if TYPE_CHECKING:
    from pixelclip.meta_arch import PixelCLIP

_PAPER = "https://arxiv.org/abs/2409.19846"
_TAGS = ("pixelclip", "clip", "semantic-segmentation", "open-vocabulary", "zero-shot")
# By the tag of CLIP's weights: their license, as those who published them state it.
_BASE_LICENSES = {
    "openai": "MIT, as OpenAI states for [CLIP](https://github.com/openai/CLIP)",
    "laion_aesthetic_s13b_b82k": "MIT, as their model card states",
}


def make_model_card(model: "PixelCLIP", cfg: CfgNode, name: str, license_id: str) -> str:
    """A README.md with the hub's metadata.

    Results are those that an evaluation stored next to ``MODEL.WEIGHTS`` for the very same weights
    and settings. Nothing is said that the config and the checkpoint do not tell.

    Args:
        model, cfg: the model, and the config that it was built from.
        name: under which :meth:`Predictor.from_pretrained` finds it.
        license_id: the hub's identifier of the license of the weights, such as "mit"; "unknown".
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    rows = _find_results(model, cfg)
    base_model, base, base_license = _describe_base(cfg)
    metadata = ModelCardData(
        license=license_id, library_name="pixelclip", pipeline_tag="image-segmentation",
        tags=list(_TAGS), base_model=base_model, model_name=name if rows else None,
        eval_results=[
            EvalResult(
                task_type="image-segmentation", metric_type="mean_iou", metric_value=row["mIoU"],
                dataset_type=row["data set"], dataset_name=row["data set"],
            )
            for row in rows
        ] or None,
    )  # fmt: skip
    card = ModelCard.from_template(
        metadata, template_path=str(Path(__file__).with_suffix(".md.jinja")),
        name=name, paper=_PAPER, license=license_id, base=base, base_license=base_license,
        architecture=f"`{_architecture_name(cfg)}`", resolution=cfg.MODEL.CLIP.RESOLUTION,
        convertible="transformers" if is_vit(model.image_encoder.visual) else "open_clip",
        training=_describe_training(cfg), rows=rows, protocol=describe_protocol(cfg).strip(),
    )  # fmt: skip
    return f"{card}\n"


def _find_results(model: "PixelCLIP", cfg: CfgNode) -> list[Row]:
    folder = Path(cfg.MODEL.WEIGHTS).parent / "evaluation"
    names = sorted(path.stem for path in folder.glob("*.json") if path.stem != "benchmark")
    if not cfg.MODEL.WEIGHTS or not names:
        return []
    fingerprint = make_fingerprint(hash_weights(model), result_settings(cfg), {}, "")
    expected = {part: fingerprint[part] for part in ("weights", "settings")}
    found = {name: load_result(str(folder), name, expected) for name in names}
    results = {name: result for name, result in found.items() if result}
    return [row for row in make_rows(list(results), results, {}, {}) if row["mIoU"] is not None]


def _architecture_name(cfg: CfgNode) -> str:
    """An open_clip name, or that of the image encoder in a JSON config."""
    architecture = cfg.MODEL.CLIP.ARCH
    if not architecture.startswith(JSON_PREFIX) and not architecture.endswith(".json"):
        return architecture
    return load_clip_config(architecture)["vision_cfg"].get("timm_model_name", "a ViT of its own")


def _describe_base(cfg: CfgNode) -> tuple[str | None, str, str]:
    """CLIP's own weights: their repository on the hub, if any, a description, and the license."""
    from open_clip import get_pretrained_cfg

    architecture, tag = cfg.MODEL.CLIP.ARCH, cfg.MODEL.CLIP.PRETRAINED
    if tag in BUILT_IN_WEIGHTS.get(architecture, {}):
        return None, f"`{tag}` of PixelCLIP's package", "MIT, as the package"
    repository = get_pretrained_cfg(architecture, tag).get("hf_hub", "").rstrip("/")
    if not repository:
        return None, "not recorded", "unknown"
    text = f"open_clip's `{tag}`, [{repository}](https://huggingface.co/{repository})"
    return repository, text, _BASE_LICENSES.get(tag, "unknown")


def _describe_training(cfg: CfgNode) -> str:
    if not cfg.MODEL.WEIGHTS:
        return "Not trained by PixelCLIP: these are the starting weights."
    data = ", ".join(f"`{name}`" for name in cfg.DATASETS.TRAIN) or "data that is not recorded"
    masks = {"dataset": "its masks", "dino": "clusters of DINO's features as masks"}
    iteration = read_checkpoint(cfg.MODEL.WEIGHTS, mmap=True).get("iteration")
    done = "the number done is not recorded" if iteration is None else f"{iteration + 1:,} done"
    return (
        f"Images of {data} with {masks[cfg.MODEL.PIXELCLIP.MASK_SOURCE]}, "
        f"{cfg.SOLVER.IMS_PER_BATCH} per iteration; {cfg.SOLVER.MAX_ITER:,} iterations planned, "
        f"{done}"
    )
