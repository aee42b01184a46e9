"""What makes a prompt interpretable, as pure functions and the metrics that aggregate them."""
