"""A run's folder: what is written there, read again, and gone on from."""
