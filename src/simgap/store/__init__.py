"""The formats that a study writes and reads."""
