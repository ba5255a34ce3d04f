"""How far the probabilities and scores of a run can be trusted, in figures and pictures."""
