"""Zero-shot and few-shot accuracy of a CLIP model."""
