"""CLIP models: their configs, loading and saving, and encoding images."""
