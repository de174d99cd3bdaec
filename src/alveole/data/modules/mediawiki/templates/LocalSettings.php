<?php
// Written from the site's answers. What stands here cannot be changed in the wiki itself.
if (!defined('MEDIAWIKI')) {
    exit;
}
$wgSitename = {{ a.title }};
$wgLanguageCode = {{ a.language }};
$wgScriptPath = {{ '/mediawiki' if site.content else '' }};
$wgServer = {{ site.url }};
// The site answers at whatever name it was asked by: the edge lets through only names that are its own.
if (PHP_SAPI !== 'cli' && preg_match('/\A[a-z0-9.-]+(?::\d{1,5})?\z/i', $_SERVER['HTTP_HOST'] ?? '')) {
    $wgServer = (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https' ? 'https://' : 'http://') . $_SERVER['HTTP_HOST'];
    $alveolePrefix = $_SERVER['HTTP_X_FORWARDED_PREFIX'] ?? '';
    if (preg_match('~\A(?:/[A-Za-z0-9._-]+)+\z~', $alveolePrefix)) {
        $wgScriptPath = $alveolePrefix . $wgScriptPath;
        $_SERVER['REQUEST_URI'] = $alveolePrefix . $_SERVER['REQUEST_URI'];
    }
    unset($alveolePrefix);
}
$wgResourceBasePath = $wgScriptPath;
$wgArticlePath = $wgScriptPath . '/wiki/$1';
$wgUsePathInfo = true;

$wgDBtype = 'mysql';
$wgDBserver = 'localhost:/run/mariadb/mysqld.sock';
$wgDBname = {{ answers.mariadb.database }};
$wgDBuser = {{ answers.mariadb.user }};
$wgDBpassword = {{ answers.mariadb.password }};
$wgDBprefix = 'mw_';
$wgDBTableOptions = 'ENGINE=InnoDB, DEFAULT CHARSET=binary';

$wgSecretKey = hash('sha256', {{ a.secret }});
$wgAuthenticationTokenVersion = '1';

$wgEmergencyContact = {{ a.mail }};
$wgPasswordSender = {{ a.mail }};
$wgEnableEmail = false;

$wgMainCacheType = CACHE_ACCEL;
$wgSessionCacheType = CACHE_DB;
$wgParserCacheType = CACHE_DB;
$wgCacheDirectory = '/data/mediawiki/cache';
$wgLocalisationCacheConf['store'] = 'array';
$wgTmpDirectory = '/tmp';
// Jobs run after the answer was sent, and in the process that sent it.
$wgJobRunRate = 1;
$wgRunJobsAsync = false;

$wgEnableUploads = {{ a.uploads }};
$wgUploadDirectory = '/var/lib/mediawiki/images';
$wgUploadPath = $wgScriptPath . '/images';
$wgUseImageMagick = false;
$wgShellLocale = 'C.UTF-8';
$wgPingback = false;
{% if a.access == 'private' %}
$wgGroupPermissions['*']['read'] = false;
$wgWhitelistRead = ['Special:UserLogin', 'Special:PasswordReset'];
$wgUploadPath = $wgScriptPath . '/img_auth.php';
{% endif %}
$wgGroupPermissions['*']['edit'] = {{ a.access == 'open' }};
$wgGroupPermissions['*']['createaccount'] = {{ a.accounts }};

$wgDefaultSkin = 'vector';
wfLoadSkins(['Vector', 'MonoBook', 'Timeless', 'MinervaNeue']);
wfLoadExtensions(['CategoryTree', 'Cite', 'ImageMap', 'InputBox', 'ParserFunctions', 'Poem', 'TemplateData', 'WikiEditor']);
{% if generic.version == 'dev' %}

$wgShowExceptionDetails = true;
$wgDebugToolbar = true;
{% endif %}
