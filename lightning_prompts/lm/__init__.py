"""The frozen language model: reading it, its passes, its nearest tokens."""
