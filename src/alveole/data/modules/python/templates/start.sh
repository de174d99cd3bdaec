#!/bin/sh
# Starts the application of the content: with the virtual environment that was built for it, if there is one.
cd /site/current || exit 1
python=/usr/bin/python3
if [ -x .venv/bin/python ]; then
    python=/site/current/.venv/bin/python
    export VIRTUAL_ENV=/site/current/.venv PATH="/site/current/.venv/bin:$PATH"
fi
{% if a.command %}
exec /bin/sh -c {{ a.command }}
{% else %}
exec "$python" /config/python/serve.py {{ a.server }} {{ a.app }} {{ a.workers }} {{ a.threads if a.server == 'wsgi' else 1 }} {{ a.timeout if a.server == 'wsgi' else 60 }}
{% endif %}
