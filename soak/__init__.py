"""The system under load and faults, run for real: `python -m soak NAME` measures one part."""
