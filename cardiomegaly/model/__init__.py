"""Backbone and head as one network, and every way of using it; knows nothing of data."""
