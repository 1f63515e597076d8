"""The one error of what cannot be done here: by a target, by a way to cut the network, on this machine."""


class Unsupported(ValueError):
    """It does not offer what was asked for; the message says what would help."""
