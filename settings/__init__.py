"""From a command line to a run's config: read, merged, its paths found, checked and printed.

`reading` makes the config and uses the others. What a trainer wants of its own options it says itself
(`ClipTrainer.config_problems`).
"""
