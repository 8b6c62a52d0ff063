"""Endpoints that an upstream has not, carried over one that it has: the request and its answer, translated."""
