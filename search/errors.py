"""What a person asked for cannot be done: told in words, without a traceback."""


class UserError(ValueError):
    """Bad input to a search. The text is for people: one line a problem, with its remedy."""
