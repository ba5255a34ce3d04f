"""Why a run cannot take a file of another one's parameters."""

from __future__ import annotations

from trainers.modules.sharing import explain


def test_options_in_groups_are_explained_too():
    """They come first, by their keys; what is the same, and precision, is left out."""
    there = {"PREC": "fp16", "N_CTX": 4, "VIEWS": ["a"], "INVARIANT_MAP": {"ENABLED": True, "K": 5, "OLD": 1}}
    own = {"PREC": "fp32", "N_CTX": 4, "VIEWS": ["b"], "INVARIANT_MAP": {"ENABLED": False, "K": 5, "NEW": 1}}
    about = {"trainer": "CDC", "config": {"TRAINER": {"CDC": there}}}
    problems = ["has invariant.basis, which is not known"]
    assert explain(problems, about, "CDC", own) == [
        "was trained with INVARIANT_MAP.ENABLED True, where this run has False",
        *problems,
    ]
    assert explain([], about, "CDC", own) == []
