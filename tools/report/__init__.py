"""One HTML page of all runs below an output folder."""
