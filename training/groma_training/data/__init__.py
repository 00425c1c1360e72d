"""Readers: every published format becomes `Photo` records."""
