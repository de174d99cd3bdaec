<?php
// The administrator, who may do what, and a first page. What exists is kept.
if (PHP_SAPI !== 'cli') {
    exit(1);
}
$given = json_decode(file_get_contents('/config/dokuwiki/answers.json'), true, 4, JSON_THROW_ON_ERROR);
$here = '/data/dokuwiki';
umask(077);

function once(string $path, string $text): void
{
    if (!file_exists($path)) {
        file_put_contents("$path.new", $text);
        rename("$path.new", $path);
    }
}

// Fields of this file end at a colon; nothing of an answer but the name, the address and the hash stands in it.
$hash = password_hash($given['password'], PASSWORD_BCRYPT);
$mail = str_replace([':', "\n", "\r"], '', $given['mail']);
once("$here/conf/users.auth.php", "# users.auth.php\n# <?php exit()?>\n# login:passwordhash:Real Name:email:groups\n\n"
    . "{$given['admin']}:$hash:{$given['admin']}:$mail:admin,user\n");
$rights = ['open' => [8, 8], 'members' => [1, 8], 'private' => [0, 8]][$given['access']];
once("$here/conf/acl.auth.php", "# acl.auth.php\n# <?php exit()?>\n*\t@ALL\t{$rights[0]}\n*\t@user\t{$rights[1]}\n");
once("$here/data/pages/start.txt", "====== {$given['title']} ======\n");
echo "DokuWiki is installed\n";
