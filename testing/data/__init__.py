"""Training data, models and stores for tests."""
