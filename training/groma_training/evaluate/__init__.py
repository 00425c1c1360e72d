"""Measures on held-out photos, through torch or through the `groma` command line."""
