"""The report's figures, each in a module of its own."""
