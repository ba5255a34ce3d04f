"""Command-line tools, each run as `python -m tools.<name>` from the checkout."""
