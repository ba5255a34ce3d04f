"""Runs of `train.py` by the hundred, and the search for settings."""
