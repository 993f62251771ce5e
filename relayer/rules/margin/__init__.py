"""Margin: pure functions of (holdings, market, parameters); the model interface is in `model`."""
