"""The verb *serve*: talking with a model, in the terminal or through a server."""
