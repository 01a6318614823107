"""Ranks: what they exchange, and the step they take together."""
