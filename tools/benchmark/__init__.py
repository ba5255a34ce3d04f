"""How fast and how small the trainers are: `python -m tools.benchmark`."""
