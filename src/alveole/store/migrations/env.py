"""Run by Alembic inside the one transaction that :mod:`alveole.store` opened (fault 21)."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transactional_ddl=False, transaction_per_migration=False)
context.run_migrations()
