"""The published documents: OpenAPI, AsyncAPI, and a page that shows both."""
