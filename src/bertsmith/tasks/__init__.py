"""Where text, tokens, tensors and labels meet: what a model is for."""
