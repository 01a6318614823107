"""Rewards: rules first. A reward reads a prompt and a completion and gives a typed verdict."""
