"""Judges predictions: arrays and tables in, numbers and tables out; knows no network and no run."""
