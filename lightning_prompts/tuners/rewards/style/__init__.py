"""Rewards of rewriting a text in another style."""
