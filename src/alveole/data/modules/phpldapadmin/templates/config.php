<?php
$config->custom->session['blowfish'] = substr(hash('sha256', {{ a.secret }}), 0, 32);
$config->custom->appearance['language'] = {{ a.language }};
$config->custom->appearance['hide_template_warning'] = true;
{% if generic.version == 'prod' %}
$config->custom->appearance['hide_debug_info'] = true;
{% endif %}
$config->custom->jpeg['tmpdir'] = '/tmp';

$servers = new Datastore();
$servers->newServer('ldap_pla');
$servers->setValue('server', 'name', {{ answers.openldap.organisation }});
$servers->setValue('server', 'host', '127.0.0.1');
$servers->setValue('server', 'port', 3389);
$servers->setValue('server', 'base', [{{ answers.openldap.suffix }}]);
$servers->setValue('server', 'tls', false);
$servers->setValue('login', 'auth_type', 'session');
$servers->setValue('login', 'bind_id', {{ 'cn=admin,' ~ answers.openldap.suffix }});
$servers->setValue('login', 'anon_bind', false);
$servers->setValue('appearance', 'pla_password_hash', 'ssha');
