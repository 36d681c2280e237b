"""The phantom cohort: generated chest-like radiographs in NIH's own layout."""
