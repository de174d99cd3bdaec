<?php
// Adminer with the databases of this site only: a visitor chooses none of the network's servers.

function adminer_object()
{
    class SiteAdminer extends Adminer
    {
        const SERVERS = [
{% if 'postgresql' in modules %}
            'pgsql' => ['PostgreSQL', '/run/postgresql'],
{% endif %}
{% if 'mariadb' in modules %}
            'server' => ['MariaDB', ':/run/mariadb/mysqld.sock'],
{% endif %}
        ];

        function name()
        {
            return htmlspecialchars({{ site.name }});
        }

        function loginFormField($name, $heading, $value)
        {
            if ($name === 'server') {
                return '<input type="hidden" name="auth[server]" value="">';
            }
            if ($name === 'driver') {
                $value = '<select name="auth[driver]">';
                foreach (self::SERVERS as $driver => [$title]) {
                    $value .= '<option value="' . $driver . '"' . (DRIVER === $driver ? ' selected' : '') . '>' . $title;
                }
                $value .= '</select>';
            }
            return $heading . $value . "\n";
        }

        function credentials()
        {
            if (!isset(self::SERVERS[DRIVER]) || (string) SERVER !== '') {
                http_response_code(403);
                exit('This is no server of the site.');
            }
            return [self::SERVERS[DRIVER][1], $_GET['username'], get_password()];
        }

        function login($login, $password)
        {
            return $password !== '';
        }

        function navigation($missing)
        {
            // Nothing is asked of the makers' server.
            echo script('verifyVersion = function () {};');
            parent::navigation($missing);
        }

{% if a.dark %}
        function css()
        {
            return ['?dark.css'];
        }

{% endif %}
    }

    return new SiteAdminer();
}

{% if a.dark %}
if (($_SERVER['QUERY_STRING'] ?? '') === 'dark.css') {
    header('Content-Type: text/css');
    header('Cache-Control: max-age=86400');
    exit('html { filter: invert(0.9) hue-rotate(180deg); background: #fff; }');
}
{% endif %}
include '/usr/share/adminer/adminer.php';
