"""Real node processes; skipped where they are not installed."""
