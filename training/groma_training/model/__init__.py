"""The model as torch modules under the official tensor names, one file a stage."""
