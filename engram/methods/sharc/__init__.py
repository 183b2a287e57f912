"""SHARC: replay of masked feature maps that an associative memory completes."""
