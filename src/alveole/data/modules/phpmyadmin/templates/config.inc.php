<?php
// libsodium wants a key of exactly 32 bytes.
$cfg['blowfish_secret'] = substr(hash('sha256', {{ a.secret }}), 0, 32);
$cfg['Servers'][1] = [
    'auth_type' => 'cookie',
    'host' => 'localhost',
    'socket' => '/run/mariadb/mysqld.sock',
    'connect_type' => 'socket',
    'compress' => false,
    'AllowNoPassword' => false,
];
$cfg['DefaultLang'] = {{ a.language }};
$cfg['TempDir'] = '/tmp/phpmyadmin';
if (!is_dir($cfg['TempDir'])) {
    @mkdir($cfg['TempDir'], 0700);
}
// Nothing is asked of the makers' server.
$cfg['VersionCheck'] = false;
$cfg['SendErrorReports'] = 'never';
$cfg['PmaNoRelation_DisableWarning'] = true;
$cfg['LoginCookieValidity'] = 1440;
// The outer address is what the edge says.
if (preg_match('/\A[a-z0-9.-]+(?::\d{1,5})?\z/i', $_SERVER['HTTP_HOST'] ?? '')) {
    $prefix = $_SERVER['HTTP_X_FORWARDED_PREFIX'] ?? '';
    $prefix = preg_match('~\A(?:/[A-Za-z0-9._-]+)+\z~', $prefix) ? $prefix : '';
    $scheme = ($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https' ? 'https' : 'http';
    $cfg['PmaAbsoluteUri'] = $scheme . '://' . $_SERVER['HTTP_HOST'] . $prefix . '/phpmyadmin/';
}
