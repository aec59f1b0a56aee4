"""Pure ASGI, one class a file; none imports another."""
