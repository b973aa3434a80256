"""Find nearest neighbours exactly."""
