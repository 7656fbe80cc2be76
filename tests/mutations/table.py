"""Single-line mutations of the published method, and the tests that must fail with each.

Add one for what must not change unnoticed. Each names what it breaks, the file, the text there,
which occurs once, and the text that replaces it.
"""

from typing import NamedTuple


class Mutation(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


# In the order in which they run: the first failure ends the run.
CONFIG = ("tests/test_published_config.py", "tests/test_config.py")
RECORDED = ("tests/test_recorded_parity.py", "tests/test_training_trajectory.py")
DATA_PATH = ("tests/data/test_published_data_path.py",)
AUGMENTED = (*DATA_PATH, "tests/data/test_augmentation.py", "tests/data/test_mapper.py")
MAPPER = ("tests/data/test_mapper.py", *DATA_PATH)

BASE = "configs/Base-PixelCLIP.yaml"
VIT = "configs/pixelclip_vitb16.yaml"
CONVNEXT = "configs/pixelclip_convnextb.yaml"
VIT_DINO = "configs/pixelclip_vitb16_dino.yaml"
KEYS = "pixelclip/config.py"
MODEL = "pixelclip/meta_arch.py"
MODELING = "pixelclip/modeling"
DATA = "pixelclip/data"


def _constant(what: str, file: str, old: str, new: str) -> Mutation:
    return Mutation(what, file, old, new, CONFIG)


CONSTANTS = [
    _constant("clip value", BASE, "CLIP_VALUE: 0.01", "CLIP_VALUE: 0.011"),
    _constant("kind of clipping", BASE, 'CLIP_TYPE: "full_model"', 'CLIP_TYPE: "norm"'),
    _constant("weight decay", BASE, "WEIGHT_DECAY: 0.0001", "WEIGHT_DECAY: 0.01"),
    _constant("learning rate", BASE, "BASE_LR: 0.0002", "BASE_LR: 0.00022"),
    _constant("last learning rate", BASE, "BASE_LR_END: 0.0001", "BASE_LR_END: 0.0"),
    _constant("warm-up", BASE, "WARMUP_ITERS: 0", "WARMUP_ITERS: 100"),
    _constant("iterations", BASE, "MAX_ITER: 10000", "MAX_ITER: 9000"),
    _constant("batch size", BASE, "IMS_PER_BATCH: 48", "IMS_PER_BATCH: 16"),
    _constant("short side in training", BASE, "MIN_SIZE_TRAIN: (1024,)", "MIN_SIZE_TRAIN: (960,)"),
    _constant("long side in training", BASE, "MAX_SIZE_TRAIN: ", "MAX_SIZE_TRAIN: 1"),
    _constant("short side at test time", BASE, "MIN_SIZE_TEST: 640", "MIN_SIZE_TEST: 600"),
    _constant("long side at test time", BASE, "MAX_SIZE_TEST: 2560", "MAX_SIZE_TEST: 1333"),
    _constant("crop size", BASE, "SIZE: (640, 640)", "SIZE: (576, 576)"),
    _constant("ViT's resolution", VIT, "RESOLUTION: (320, 320)", "RESOLUTION: (336, 336)"),
    _constant("ViT's activation", VIT, '"ViT-B-16-quickgelu"', '"ViT-B-16"'),
    _constant("ViT's assignment scale", VIT, "SCALE: 100.0", "SCALE: 90.0"),
    _constant("what trains in a ViT", VIT, '"attention"', '"full"'),
    _constant("ConvNeXt's resolution", CONVNEXT, "(640, 640)", "(320, 320)"),
    _constant("ConvNeXt's assignment scale", CONVNEXT, "SCALE: 1.0", "SCALE: 100.0"),
    _constant("what trains in a ConvNeXt", CONVNEXT, '"full"', '"none"'),
    _constant("encoder's learning rate", KEYS, "CLIP_MULTIPLIER = 0.01", "CLIP_MULTIPLIER = 0.02"),
    _constant("prompts' learning rate", KEYS, "MULTIPLIER = 10.0", "MULTIPLIER = 1.0"),
    _constant("number of clusters", KEYS, "NUM_CLUSTERS = 64", "NUM_CLUSTERS = 58"),
    _constant("length of prompts", KEYS, "PROMPT_LENGTH = 4", "PROMPT_LENGTH = 5"),
    _constant("prompt template", KEYS, '"A photo of a {} in the scene"', '"A photo of a {}"'),
    _constant("Sinkhorn's rounds", KEYS, "SINKHORN_ITERS = 3", "SINKHORN_ITERS = 2"),
    _constant("momentum", KEYS, "MOMENTUM = 0.999", "MOMENTUM = 0.99"),
    _constant("mask resolution", KEYS, "MASK_RESOLUTION = (256,", "MASK_RESOLUTION = (224,"),
    _constant("test feature size", KEYS, "FEATURE_SIZE = (64, 64)", "FEATURE_SIZE = (32, 32)"),
    _constant("test templates", KEYS, '"imagenet_select"', '"imagenet"'),
    _constant("number of DINO masks", VIT_DINO, "NUM_MASKS: 16", "NUM_MASKS: 14"),
    _constant("number of DINO masks by default", KEYS, "NUM_MASKS = 16", "NUM_MASKS = 14"),
    _constant("DINO's ViT", VIT_DINO, "vit_small_patch16_224", "vit_small_patch8_224"),
    _constant("source of DINO masks", VIT_DINO, 'SOURCE: "dino"', 'SOURCE: "dataset"'),
    _constant("CLIP's mean", KEYS, "(122.7709383, 116.7460125, 104", "(123.675, 116.28, 103"),
    _constant("CLIP's deviation", KEYS, "(68.5005327, 66.6321579, 70", "(58.395, 57.12, 57"),
    _constant("channel order", KEYS, 'cfg.INPUT.FORMAT = "RGB"', 'cfg.INPUT.FORMAT = "BGR"'),
    _constant("weak colors", KEYS, "COLOR_AUG_SSD = True", "COLOR_AUG_SSD = False"),
]

IMAGE_ENCODER = [
    Mutation(
        "class token's residual for all tokens",
        f"{MODELING}/dense_paths.py",
        "+ tokens[:, :1]",
        "+ tokens",
        RECORDED,
    ),
    Mutation(
        "values, not keys, in the last block",
        f"{MODELING}/dense_paths.py",
        "weight, bias = attention.in_proj_weight[2 * width :]",
        "weight, bias = attention.in_proj_weight[width : 2 * width]",
        RECORDED,
    ),
    Mutation(
        "MLP of the last block",
        f"{MODELING}/dense_paths.py",
        "return values + block.ls_2(run_mlp(block, values))",
        "return values",
        RECORDED,
    ),
    Mutation(
        "QuickGELU",
        f"{MODELING}/transformer_block.py",
        "F.silu(hidden.mul_(1.702)).div_(1.702)",
        "F.gelu(hidden)",
        RECORDED,
    ),
    Mutation(
        "bicubic positional embedding",
        f"{MODELING}/image_encoder.py",
        'mode="bicubic", align_corners=False',
        'mode="bilinear", align_corners=False',
        RECORDED,
    ),
    Mutation(
        "corners of the positional embedding",
        f"{MODELING}/image_encoder.py",
        'mode="bicubic", align_corners=False',
        'mode="bicubic", align_corners=True',
        RECORDED,
    ),
    Mutation(
        "class token's own position",
        f"{MODELING}/image_encoder.py",
        "torch.cat([embedding[:1], grid])",
        "torch.cat([0 * embedding[:1], grid])",
        RECORDED,
    ),
    Mutation(
        "last norm of the ViT",
        f"{MODELING}/image_encoder.py",
        "visual.ln_post(tokens[:, 1:].to(visual.proj.dtype))",
        "tokens[:, 1:].to(visual.proj.dtype)",
        RECORDED,
    ),
    Mutation(
        "last norm of the ConvNeXt",
        f"{MODELING}/image_encoder.py",
        "trunk.head.norm(trunk.norm_pre(features))",
        "trunk.norm_pre(features)",
        RECORDED,
    ),
    Mutation(
        "positional embedding trains",
        f"{MODELING}/trainable_parameters.py",
        '".attn." in name or name.endswith("positional_embedding")',
        '".attn." in name',
        ("tests/modeling/test_trainable_parameters.py", *RECORDED),
    ),
    Mutation(
        "all of the attention trains",
        f"{MODELING}/trainable_parameters.py",
        '".attn." in name or',
        '".attn.in_proj" in name or',
        ("tests/modeling/test_trainable_parameters.py", *RECORDED),
    ),
    Mutation("normalized pixels", MODEL, " - self.pixel_mean)", ")", RECORDED),
    Mutation("scaled pixels", MODEL, ") / self.pixel_std", ")", RECORDED),
]

TEXT = [
    Mutation(
        "tokens after the learnable ones",
        f"{MODELING}/class_prompts.py",
        "template[first_slot + length :]",
        "template[first_slot + length + 1 :]",
        RECORDED,
    ),
    Mutation(
        "tokens before the learnable ones",
        f"{MODELING}/class_prompts.py",
        "(template[:first_slot], prompts)",
        "(template[: first_slot - 1], prompts)",
        RECORDED,
    ),
    Mutation(
        "place of the learnable tokens",
        f"{MODELING}/class_prompts.py",
        "torch.cat([self.tokens, suffix], dim=1)",
        "torch.cat([suffix[:, :1], self.tokens, suffix[:, 1:]], dim=1)",
        RECORDED,
    ),
    Mutation(
        "causal attention after a prefix",
        f"{MODELING}/transformer_block.py",
        "visible.tril(before)",
        "visible.tril(before + 1)",
        RECORDED,
    ),
    Mutation(
        "positions after a prefix",
        f"{MODELING}/text_encoder.py",
        "self.positional_embedding[start : start + length]",
        "self.positional_embedding[:length]",
        RECORDED,
    ),
    Mutation(
        "the end token stands for a text",
        f"{MODELING}/text_encoder.py",
        "return ids.argmax(dim=-1)",
        "return ids.argmax(dim=-1) - 1",
        RECORDED,
    ),
    Mutation(
        "long texts are not truncated",
        f"{MODELING}/text_encoder.py",
        "context_length=self.context_length + 1)",
        "context_length=self.context_length)",
        ("tests/modeling/test_text_encoder.py",),
    ),
    Mutation(
        "synonyms are averaged",
        f"{MODELING}/text_classifier.py",
        "words.mean(dim=0)",
        "words[0]",
        RECORDED,
    ),
    Mutation(
        "synonyms are normalized before they are averaged",
        f"{MODELING}/text_classifier.py",
        "features = F.normalize(features.float(), dim=-1)",
        "features = features.float()",
        ("tests/modeling/test_text_classifier.py", *RECORDED),
    ),
    Mutation(
        "a comma and a blank part synonyms",
        f"{DATA}/vocabularies.py",
        'SYNONYM_SEPARATOR = ", "',
        'SYNONYM_SEPARATOR = ","',
        ("tests/modeling/test_text_classifier.py",),
    ),
    Mutation(
        "templates are averaged",
        f"{MODELING}/text_classifier.py",
        "features.mean(dim=1)",
        "features[:, 0]",
        RECORDED,
    ),
    Mutation(
        "articles of the templates",
        f"{MODELING}/prompt_templates.py",
        'article = "an" if class_name[:1].lower() in tuple("aeiou") else "a"',
        'article = "a"',
        ("tests/modeling/test_prompt_templates.py",),
    ),
]

CLUSTERING = [
    Mutation(
        "assignment scale",
        f"{MODELING}/sinkhorn.py",
        "return self.scale * (masks @ clusters.T)",
        "return masks @ clusters.T",
        RECORDED,
    ),
    Mutation(
        "softmax over clusters",
        f"{MODELING}/sinkhorn.py",
        "logits.float().softmax(dim=1)",
        "logits.float().softmax(dim=0)",
        RECORDED,
    ),
    Mutation(
        "number of Sinkhorn rounds",
        f"{MODELING}/sinkhorn.py",
        "range(num_iterations)",
        "range(num_iterations - 1)",
        ("tests/modeling/test_sinkhorn.py",),
    ),
    Mutation(
        "clusters' normalization",
        f"{MODELING}/sinkhorn.py",
        "assignment / cluster_totals.clamp(min=smallest)",
        "assignment",
        ("tests/modeling/test_sinkhorn.py",),
    ),
    Mutation(
        "masks' normalization comes last",
        f"{MODELING}/sinkhorn.py",
        "return assignment",
        "return assignment / assignment.sum(dim=0)",
        ("tests/modeling/test_sinkhorn.py",),
    ),
    Mutation(
        "best cluster after Sinkhorn",
        f"{MODELING}/sinkhorn.py",
        'if self.method == "sinkhorn":',
        'if self.method == "argmax":',
        RECORDED,
    ),
    Mutation(
        "best, not worst, cluster",
        MODEL,
        "probabilities[gathered.own].argmax(dim=1)",
        "probabilities[gathered.own].argmin(dim=1)",
        RECORDED,
    ),
    Mutation(
        "pooled mean",
        f"{MODELING}/mask_pooling.py",
        "weights.flatten(1) @ image_features / area",
        "weights.flatten(1) @ image_features",
        ("tests/modeling/test_mask_pooling.py",),
    ),
    Mutation(
        "features are not normalized before they are pooled",
        f"{MODELING}/mask_pooling.py",
        "flat_features = features.reshape",
        "flat_features = F.normalize(features, dim=-1).reshape",
        ("tests/modeling/test_mask_pooling.py", *RECORDED),
    ),
    Mutation(
        "bilinear upsampling of pooled features",
        f"{MODELING}/mask_pooling.py",
        'mode="linear", align_corners=False',
        'mode="nearest-exact"',
        ("tests/modeling/test_mask_pooling.py", *RECORDED),
    ),
    Mutation(
        "masks of one pixel are dropped",
        f"{DATA}/masks.py",
        "rows + columns > 2",
        "rows + columns > 1",
        ("tests/modeling/test_targets.py",),
    ),
    Mutation(
        "masks are resized by nearest neighbor",
        f"{MODELING}/targets.py",
        'resolution, mode="nearest")',
        'resolution, mode="bilinear")',
        ("tests/modeling/test_targets.py", "tests/test_meta_arch.py"),
    ),
    Mutation(
        "the teacher sees the weak image",
        MODEL,
        "dense = self.teacher(self.preprocess(images))",
        'dense = self.teacher(self.preprocess([i["image_strong"] for i in batched_inputs]))',
        RECORDED,
    ),
    Mutation(
        "crops are centered",
        f"{MODELING}/mask_features.py",
        "mixed = pooled[crops.mask_index] + embeddings - self.mean_crop",
        "mixed = pooled[crops.mask_index] + embeddings",
        ("tests/modeling/test_mask_features.py",),
    ),
    Mutation(
        "the smallest container counts",
        f"{MODELING}/mask_features.py",
        "found = areas.argmin(dim=1) + start",
        "found = areas.argmax(dim=1) + start",
        ("tests/modeling/test_mask_features.py",),
    ),
    Mutation(
        "the mean crop is taken from a test image's crops",
        f"{MODELING}/mask_features.py",
        "embeddings = embeddings - self.mask_features.mean_crop",
        "embeddings = embeddings + 0 * self.mask_features.mean_crop",
        ("tests/modeling/test_inference_masks.py",),
    ),
    Mutation(
        "crops weigh as TEST_CROP_WEIGHT says",
        f"{MODELING}/inference_masks.py",
        "+ self.weight * self.scores) / (1 + self.weight)",
        "+ self.scores) / 2",
        ("tests/modeling/test_inference_masks.py",),
    ),
    Mutation(
        "a pixel takes the mean of all masks that have it",
        f"{MODELING}/inference_masks.py",
        "averages = node.TEST_MASK_OVERLAP == \"mean\"",
        "averages = False",
        ("tests/modeling/test_inference_masks.py",),
    ),
    Mutation(
        "the tightest clustering wins",
        f"{MODELING}/kmeans.py",
        "total < smallest",
        "total > smallest",
        ("tests/modeling/test_kmeans.py",),
    ),
    Mutation(
        "small masks do not say which clusters there are",
        "pixelclip/engine/prompt_initialization.py",
        "_MIN_AREA = 0.01",
        "_MIN_AREA = 0.0",
        ("tests/engine/test_prompt_initialization.py",),
    ),
    Mutation(
        "the mean crop moves slowly",
        f"{MODELING}/mask_features.py",
        "_MEAN_MOMENTUM = 0.9",
        "_MEAN_MOMENTUM = 0.8",
        ("tests/modeling/test_mask_features.py",),
    ),
    Mutation(
        "a crop is padded",
        f"{MODELING}/mask_crops.py",
        "self.padding * longer",
        "3 * longer",
        ("tests/modeling/test_mask_crops.py",),
    ),
    Mutation(
        "queued masks share the clusters",
        f"{MODELING}/mask_queue.py",
        "torch.cat([logits, earlier])",
        "torch.cat([logits, logits])",
        ("tests/modeling/test_mask_queue.py",),
    ),
    Mutation(
        "the student sees the strong image",
        MODEL,
        "student = self.image_encoder(strong)  #",
        "student = self.image_encoder(weak)  #",
        RECORDED,
    ),
    Mutation(
        "the teacher moves",
        MODEL,
        "self.teacher.update(self.image_encoder)",
        "pass",
        RECORDED,
    ),
    Mutation(
        "the teacher moves before it is used",
        MODEL,
        "self.teacher.update(self.image_encoder)",
        "self.image_encoder._forward_hooks[0] = lambda s, *_: self.teacher.update(s)",
        ("tests/modeling/test_momentum_teacher.py", "tests/test_meta_arch.py", *RECORDED),
    ),
    Mutation(
        "the teacher keeps the momentum's share",
        f"{MODELING}/momentum_teacher.py",
        "get_ema_multi_avg_fn(self.momentum)",
        "get_ema_multi_avg_fn(1 - self.momentum)",
        RECORDED,
    ),
    Mutation(
        "DINO masks are upsampled by nearest neighbor",
        f"{MODELING}/dino_masks.py",
        'F.interpolate(labels, size, mode="nearest")',
        'F.interpolate(labels, size, mode="bilinear").round()',
        ("tests/modeling/test_dino_masks.py",),
    ),
]

LOSS = [
    Mutation(
        "union of the masks of a cluster",
        f"{MODELING}/targets.py",
        "sums = own.T @ own_masks.flatten(1).float()",
        "sums = (own.cumsum(0) * own == 1).float().T @ own_masks.flatten(1).float()",
        ("tests/modeling/test_targets.py", *RECORDED),
    ),
    Mutation(
        "only valid pixels count",
        f"{MODELING}/losses.py",
        ".masked_fill(~valid_mask, -torch.inf)",
        "",
        RECORDED,
    ),
    Mutation(
        "mean over all channels of the valid pixels",
        f"{MODELING}/losses.py",
        "sum(dim=1)[image_index].sum()",
        "sum(dim=1).sum()",
        RECORDED,
    ),
    Mutation(
        "bilinear resizing of the decoder's output",
        f"{MODELING}/losses.py",
        'mode="bilinear", align_corners=False)[:, 0]',
        'mode="bilinear", align_corners=True)[:, 0]',
        RECORDED,
    ),
    Mutation(
        "the mean is that of all processes",
        MODEL,
        "pixel_count.clamp(min=1) / comm.get_world_size()",
        "pixel_count.clamp(min=1)",
        ("tests/utils/test_distributed.py",),
    ),
    Mutation(
        "groups of the first norms",
        f"{MODELING}/mask_decoder.py",
        "_double_conv(64, groups=4)",
        "_double_conv(64, groups=8)",
        RECORDED,
    ),
    Mutation(
        "groups of the second norms",
        f"{MODELING}/mask_decoder.py",
        "_double_conv(32, groups=2)",
        "_double_conv(32, groups=4)",
        RECORDED,
    ),
    Mutation(
        "convolutions without bias",
        f"{MODELING}/mask_decoder.py",
        "padding=1, bias=False)",
        "padding=1)",
        ("tests/modeling/test_mask_decoder.py", *RECORDED),
    ),
    Mutation(
        "ReLU in the decoder",
        f"{MODELING}/mask_decoder.py",
        "nn.ReLU(inplace=True)",
        "nn.GELU()",
        RECORDED,
    ),
    Mutation(
        "stride of the first upsampling",
        f"{MODELING}/mask_decoder.py",
        "F.conv_transpose2d(inputs, kernel, stride=2, padding=1)",
        "F.conv_transpose2d(inputs, kernel[..., 1:, 1:], stride=1, padding=1)",
        RECORDED,
    ),
    Mutation(
        "cosines of the student's features",
        f"{MODELING}/text_classifier.py",
        "F.normalize(features, dim=-1) @",
        "features @",
        RECORDED,
    ),
]

SOLVER = [
    Mutation(
        "the gradient is clipped before the step",
        "pixelclip/engine/solver.py",
        "register_step_pre_hook(clip)",
        "register_step_post_hook(clip)",
        ("tests/engine/test_solver.py", *RECORDED),
    ),
    Mutation(
        "the whole gradient is clipped",
        "pixelclip/engine/solver.py",
        'for group in optimizer.param_groups for p in group["params"]]',
        'for group in optimizer.param_groups[:1] for p in group["params"]]',
        ("tests/engine/test_solver.py", *RECORDED),
    ),
    Mutation(
        "no weight decay of embeddings",
        "pixelclip/engine/solver.py",
        "return 0.0",
        "return cfg.SOLVER.WEIGHT_DECAY",
        ("tests/engine/test_solver.py",),
    ),
    Mutation(
        "no weight decay of group norms",
        "pixelclip/engine/solver.py",
        "nn.LayerNorm, nn.GroupNorm,",
        "nn.LayerNorm,",
        ("tests/engine/test_solver.py",),
    ),
    Mutation(
        "no weight decay of layer norms",
        "pixelclip/engine/solver.py",
        "(nn.LayerNorm, nn.GroupNorm,",
        "(nn.GroupNorm,",
        ("tests/engine/test_solver.py",),
    ),
    Mutation(
        "prompts have their learning rate",
        "pixelclip/engine/solver.py",
        '"class_prompts": cfg.SOLVER.PROMPT_MULTIPLIER',
        '"class_prompts": 1.0',
        RECORDED,
    ),
    Mutation(
        "the image encoder has its learning rate",
        "pixelclip/engine/solver.py",
        '"image_encoder": cfg.SOLVER.CLIP_MULTIPLIER',
        '"image_encoder": 1.0',
        RECORDED,
    ),
    Mutation(
        "end of the cosine",
        "pixelclip/engine/solver.py",
        "CosineParamScheduler(1.0, solver.BASE_LR_END / solver.BASE_LR)",
        "CosineParamScheduler(1.0, 0.0)",
        ("tests/engine/test_solver.py", *RECORDED),
    ),
    Mutation(
        "gradients start at zero",
        "pixelclip/engine/training_step.py",
        "self.optimizer.zero_grad()",
        "pass",
        ("tests/test_training_trajectory.py",),
    ),
]

INFERENCE = [
    Mutation(
        "features are interpolated before they are normalized",
        f"{MODELING}/inference_views.py",
        "features = encoder(pixels).permute(0, 3, 1, 2)",
        "features = F.normalize(encoder(pixels), dim=-1).permute(0, 3, 1, 2)",
        RECORDED,
    ),
    Mutation(
        "cosines at inference",
        f"{MODELING}/text_classifier.py",
        "@ F.normalize(vectors, dim=-1).T",
        "@ vectors.T",
        RECORDED,
    ),
    Mutation(
        "bilinear resizing of test images",
        f"{MODELING}/inference_views.py",
        'resolution,\n                mode="bilinear"',
        'resolution,\n                mode="bicubic"',
        RECORDED,
    ),
    Mutation(
        "bilinear resizing of the scores",
        f"{MODELING}/inference_views.py",
        "clamp(max=length - 1), position - before",
        "clamp(max=length - 1), (position - before).round()",
        RECORDED,
    ),
    Mutation(
        "pixels are areas",
        f"{MODELING}/inference_views.py",
        "+ 0.5) * (length / new_length) - 0.5",
        ") * (length / new_length)",
        RECORDED,
    ),
]

AUGMENTATION_FILE = f"{DATA}/augmentation.py"


def _augmentation(what: str, old: str, new: str) -> Mutation:
    return Mutation(what, AUGMENTATION_FILE, old, new, AUGMENTED)


AUGMENTATION = [
    _augmentation(
        "bilinear resizing of training images",
        "Image.Resampling.BILINEAR, box=box",
        "Image.Resampling.NEAREST, box=box",
    ),
    _augmentation(
        "place of the crop", "box = (plan.left * x, plan", "box = (plan.top * x, plan"
    ),
    _augmentation(
        "probability of a flip", "np.random.uniform() < 0.5", "np.random.uniform() < 0.45"
    ),
    _augmentation("images are flipped with their masks", "crop = cv2.flip(crop, 1)", "pass"),
    _augmentation(
        "masks are flipped with their image",
        "columns[::-1] if self.horizontal_flip else columns",
        "columns",
    ),
    _augmentation("SSD's colors", "crop = augment_ssd_colors(crop)", "pass"),
    _augmentation("SSD's channel order", '_ColorAugSSD("BGR")', '_ColorAugSSD("RGB")'),
    _augmentation("SSD's brightness", "* alpha + beta", "* alpha + 0.9 * beta"),
    _augmentation("SSD's factors", "* alpha + beta", "* alpha**0.9 + beta"),
    _augmentation("brightness jitter", '"brightness": 0.5', '"brightness": 0.45'),
    _augmentation("contrast jitter", '"contrast": 0.5', '"contrast": 0.45'),
    _augmentation("saturation jitter", '"saturation": 0.5', '"saturation": 0.45'),
    _augmentation("hue jitter", '"hue": 0.25', '"hue": 0.225'),
    _augmentation("chance of jitter", "JITTER_PROBABILITY = 0.8", "JITTER_PROBABILITY = 0.72"),
    _augmentation("chance of gray", "GRAY_PROBABILITY = 0.2", "GRAY_PROBABILITY = 0.22"),
    _augmentation("chance of blur", "BLUR_PROBABILITY = 0.5", "BLUR_PROBABILITY = 0.45"),
    _augmentation("range of blur", "BLUR_SIGMA = (0.1, 2.0)", "BLUR_SIGMA = (0.1, 1.8)"),
    _augmentation(
        "smallest black rectangle", "RECTANGLE_SIDES = (0.1,", "RECTANGLE_SIDES = (0.11,"
    ),
    _augmentation(
        "largest black rectangle", "RECTANGLE_SIDES = (0.1, 0.5)", "RECTANGLE_SIDES = (0.1, 0.45)"
    ),
    _augmentation(
        "place of the black rectangle",
        "randint(0, height - rows)",
        "randint(0, (height - rows) // 2)",
    ),
    _augmentation(
        "the rectangle is black",
        "strong[top : top + rows, left : left + columns] = 0",
        "strong[top : top + rows, left : left + columns] = 128",
    ),
    Mutation(
        "the rectangle cuts the masks",
        f"{DATA}/mapper.py",
        "masks[:, top:bottom, left:right] = False",
        "pass",
        MAPPER,
    ),
    Mutation(
        "masks that a crop does not show are left out",
        f"{DATA}/mapper.py",
        "masks[is_visible]",
        "masks",
        MAPPER,
    ),
]

MUTATIONS = [
    *CONSTANTS,
    *IMAGE_ENCODER,
    *TEXT,
    *CLUSTERING,
    *LOSS,
    *SOLVER,
    *INFERENCE,
    *AUGMENTATION,
]
