"""Using a network: one image, a large image in tiles, a whole folder."""
