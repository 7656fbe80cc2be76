"""Masks for any images: generators behind one interface, and the SA-1B files they write."""
