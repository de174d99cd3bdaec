#!/bin/sh
# The index as the data is now, then the server. Without data there is no index yet: update.sh brings it in.
umask 077
rm -f /run/sphinxsearch.pid
/usr/bin/indexer --config /config/sphinxsearch/sphinx.conf --quiet site
# In the foreground the program writes no number of its process, and the indexer needs it.
echo $$ >/run/sphinxsearch.pid
exec /usr/bin/searchd --console --config /config/sphinxsearch/sphinx.conf
