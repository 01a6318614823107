"""Evaluation: how good a model is, with its uncertainty."""
