"""The training system of Groma: the paper's three stages, export and evaluation."""
