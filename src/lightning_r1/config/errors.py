"""One kind of error for everything a user can get wrong in a config."""


class ConfigError(ValueError):
    """A config that cannot be run; the message names the key, the value and the fix, in one line."""
