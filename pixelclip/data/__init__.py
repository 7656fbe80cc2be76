"""Training data (SA-1B files, mask reading, augmentation), vocabularies and benchmark data sets."""
