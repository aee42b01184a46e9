"""How a prompt and a batch pass through the language model without reading a token twice."""
