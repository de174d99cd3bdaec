"""Frozen values that every layer speaks. No effects, no imports from the layers above."""
