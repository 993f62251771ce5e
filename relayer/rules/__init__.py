"""Rules: pure functions of facts, market and parameters; the same input gives the same bytes on every machine."""
