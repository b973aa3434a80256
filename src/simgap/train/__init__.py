"""CLIP trained on a split, with open_clip's own parts."""
