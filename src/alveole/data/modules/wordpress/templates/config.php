<?php
// Read by Debian's wp-config.php. What stands here cannot be changed from the site itself.
define('DB_NAME', {{ answers.mariadb.database }});
define('DB_USER', {{ answers.mariadb.user }});
define('DB_PASSWORD', {{ answers.mariadb.password }});
define('DB_HOST', 'localhost:/run/mariadb/mysqld.sock');
define('DB_CHARSET', 'utf8mb4');
$table_prefix = {{ a.prefix }};

foreach (['AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY',
          'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT'] as $alveole_key) {
    define($alveole_key, hash_hmac('sha256', $alveole_key, {{ a.secret }}));
}
unset($alveole_key);

// The site answers at whatever name it was asked by: the edge lets through only names that are its own.
$alveole_home = {{ site.url }};
if (PHP_SAPI !== 'cli' && preg_match('/\A[a-z0-9.-]+(?::\d{1,5})?\z/i', $_SERVER['HTTP_HOST'] ?? '')) {
    $alveole_prefix = $_SERVER['HTTP_X_FORWARDED_PREFIX'] ?? '';
    if (!preg_match('~\A(?:/[A-Za-z0-9._-]+)+\z~', $alveole_prefix)) {
        $alveole_prefix = '';
    }
    $alveole_https = ($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https';
    $alveole_home = ($alveole_https ? 'https://' : 'http://') . $_SERVER['HTTP_HOST'] . $alveole_prefix;
    if ($alveole_prefix !== '') {
        $_SERVER['REQUEST_URI'] = $alveole_prefix . $_SERVER['REQUEST_URI'];
    }
    unset($alveole_prefix, $alveole_https);
}
define('WP_HOME', rtrim($alveole_home, '/') . {{ '/wordpress' if site.content else '' }});
define('WP_SITEURL', WP_HOME);
unset($alveole_home);

define('WP_CONTENT_DIR', '/data/wordpress/wp-content');
define('WP_CONTENT_URL', WP_HOME . '/wp-content');
// The program is Debian's, and updated with its base.
define('WP_AUTO_UPDATE_CORE', false);
define('FS_METHOD', 'direct');
// Jobs are run after an answer was sent, by our plugin, and not by a request to itself.
define('DISABLE_WP_CRON', true);
define('WP_DEBUG', {{ generic.version == 'dev' }});
define('WP_DEBUG_DISPLAY', {{ answers.php.errors }});
define('WP_DEBUG_LOG', false);
define('WP_ENVIRONMENT_TYPE', {{ 'development' if generic.version == 'dev' else 'production' }});
