<?php
// Users, plug-ins or themes, one a line. Run by the site's user; plug-ins stay out, so that none of them can hinder it.
if (PHP_SAPI !== 'cli') {
    exit(1);
}
$alveole = json_decode(file_get_contents('/config/wordpress/install.json'), true, 4, JSON_THROW_ON_ERROR);
$_SERVER['HTTP_HOST'] = (string) parse_url($alveole['url'], PHP_URL_HOST);
$_SERVER['REQUEST_METHOD'] = 'GET';
$_SERVER['REQUEST_URI'] = '/';
define('WP_INSTALLING', true);

require '/usr/share/wordpress/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/plugin.php';

if (!is_blog_installed()) {
    fwrite(STDERR, "WordPress is not set up yet\n");
    exit(1);
}
$lines = [];
switch ($argv[1] ?? '') {
    case 'users':
        foreach (get_users(['orderby' => 'login']) as $user) {
            $lines[] = [$user->user_login, implode(',', $user->roles), $user->user_email, $user->user_registered];
        }
        break;
    case 'plugins':
        $active = (array) get_option('active_plugins', []);
        foreach (get_plugins() as $file => $plugin) {
            $lines[] = [$file, $plugin['Version'], in_array($file, $active, true) ? 'active' : 'inactive'];
        }
        break;
    case 'themes':
        foreach (wp_get_themes() as $name => $theme) {
            $lines[] = [$name, $theme->get('Version'), $name === get_stylesheet() ? 'active' : 'inactive'];
        }
        break;
    default:
        fwrite(STDERR, "users, plugins or themes\n");
        exit(2);
}
foreach ($lines as $line) {
    echo implode("\t", $line), "\n";
}
