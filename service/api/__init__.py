"""Routes of the HTTP interface, with their schemas and the OpenAPI document."""
