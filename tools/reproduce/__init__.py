"""The tables of the CDC paper again: what is there, the runs, and the page of what came out."""
