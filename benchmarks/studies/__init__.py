"""Studies of single questions, each with a command and options of its own."""
