<?php
// Make the wiki's tables and its administrator with MediaWiki's own installer, in this process: no secret is ever
// an argument that others could see.
if (PHP_SAPI !== 'cli') {
    exit(1);
}
$given = require '/config/mediawiki/answers.php';
// Its own LocalSettings.php is thrown away: ours is there already, and the installer must not see it.
$work = '/tmp/mediawiki-install';
@mkdir($work, 0700);
putenv('MW_CONFIG_FILE=' . $work . '/none');
$secret = function (string $name, string $value) use ($work): string {
    file_put_contents("$work/$name", $value);
    return "$work/$name";
};
umask(077);
$_SERVER['argv'] = $argv = [
    'install.php',
    '--dbtype=mysql',
    '--dbserver=localhost:/run/mariadb/mysqld.sock',
    '--dbname=' . $given['database'],
    '--dbprefix=mw_',
    '--dbuser=' . $given['user'],
    '--dbpassfile=' . $secret('db', $given['database_password']),
    '--passfile=' . $secret('admin', $given['password']),
    '--lang=' . $given['language'],
    '--server=' . $given['server'],
    '--scriptpath=' . $given['path'],
    '--confpath=' . $work,
    $given['title'],
    $given['admin'],
];
$argc = count($argv);
register_shutdown_function(function () use ($work) {
    array_map('unlink', glob("$work/*"));
    @rmdir($work);
});
$_SERVER['SCRIPT_FILENAME'] = $_SERVER['PHP_SELF'] = '/usr/share/mediawiki/maintenance/install.php';
chdir('/usr/share/mediawiki/maintenance');
require '/usr/share/mediawiki/maintenance/install.php';
