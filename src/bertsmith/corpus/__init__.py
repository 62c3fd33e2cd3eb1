"""Text only: readers, sentences, and the token store."""
