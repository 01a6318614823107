"""Data: prompts, tasks that generate them, raw text, and the order in which they are drawn."""
