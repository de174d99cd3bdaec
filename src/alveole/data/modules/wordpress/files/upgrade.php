<?php
// Bring the tables to what this version of WordPress works with; nothing is done where they are. Run by the site's user.
if (PHP_SAPI !== 'cli') {
    exit(1);
}
$alveole = json_decode(file_get_contents('/config/wordpress/install.json'), true, 4, JSON_THROW_ON_ERROR);
$_SERVER['HTTP_HOST'] = (string) parse_url($alveole['url'], PHP_URL_HOST);
$_SERVER['REQUEST_METHOD'] = 'GET';
$_SERVER['REQUEST_URI'] = '/';
// As wp-admin/upgrade.php does it: plugins and themes stay out.
define('WP_INSTALLING', true);

require '/usr/share/wordpress/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
add_filter('pre_http_request', fn () => new WP_Error('none', 'no network while upgrading'));

if (!is_blog_installed()) {
    exit(0);
}
$before = (int) get_option('db_version');
wp_upgrade();
wp_cache_flush();
$after = (int) get_option('db_version');
if ($after !== (int) $GLOBALS['wp_db_version'] && $before < (int) $GLOBALS['wp_db_version']) {
    fwrite(STDERR, "WordPress: the tables are of version $after after the upgrade\n");
    exit(1);
}
echo $before === $after ? "WordPress: the tables fit\n" : "WordPress: tables of version $before are now of version $after\n";
