"""Changes of models that the service makes of their versions: networks adopted, names shown."""
