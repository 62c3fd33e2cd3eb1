"""Tensors only: the packed encoder, its heads, and Hugging Face's names for its weights."""
