"""The rooms that serve other libraries."""
