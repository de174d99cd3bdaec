-- Brings the server to the answers: run once, and again whenever they change.
\set QUIET on
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_duration = off;
SELECT format('CREATE ROLE %I LOGIN', {{ a.user }})
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {{ a.user }})
\gexec
SELECT format('ALTER ROLE %I LOGIN NOSUPERUSER PASSWORD %L', {{ a.user }}, {{ a.password }})
\gexec
SELECT format('CREATE DATABASE %I OWNER %I', {{ a.database }}, {{ a.user }})
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = {{ a.database }})
\gexec
SELECT format('ALTER DATABASE %I OWNER TO %I', {{ a.database }}, {{ a.user }})
\gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {{ a.database }})
\gexec
-- In the superuser's own database; to others it shows nothing but their own.
SET client_min_messages = 'warning';
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
{% if a.extensions %}
\connect "dbname={{ a.database|plain }}"
{% for extension in a.extensions %}
SELECT format('CREATE EXTENSION IF NOT EXISTS %I', {{ extension }})
\gexec
{% endfor %}
{% endif %}
