"""Callbacks and loggers: what surrounds the steps of a phase."""
