"""Search over hard prompts: which may be tried, which are worth trying, and which win."""
