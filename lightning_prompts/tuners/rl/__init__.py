"""A policy over prompts and how it learns."""
