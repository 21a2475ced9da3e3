"""Data: annotation formats to samples, the starter data set, cached features, batches."""
