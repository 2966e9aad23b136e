"""Building and checking the book. Run a tool from the repository's root as ``python -m tools.NAME``."""
