"""Find near-duplicates within the pool."""
