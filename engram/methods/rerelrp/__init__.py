"""ReReLRP: units frozen by relevance, tasks recognised by relevance signatures."""
