"""A teacher's predictions on disk: asked once, used in many runs."""
