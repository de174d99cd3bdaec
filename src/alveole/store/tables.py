"""The tables as SQLAlchemy sees them; the migrations make them. A test compares the two."""

from __future__ import annotations

import sqlalchemy as sa

from alveole.store.sealing import Sealed

metadata = sa.MetaData()

sites = sa.Table(
    "sites",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("pending", sa.String(16), nullable=False, server_default=""),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
)
names = sa.Table(
    "names",
    metadata,
    sa.Column("name", sa.String(300), primary_key=True),
    sa.Column("site_id", sa.String(16), sa.ForeignKey("sites.id", ondelete="CASCADE"), nullable=False, index=True),
)
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("site_id", sa.String(16), primary_key=True),
    sa.Column("domain", sa.String(300), primary_key=True),
    sa.Column("token", sa.String(64), nullable=False),
    sa.Column("person", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("next_at", sa.Double, nullable=False, index=True),
    sa.Column("asked_at", sa.Double),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
)
leases = sa.Table(
    "leases",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("site_id", sa.String(16), nullable=False, unique=True),
)
releases = sa.Table(
    "releases",
    metadata,
    sa.Column("site_id", sa.String(16), sa.ForeignKey("sites.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("files", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("sender", sa.String(200), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("source", sa.String(80)),
)
backups = sa.Table(
    "backups",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("site_id", sa.String(16), nullable=False, index=True),
    sa.Column("site_name", sa.String(64), nullable=False, index=True),
    sa.Column("snapshot", sa.String(80), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("digest", sa.String(80), nullable=False),
    sa.Column("owner", sa.String(64), nullable=False, server_default=""),
)
plans = sa.Table(
    "plans",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
)
bases = sa.Table(
    "bases",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("image", sa.Text),
    sa.Column("created_at", sa.Double, nullable=False),
)
changes = sa.Table(
    "changes",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(16), nullable=False, unique=True),
    sa.Column("verb", sa.String(32), nullable=False),
    sa.Column("actor", sa.String(200), nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("site_id", sa.String(16), index=True),
    sa.Column("site_name", sa.String(64)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("problems", sa.Text, nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("work", sa.Text, nullable=False, server_default="{}"),
    sa.Column("via", sa.String(64), nullable=False, server_default=""),
    sa.Column("actor_key", sa.String(200), nullable=False, server_default=""),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("change_id", sa.String(16), nullable=False, index=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("level", sa.String(16), nullable=False),
    sa.Column("resource", sa.String(400), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("seconds", sa.Double),
)
links = sa.Table(
    "links",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("change_id", sa.String(16), nullable=False, index=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)
scenarios = sa.Table(
    "scenarios",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("site_id", sa.String(16), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("every", sa.Double, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.UniqueConstraint("site_id", "name"),
)
check_runs = sa.Table(
    "check_runs",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("scenario_id", sa.String(16), nullable=False, index=True),
    sa.Column("site_id", sa.String(16), nullable=False, index=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("use", sa.String(8), nullable=False),
    sa.Column("ok", sa.Boolean, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("report", sa.Text, nullable=False),
)
check_secrets = sa.Table(
    "check_secrets",
    metadata,
    sa.Column("site_id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", Sealed("check_secrets.value"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
channels = sa.Table(
    "channels",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("whom", sa.String(16), nullable=False, index=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("secret", Sealed("channels.secret"), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.UniqueConstraint("whom", "name"),
)
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("channel_id", sa.String(16), nullable=False),
    sa.Column("change_id", sa.String(16), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("next_at", sa.Double, nullable=False, index=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.UniqueConstraint("channel_id", "change_id"),
)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("person_id", sa.String(16), nullable=False, server_default=""),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("scope", sa.Text, nullable=False, server_default=""),
    sa.Column("sites", sa.Text, nullable=False, server_default=""),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double),
    sa.Column("last_used_at", sa.Double),
    sa.UniqueConstraint("person_id", "name"),
)
persons = sa.Table(
    "persons",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("email", sa.String(254), nullable=False),
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("external", sa.String(1000), nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("password", sa.String(200)),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double),
    sa.Column("language", sa.String(8), nullable=False, server_default=""),
)
teams = sa.Table(
    "teams",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("title", sa.String(200), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
members = sa.Table(
    "members",
    metadata,
    sa.Column("team_id", sa.String(16), primary_key=True),
    sa.Column("person_id", sa.String(16), primary_key=True, index=True),
    sa.Column("source", sa.String(16), primary_key=True),
)
shares = sa.Table(
    "shares",
    metadata,
    sa.Column("site_id", sa.String(16), primary_key=True),
    sa.Column("whom", sa.String(16), primary_key=True),
    sa.Column("near", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("whom", sa.String(16), primary_key=True),
    sa.Column("sites", sa.BigInteger),
    sa.Column("memory_bytes", sa.BigInteger),
    sa.Column("disk_bytes", sa.BigInteger),
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("person_id", sa.String(16), nullable=False, index=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("agent", sa.String(200), nullable=False),
    sa.Column("method", sa.String(16), nullable=False),
    sa.Column("entering", sa.Boolean, nullable=False),
)
invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("person_id", sa.String(16), nullable=False, index=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
)
factors = sa.Table(
    "factors",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("person_id", sa.String(16), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("secret", Sealed("factors.secret"), nullable=False),
    sa.Column("handle", sa.String(1400), unique=True),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("used_at", sa.Double),
)
known_places = sa.Table(
    "known_places",
    metadata,
    sa.Column("person_id", sa.String(16), primary_key=True),
    sa.Column("network", sa.String(64), primary_key=True),
    sa.Column("seen_at", sa.Double, nullable=False),
)
ssh_keys = sa.Table(
    "ssh_keys",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("person_id", sa.String(16), nullable=False, index=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("fingerprint", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("used_at", sa.Double),
)
apps = sa.Table(
    "apps",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("store_id", sa.String(16), nullable=False, unique=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
)
versions = sa.Table(
    "versions",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(16), nullable=False, unique=True),
    sa.Column("app_id", sa.String(16), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
    sa.UniqueConstraint("app_id", "name"),
)
deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("id", sa.String(16), nullable=False, unique=True),
    sa.Column("app_id", sa.String(16), nullable=False, index=True),
    sa.Column("environment", sa.String(16), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
)
#: ``whom``: the id of a site or of an application.
operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("whom", sa.String(16), nullable=False),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.UniqueConstraint("whom", "name"),
)
operation_runs = sa.Table(
    "operation_runs",
    metadata,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("site_id", sa.String(16), nullable=False, index=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("least", sa.String(16), nullable=False),
    sa.Column("arguments", sa.Text, nullable=False),
    sa.Column("by", sa.String(200), nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("exit_status", sa.Integer),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("cut", sa.Boolean, nullable=False),
    sa.Column("output", sa.Text, nullable=False),
)
idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("actor", sa.String(200), primary_key=True),
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("digest", sa.String(200), nullable=False),
    sa.Column("change_id", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
)
settings = sa.Table(
    "settings",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", Sealed("settings.value"), nullable=False),
)
