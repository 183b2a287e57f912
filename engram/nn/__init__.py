"""Networks: layouts, blocks, engrams, the commons, capacity, and all of them as bytes."""
