"""What `python -m experiments.benchmark` measures, row by row, and how it tells of it."""
