"""The papers' experiments, each as a command."""
