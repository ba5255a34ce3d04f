"""What a run has trained as one file, to be handed on: `python -m tools.export`."""
