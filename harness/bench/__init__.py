"""Measurements of what runs cost; nothing imports them."""
