"""The one error that bad data raises."""


class DataError(ValueError):
    """Input that cannot be used; the message gives the rule, the value received and the remedy."""
