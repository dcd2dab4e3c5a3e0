"""Sparse codes over large dictionaries: tree search for atoms and matching pursuit with it."""
