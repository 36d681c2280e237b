"""A trained detector in somebody's hands: files in; probabilities, reasons and pictures out."""
