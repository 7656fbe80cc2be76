"""The parts of the PixelCLIP model, one concept per file."""
