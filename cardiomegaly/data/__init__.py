"""Labels, cohort, split, decoded images and batches; knows nothing of models."""
