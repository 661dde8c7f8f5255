"""The training stages of the embedded base model."""
