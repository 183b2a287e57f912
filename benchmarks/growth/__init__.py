"""Growth of costs with the number of tasks: answers, learning, storage and requests."""
