"""Runs programs that a model wrote, where they can read, write, reach and cost nothing but what they are given."""
