"""The benchmarks, one file each, and their registration with Detectron2 (builtin.py)."""
