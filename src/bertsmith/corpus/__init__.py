"""Text only: readers, sentences, personal data, and the token store."""
