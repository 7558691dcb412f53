<?php
// What Roundcube finds in a From field: rcube_mime of Debian's package, unchanged. Lines as in readers.js; the folder of its
// classes is the first argument.

class rcube
{
    public $config;
    static function get_instance() { static $one; if (!$one) { $one = new rcube; $one->config = new rcube_config; } return $one; }
    static function raise_error() {}
}

class rcube_config
{
    function get($name, $default = null) { return $default; }
}

define('RCUBE_CHARSET', 'UTF-8');
ini_set('display_errors', '0');
foreach (['rcube_charset', 'rcube_utils', 'rcube_mime'] as $class) {
    require $argv[1] . "/$class.php";
}

function addresses($octets)
{
    try {
        return array_column(rcube_mime::decode_address_list(trim($octets)), 'mailto');
    } catch (Throwable $error) {
        return [];
    }
}

while (($line = fgets(STDIN)) !== false) {
    $found = array_map(fn($each) => ['roundcube' => addresses(base64_decode($each))], json_decode($line));
    echo json_encode($found, JSON_INVALID_UTF8_SUBSTITUTE), "\n";
}
