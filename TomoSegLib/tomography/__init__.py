"""Planes through a volume, the plane-Radon transform and its inverses."""
