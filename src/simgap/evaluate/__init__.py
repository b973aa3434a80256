"""Measure the zero-shot and few-shot accuracy of CLIP models on benchmarks."""
