"""Train CLIP models on splits with open_clip's model factory, loss and preprocessing."""
