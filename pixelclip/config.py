"""Every configuration key that PixelCLIP adds to Detectron2's, and checks of their values."""

import logging
import math
from typing import Any

from detectron2.config import CfgNode

logger = logging.getLogger(__name__)

# CLIP's normalization of RGB images in 0..255.
CLIP_PIXEL_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_PIXEL_STD = (68.5005327, 66.6321579, 70.3231630)

# Former name and name of a key; configs with the former one keep working, with a warning.
RENAMED_KEYS = (
    ("DATALOADER.MAX_BROKEN_SHARE", "DATALOADER.MAX_CORRUPT_FRACTION"),
    ("SOLVER.CHECKPOINTS_KEPT", "SOLVER.MAX_TO_KEEP"),
)

FINETUNE_POLICIES = ("attention", "full", "none")
MASK_SOURCES = ("dataset", "dino")


def add_pixelclip_config(cfg: CfgNode) -> None:
    """Add PixelCLIP's keys, with the published ViT-B/16 values as defaults, to a Detectron2 config.

    Call it on the result of ``detectron2.config.get_cfg()`` before merging a YAML file.
    """
    cfg.MODEL.CLIP = _clip_config()
    cfg.MODEL.PIXELCLIP = _pixelclip_config()
    _add_test_config(cfg.TEST)
    # Files that describe your own data sets, each a folder of images and one of labels.
    cfg.DATASETS.SEM_SEG_FOLDERS = ()
    # CLIP's own normalization of RGB images in 0..255.
    cfg.MODEL.PIXEL_MEAN = list(CLIP_PIXEL_MEAN)
    cfg.MODEL.PIXEL_STD = list(CLIP_PIXEL_STD)
    cfg.INPUT.FORMAT = "RGB"
    # SSD color augmentation of the weak (teacher's) image.
    cfg.INPUT.COLOR_AUG_SSD = True
    # Decode a training JPEG at 1/2, 1/4 or 1/8 of its sides where its crop then still has at least
    # MODEL.CLIP.RESOLUTION pixels: faster, but the pixels differ a little.
    cfg.INPUT.REDUCED_JPEG_DECODING = False
    # Fraction of corrupt records, among all that were read, above which training stops.
    cfg.DATALOADER.MAX_CORRUPT_FRACTION = 0.2
    # Compile the image encoders and the mask decoder with torch.compile (needs a C++ compiler).
    cfg.MODEL.COMPILE = False
    _add_solver_config(cfg.SOLVER)
    for old, _ in RENAMED_KEYS:
        _set(cfg, old, None)


def _add_solver_config(node: CfgNode) -> None:
    # Learning rate of the image encoder, as a multiple of SOLVER.BASE_LR.
    node.CLIP_MULTIPLIER = 0.01
    # Learning rate of the class prompts, as a multiple of SOLVER.BASE_LR.
    node.PROMPT_MULTIPLIER = 10.0
    # Learning rate at which the cosine schedule ends (Detectron2 0.5 has no such key).
    node.BASE_LR_END = 1e-4
    # Number of parts in which a process's images go through the model, one after the other.
    node.ACCUMULATION_STEPS = 1
    # How many of a run's checkpoints to keep, the latest ones, next to the final one; 0 for all.
    node.MAX_TO_KEEP = 0
    # Seconds that a process waits for the others, before a step and in any collective, until it
    # ends with an error.
    node.STEP_TIME_LIMIT = 1800.0
    # Number format with SOLVER.AMP.ENABLED: "bfloat16", or on GPUs "float16" with scaled gradients.
    node.AMP.PRECISION = "bfloat16"


def _clip_config() -> CfgNode:
    node = CfgNode()
    # An open_clip architecture name, or an open_clip JSON model config: its path, or "json:" and
    # its content.
    node.ARCH = "ViT-B-16-quickgelu"
    # An open_clip pretrained tag, a weights file (open_clip's, OpenAI's, or model.safetensors of
    # transformers' CLIPModel), or "" for random weights.
    node.PRETRAINED = "openai"
    # (height, width) in pixels to which every image is resized before the image encoder.
    node.RESOLUTION = (320, 320)
    # What trains in the image encoder: "attention", "full" or "none".
    node.FINETUNE = "attention"
    # Way through a ViT's last block: "pixelclip", or a training-free one: "plain", "maskclip",
    # "sclip", "clearclip", "naclip".
    node.DENSE_PATH = "pixelclip"
    # Keep only the blocks' inputs for the backward pass and compute the blocks again in it: less
    # memory for about a third more time in the image encoder.
    node.ACTIVATION_CHECKPOINTING = False
    return node


