"""What a prompt's text says and does, beyond perplexity: several measures, never one sum.

`scrutability_panel` in `measures.py` computes those that are named; docs/scrutability.md describes
them.
"""
