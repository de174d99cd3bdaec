<?php
// Debian's own preload.php reads this: the wiki's settings are in its volume, not in /etc.
if (!defined('DOKU_CONF')) {
    define('DOKU_CONF', '/data/dokuwiki/conf/');
}
if (!defined('DOKU_FARM')) {
    define('DOKU_FARM', false);
}
