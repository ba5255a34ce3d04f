"""Checking and preparing data sets; the command is `python -m tools.datasets`."""
