"""The words that cross a process border: pure, and importing nothing else of this product."""
