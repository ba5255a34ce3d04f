"""Command-line tools, each run as `python -m tools.<name>` from the checkout."""

__path__.append(f"{__path__[0]}/moved")  # where old names of commands tell the new one
