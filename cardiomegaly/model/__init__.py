"""Backbone, head and the Lightning module that joins them; knows nothing of data."""
