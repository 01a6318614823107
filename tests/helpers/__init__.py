"""Small builders for tests: tiny models, prompts by hand, an engine that follows a script."""
