"""Example configurations and parameters."""
