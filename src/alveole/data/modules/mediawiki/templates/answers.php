<?php
// What the install task needs; see install.php.
return [
    'title' => {{ a.title }},
    'language' => {{ a.language }},
    'admin' => {{ a.admin }},
    'password' => {{ a.password }},
    'mail' => {{ a.mail }},
    'server' => {{ site.url }},
    'path' => {{ '/mediawiki' if site.content else '' }},
    'database' => {{ answers.mariadb.database }},
    'user' => {{ answers.mariadb.user }},
    'database_password' => {{ answers.mariadb.password }},
];
