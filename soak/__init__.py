"""The system under load, faults and bad input, run for real: `python -m soak NAME`."""
