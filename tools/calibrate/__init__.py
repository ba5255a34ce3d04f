"""Make trained runs as certain as they are right: `python -m tools.calibrate`."""
