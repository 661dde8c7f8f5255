"""Tools for developers: screenshots and benchmarks of the page."""
