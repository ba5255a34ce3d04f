"""The tiny CLIP of the embedded world: `python -m tools.tiny_clip` pre-trains it."""
