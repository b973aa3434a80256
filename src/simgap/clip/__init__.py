"""Check the configs of CLIP models, load and save CLIP models, and encode images with them."""
