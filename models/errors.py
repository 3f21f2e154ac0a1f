"""Errors on the models' side that a person can act on."""


class ModelError(ValueError):
    """A model cannot be made as asked; the message is one line: rule, value received, remedy."""


class DivergedError(ModelError):
    """The loss of a trial became infinite or NaN: this trial has failed, the search continues."""
