"""Growing a small model into the start of a larger one: which axes there are, how each grows, and the proof."""
