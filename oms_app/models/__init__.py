"""What is loaded, from where, and who may use it."""
