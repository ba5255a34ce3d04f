"""The study on the embedded data sets: `python -m tools.study`."""
