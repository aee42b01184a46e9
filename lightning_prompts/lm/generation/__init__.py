"""Texts that the language model writes."""
