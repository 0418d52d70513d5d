"""Towers: the only code that knows the layout of a weight family."""
