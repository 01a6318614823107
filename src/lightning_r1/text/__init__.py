"""Text: templates, tags, answers, exact arithmetic. Imports the standard library and nothing else."""
