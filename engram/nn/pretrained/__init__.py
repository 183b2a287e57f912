"""Networks that users bring: known architectures, checked weights, and what is read of them."""
