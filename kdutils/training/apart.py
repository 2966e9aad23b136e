"""Why seeds cannot be trained together: raised wherever a reason is found."""

__all__ = ["Apart", "first_line"]


class Apart(Exception):
    """Why seeds cannot be trained together."""


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0]
