"""What makes models: networks, augmentation, training, and how well they do. Pure functions on arrays."""
