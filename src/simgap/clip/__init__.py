"""CLIP models: check configs, load and save models, encode images."""
