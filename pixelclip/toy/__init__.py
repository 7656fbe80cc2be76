"""The embedded world: drawn pictures with named things, a tiny CLIP, and the demo in it."""
