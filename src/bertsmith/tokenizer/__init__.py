"""Text to pieces and back: training, loading and the words that pieces belong to. Tokens only."""
