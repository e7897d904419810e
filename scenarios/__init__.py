"""Suites over the four observers: one module per row of the action table (spec/action-table.md)."""
