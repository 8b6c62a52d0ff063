"""Faregate: an entitlement and budget gate for LLM APIs."""

__version__ = "0.1.0"
