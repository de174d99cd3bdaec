#!/bin/sh
cd /site/current || exit 1
export PATH="/site/current/node_modules/.bin:$PATH"
# What the package asks for itself comes after, and has the last word.
export NODE_OPTIONS={{ '--max-old-space-size=' ~ (a.heap // 1048576) }}
{% if a.command %}
exec /bin/sh -c {{ a.command }}
{% else %}
exec /usr/bin/node {{ a.main }}
{% endif %}
