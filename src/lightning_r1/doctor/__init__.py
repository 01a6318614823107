"""The verb *doctor*: everything that can be known about a run before it begins."""
