"""The one exception for mistakes that the person at the keyboard can mend."""


class SimgapError(Exception):
    """A one-line message that names the file or parameter, its value, and what would be right."""
