"""The one base error."""


class ActshiftError(ValueError):
    """A wrong input: one sentence that says what was given, what is allowed and what to do next."""
