#!/bin/sh
cd /site/current || exit 1
export BUNDLE_USER_HOME=/tmp/bundle
puma="/usr/bin/puma"
[ -f Gemfile ] && puma="bundle exec puma"
{% if a.command %}
exec /bin/sh -c {{ a.command }}
{% else %}
# Two words where bundler starts it.
exec $puma --bind "tcp://0.0.0.0:$PORT" --environment "$RACK_ENV" --threads {{ '1:' ~ a.threads }} --workers {{ a.workers }} {{ a.rackup }}
{% endif %}
