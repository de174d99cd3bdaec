#!/bin/sh
cd /site/current || exit 1
# Without flight recorder and with a small code cache, a program that waits takes half the memory.
JAVA_TOOL_OPTIONS={{ '-Djava.awt.headless=true -Dfile.encoding=UTF-8 -Djava.io.tmpdir=/tmp -Xms16m -Xss512k -Xmx' ~ (a.heap // 1048576) ~ 'm ' ~ ('-XX:+UseSerialGC -XX:ReservedCodeCacheSize=64m' if generic.optimisation == 'normal' else '-XX:+UseSerialGC' if generic.optimisation == 'big' else '-XX:+UseG1GC') }}
export JAVA_TOOL_OPTIONS
{% if a.options %}
JAVA_TOOL_OPTIONS="$JAVA_TOOL_OPTIONS "{{ a.options }}
{% endif %}
{% if a.command %}
exec /bin/sh -c {{ a.command }}
{% else %}
exec /usr/bin/java -jar {{ a.jar }}{% if a.arguments %}{% for word in a.arguments.split(' ') %} {{ word }}{% endfor %}{% endif %}

{% endif %}
