<?php
// Written from the site's answers. What stands here cannot be changed in the wiki itself.
$conf['title'] = {{ a.title }};
$conf['lang'] = {{ a.language }};
$conf['savedir'] = '/data/dokuwiki/data';
$conf['useacl'] = 1;
$conf['superuser'] = '@admin';
$conf['userewrite'] = '1';
$conf['updatecheck'] = 0;
$conf['allowdebug'] = {{ 1 if generic.version == 'dev' else 0 }};
$conf['disableactions'] = {{ '' if a.register else 'register' }};
// The outer scheme and path are what the edge says.
if (preg_match('~\A(?:/[A-Za-z0-9._-]+)+\z~', $_SERVER['HTTP_X_FORWARDED_PREFIX'] ?? '')) {
    $conf['basedir'] = $_SERVER['HTTP_X_FORWARDED_PREFIX'] . {{ '/dokuwiki/' if site.content else '/' }};
}
