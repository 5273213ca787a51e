"""Faults under load, and whether the service's promises hold."""
