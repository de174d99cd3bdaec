#!/bin/sh
exec /bin/sh /config/goaccess/run.sh once
