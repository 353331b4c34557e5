"""Volumes with their geometry: reading, writing, preprocessing."""
