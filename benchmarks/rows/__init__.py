"""The rows of the table of goals; each file measures a family of them that share their systems."""
