"""simgap: how much of a CLIP model's benchmark accuracy is owed to training images that resemble the test images."""
