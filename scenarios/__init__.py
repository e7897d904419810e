"""Scenarios: one module per row of the action table and per named extra."""
