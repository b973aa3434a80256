"""Draw the figures of the page. Each module draws the figures of one topic."""
