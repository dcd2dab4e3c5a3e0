"""Building students and teachers, reading any checkpoint safely, tapping features by name."""
