"""Learn prompts for a frozen causal language model, and measure whether a person can read them.

After "Towards Interpretable Soft Prompts" (Patel et al. 2025, https://arxiv.org/abs/2504.02144).
"""

__version__ = "0.1.0"
