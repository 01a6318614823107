"""Configuration: the only floor, with the verbs above it, that knows Hydra and OmegaConf."""
