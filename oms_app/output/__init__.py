"""What is written to disk: PNG files and sheets."""
