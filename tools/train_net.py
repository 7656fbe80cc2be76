#!/usr/bin/env python
"""Train PixelCLIP, or evaluate it with ``--eval-only``."""

import argparse
import os


def parse_arguments() -> argparse.Namespace:
    """The options of Detectron2's own train_net.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", default="", metavar="FILE", help="path to the config")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR"
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    parser.add_argument("--num-gpus", type=int, default=1, help="per machine (%(default)s)")
    parser.add_argument("--num-machines", type=int, default=1, help="(%(default)s)")
    parser.add_argument("--machine-rank", type=int, default=0, help="of this one (%(default)s)")
    # Each user has a port, so that two on one machine do not meet.
    port = 2**15 + 2**14 + os.getuid() % 2**14
    parser.add_argument(
        "--dist-url", default=f"tcp://127.0.0.1:{port}", help="of the first process (%(default)s)"
    )
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the config"
    )
    return parser.parse_args()


def run(args: argparse.Namespace) -> dict:
    """Train, or with ``--eval-only`` evaluate ``MODEL.WEIGHTS``, in this process."""
    from pixelclip.checkpoint import PixelCLIPCheckpointer
    from pixelclip.engine import Trainer
    from pixelclip.engine.setup import setup

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


def main() -> None:
    """Run the command line, in one process or several."""
    args = parse_arguments()  # before the imports, which take seconds
    from pixelclip.engine.launch import launch

    launch(run, args)


if __name__ == "__main__":
    main()
