"""Rollout engines: they turn prompts into groups of completions."""
