"""The networks: classifiers from timm, and the masker's decoder."""