def _crops_config() -> CfgNode:
    node = CfgNode()
    # Side of a crop, as a multiple of the longer side of the mask's bounding box.
    node.PADDING = 1.2
    # Side of the box filter that blurs what the mask leaves out, as a fraction of the image.
    node.BLUR = 0.26
    # Smallest fraction of the image that a mask with a crop covers.
    node.MIN_AREA = 0.01
    # Most crops of an image; of more masks, random ones get a crop.
    node.MAX_PER_IMAGE = 8
    return node


def _dino_config() -> CfgNode:
    node = CfgNode()
    # Model of the features, with MASK_SOURCE "dino": a ViT of timm, with the tag of its weights.
    node.MODEL = "vit_small_patch16_224.dino"
    # Its weights: "pretrained" (the tag's, downloaded once), a weights file, or "" for random ones.
    node.WEIGHTS = "pretrained"
    # Number of clusters of an image's features, each of which is a mask.
    node.NUM_MASKS = 16
    return node


def _add_test_config(node: CfgNode) -> None:
    # How a test image is shown to the encoder: "whole", "keep_aspect" or "sliding_window".
    node.INFERENCE_MODE = "whole"
    # Side of a sliding window in pixels of the test image (after INPUT.MIN_SIZE_TEST).
    node.WINDOW_SIZE = 320
    # Distance between neighboring sliding windows in pixels.
    node.WINDOW_STRIDE = 160
    # Images that each process segments at a time.
    node.IMS_PER_BATCH = 1
    # Write all predicted label maps as Detectron2's JSON of run-length codes.
    node.SAVE_PREDICTIONS = False
    # Average with the scores of the horizontally flipped image.
    node.FLIP = False
    # For data sets with a background class: pixels whose best cosine is below are background.
    node.BACKGROUND_THRESHOLD = -1.0
    # For data sets with a background class: words that mean background.
    node.BACKGROUND_WORDS = ()
    # Class names of each data set: "" for its own, "synonyms" for the rich ones.
    node.VOCABULARY = ""
    # What is measured: "segmentation", or "mask_classification" of given masks.
    node.EVALUATION = "segmentation"
    # Masks to classify, or those of MODEL.PIXELCLIP.TEST_MASKS "given": "ground_truth", or a folder
    # of SA-1B JSON files named like the images.
    node.MASKS = "ground_truth"
    # Published results to show next to ours, for example "ViT-B/16 SA-1B"; "" for none.
    node.PUBLISHED_ROW = ""


def _pixelclip_config() -> CfgNode:
    node = CfgNode()
    # Number of clusters K, each with one learnable class prompt.
    node.NUM_CLUSTERS = 64
    # Number of learnable tokens L in a class prompt.
    node.PROMPT_LENGTH = 4
    # Text around the learnable tokens, which stand at "{}".
    node.PROMPT_TEMPLATE = "A photo of a {} in the scene"
    # Set of prompt templates whose text features are averaged, before they are normalized, in
    # training instead of PROMPT_TEMPLATE; "" for none.
    node.PROMPT_ENSEMBLE = ""
    # What stands for the clusters: "prompts", or for comparison "free_vectors" or "class_names".
    node.CLUSTER_EMBEDDINGS = "prompts"
    # Vocabulary whose names stand for the clusters with "class_names"; K is then its length.
    node.CLUSTER_NAMES = "coco_stuff_171"
    # How masks get their clusters: "sinkhorn", or for comparison "argmax" (each mask its nearest)
    # or "none" (no clusters: each mask is a target of its own).
    node.ASSIGNMENT = "sinkhorn"
    # Factor on the cosines between mask features and cluster embeddings before Sinkhorn.
    node.ASSIGNMENT_SCALE = 100.0
    # Number of Sinkhorn normalization rounds.
    node.SINKHORN_ITERS = 3
    # Share of the old teacher that each momentum update keeps; 0: the teacher is the student,
    # 1: it stays what it was.
    node.MOMENTUM = 0.999
    # (height, width) at which masks are pooled and compared with the prediction.
    node.MASK_RESOLUTION = (256, 256)
    # Where training masks come from: "dataset", the annotations of DATASETS.TRAIN, or "dino", the
    # clusters of each image's DINO features (its annotations are not read, if there are any).
    node.MASK_SOURCE = "dataset"
    # What makes the masks with "dino".
    node.DINO = _dino_config()
    _add_keys_beyond_the_paper(node)
    _add_inference_config(node)
    return node


def _add_keys_beyond_the_paper(node: CfgNode) -> None:
    # How many masks of earlier batches share the clusters with those of a batch in Sinkhorn.
    node.QUEUE_SIZE = 0
    # What masks are clustered by: "pooled" teacher features, those of MaskCLIP's value path
    # ("pooled_value_path"), or a mixture of these with centered embeddings of the masks' crops
    # ("pooled_and_crop").
    node.MASK_FEATURES = "pooled"
    # Weight of the feature of the smallest mask that contains a mask, added to its own.
    node.CONTAINER_WEIGHT = 0.0
    # The crops of "pooled_and_crop".
    node.CROPS = _crops_config()
    # How class prompts begin: as "random" words, or fitted to a "kmeans" clustering of the first
    # masks' features.
    node.PROMPT_INITIALIZATION = "random"
    # Number of masks, each of at least 1% of its image, that are clustered for "kmeans".
    node.PROMPT_INITIALIZATION_MASKS = 5000


