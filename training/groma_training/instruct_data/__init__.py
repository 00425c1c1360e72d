"""Groma Instruct: grounded conversations written by a vision model that reads numbers drawn on the regions."""
