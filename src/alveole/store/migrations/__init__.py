"""Alembic's scripts, shipped in the package. History is append-only: never edit a released one."""