def _add_inference_config(node: CfgNode) -> None:
    # Set of prompt templates in which class names are embedded at inference.
    node.TEST_TEMPLATES = "imagenet_select"
    # (height, width) of the feature map on which classes are compared at inference.
    node.TEST_FEATURE_SIZE = (64, 64)
    # Masks inside which similarity is averaged at inference: "none", "given" (those of TEST.MASKS),
    # or of a generator: "superpixels", "mobile_sam" and others, see docs/masks.md.
    node.TEST_MASKS = "none"
    # The generator's model and weights file, as of `pixelclip masks`; "" for its usual ones.
    node.TEST_MASK_MODEL = ""
    # See TEST_MASK_MODEL.
    node.TEST_MASK_WEIGHTS = ""
    # Of generated masks that overlap, a pixel takes the scores of the "smallest", or their "mean".
    node.TEST_MASK_OVERLAP = "smallest"
    # What masks are scored by, in mask classification too: "pooled" similarity, or that and their
    # crops' ("pooled_and_crop").
    node.TEST_MASK_FEATURES = "pooled"
    # Weight of a crop's scores, where that of pooled similarity is 1.
    node.TEST_CROP_WEIGHT = 0.5


def take_renamed_keys(cfg: CfgNode) -> CfgNode:
    """The config, or a copy in which values of former keys are those of the keys' present names."""
    for old, new in RENAMED_KEYS:
        value = _get(cfg, old)
        if value is None:
            continue
        logger.warning("The config key %s is deprecated; use %s.", old, new)
        is_frozen, cfg = cfg.is_frozen(), cfg.clone()
        cfg.defrost()
        _set(cfg, new, value)
        _set(cfg, old, None)
        if is_frozen:
            cfg.freeze()
    return cfg


def _get(cfg: CfgNode, key: str) -> Any:
    section, name = key.split(".")
    return cfg[section].get(name)


def _set(cfg: CfgNode, key: str, value: Any) -> None:
    section, name = key.split(".")
    cfg[section][name] = value


def check_model_config(cfg: CfgNode) -> None:
    """Refuse values that no PixelCLIP model can be built with.

    Raises:
        ValueError: naming the key, its value and what was expected.
    """
    _check_sizes(cfg)
    node = cfg.MODEL.PIXELCLIP
    if node.SINKHORN_ITERS < 1 or not 0 < node.ASSIGNMENT_SCALE < math.inf:
        raise ValueError(
            f"MODEL.PIXELCLIP.SINKHORN_ITERS is {node.SINKHORN_ITERS} and ASSIGNMENT_SCALE "
            f"{node.ASSIGNMENT_SCALE}; expected at least 1 and a positive number."
        )
    if len(cfg.MODEL.PIXEL_MEAN) != 3 or len(cfg.MODEL.PIXEL_STD) != 3:
        raise ValueError(
            f"MODEL.PIXEL_MEAN is {cfg.MODEL.PIXEL_MEAN} and PIXEL_STD {cfg.MODEL.PIXEL_STD}; "
            "expected three values each."
        )
    if cfg.INPUT.FORMAT != "RGB":
        raise ValueError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; CLIP takes 'RGB'.")
    check_choice("MODEL.PIXELCLIP.MASK_SOURCE", node.MASK_SOURCE, MASK_SOURCES)
    if node.DINO.NUM_MASKS < 1:
        raise ValueError(
            f"MODEL.PIXELCLIP.DINO.NUM_MASKS is {node.DINO.NUM_MASKS}; expected at least 1."
        )
    check_choice("MODEL.CLIP.FINETUNE", cfg.MODEL.CLIP.FINETUNE, FINETUNE_POLICIES)


def _check_sizes(cfg: CfgNode) -> None:
    node = cfg.MODEL.PIXELCLIP
    for key, size in (
        ("MODEL.CLIP.RESOLUTION", cfg.MODEL.CLIP.RESOLUTION),
        ("MODEL.PIXELCLIP.MASK_RESOLUTION", node.MASK_RESOLUTION),
        ("MODEL.PIXELCLIP.TEST_FEATURE_SIZE", node.TEST_FEATURE_SIZE),
    ):
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f"{key} is {size}; expected (height, width), both positive integers.")


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        ValueError: naming the key, the value and the choices.
    """
    if value not in choices:
        raise ValueError(f"{key} is {value!r}; it must be one of {', '.join(choices)}.")
