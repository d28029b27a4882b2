"""The edge that faces people: authentication, routing, the relay, the HTTP proxy, the API."""

__version__ = "0.1.0"
