"""Figures of pictures, and distances between sets of them. numpy only."""
