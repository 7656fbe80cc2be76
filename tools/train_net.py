#!/usr/bin/env python
"""Train PixelCLIP, or evaluate it with ``--eval-only``."""

import argparse

from detectron2.engine import default_argument_parser

from pixelclip.checkpoint import PixelCLIPCheckpointer
from pixelclip.engine import Trainer
from pixelclip.engine.launch import launch
from pixelclip.engine.setup import setup


def main(args: argparse.Namespace) -> dict:
    """Train, or with ``--eval-only`` evaluate ``MODEL.WEIGHTS``, in this process."""
    cfg = setup(args)
    if args.eval_only:
        if not cfg.DATASETS.TEST:
            raise ValueError("DATASETS.TEST is empty: name the data sets to evaluate.")
        model = Trainer.build_model(cfg).eval()
        PixelCLIPCheckpointer(model, cfg.OUTPUT_DIR).resume_or_load(
            cfg.MODEL.WEIGHTS, resume=args.resume
        )
        if not (cfg.MODEL.WEIGHTS or args.resume):
            print("MODEL.WEIGHTS is empty: CLIP is evaluated as it is, not PixelCLIP.", flush=True)
        return Trainer.test(cfg, model)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    arguments = default_argument_parser().parse_args()
    launch(main, arguments)
