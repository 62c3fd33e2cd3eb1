"""Pure functions of gold answers and predictions. Numbers only."""
