"""Measuring anything that turns an image into a larger one on the benchmark sets."""
