"""The toy benchmark: drawn scenes with named objects, a tiny CLIP, and the demo on them."""
