"""How long tests wait for processes."""

# Seconds; what takes longer hangs. A machine that is shared can be ten times as slow as a free one.
PATIENCE = 900
