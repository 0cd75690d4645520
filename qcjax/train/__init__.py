"""State, updates, devices, checkpoints and the training loop."""
