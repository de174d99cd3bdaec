<?php
// Make the site's tables and its administrator; later, apply answers that were changed. Run by the site's user.
if (PHP_SAPI !== 'cli') {
    exit(1);
}
$alveole = json_decode(file_get_contents('/config/wordpress/install.json'), true, 4, JSON_THROW_ON_ERROR);
$_SERVER['HTTP_HOST'] = (string) parse_url($alveole['url'], PHP_URL_HOST);
$_SERVER['REQUEST_METHOD'] = 'GET';
$_SERVER['REQUEST_URI'] = '/';
define('WP_INSTALLING', true);

// Nobody waits for the mail that says what the person has just chosen.
function wp_new_blog_notification($title, $url, $user, $password)
{
}

require '/usr/share/wordpress/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
require_once ABSPATH . 'wp-admin/includes/translation-install.php';
// It would ask itself whether addresses with words work: they do.
add_filter('pre_http_request', fn () => new WP_Error('none', 'no network while installing'));

$given = array_intersect_key($alveole, array_flip(['title', 'language', 'mail', 'public']));
$given['password'] = hash_hmac('sha256', $alveole['password'], AUTH_SALT);
$language = $alveole['language'] === 'en_US' ? '' : $alveole['language'];

if (!is_blog_installed()) {
    if ($language !== '') {
        load_default_textdomain($language);
        $GLOBALS['wp_locale'] = new WP_Locale();
    }
    $made = wp_install($alveole['title'], $alveole['admin'], $alveole['mail'], $alveole['public'], '',
        wp_slash($alveole['password']), $language);
    if (empty($made['user_id'])) {
        fwrite(STDERR, "WordPress could not be installed\n");
        exit(1);
    }
    $GLOBALS['wp_rewrite']->set_permalink_structure('/%year%/%monthnum%/%postname%/');
    $GLOBALS['wp_rewrite']->flush_rules(false);
    update_option('alveole_answers', $given, false);
    echo "WordPress is installed\n";
    exit(0);
}

// Only what was answered anew: what somebody changed in WordPress itself stays.
$before = (array) get_option('alveole_answers', []);
$changed = array_filter($given, fn ($value, $name) => ($before[$name] ?? null) !== $value, ARRAY_FILTER_USE_BOTH);
foreach ($changed as $name => $value) {
    if ($name === 'title') {
        update_option('blogname', $value);
    } elseif ($name === 'language') {
        update_option('WPLANG', $language);
    } elseif ($name === 'public') {
        update_option('blog_public', $value ? '1' : '0');
    } elseif ($name === 'mail') {
        update_option('admin_email', $value);
    } elseif ($name === 'password' && ($user = get_user_by('login', $alveole['admin']))) {
        // Slashed, as everything from a form is when it is compared.
        wp_set_password(wp_slash($alveole['password']), $user->ID);
    }
}
update_option('alveole_answers', $given, false);
echo 'WordPress: ' . ($changed ? 'applied ' . implode(', ', array_keys($changed)) : 'nothing to apply') . "\n";
