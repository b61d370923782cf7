"""What goes wrong in a validator."""


class ValidatorError(Exception):
    """Base of the errors of this area."""


class EmbeddingFailed(ValidatorError):
    """No vectors could be made of texts; the round waits."""


class GroundTruthInvalid(ValidatorError):
    """The ground-truth file cannot be used; the text names the line."""


class WordsInvalid(ValidatorError, ValueError):
    """The file of words cannot be used; the text says what is wrong."""
