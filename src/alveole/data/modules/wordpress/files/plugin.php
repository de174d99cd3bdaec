<?php
/*
Plugin Name: Alvéole
Description: Runs waiting jobs after an answer was sent, and keeps the site's own address out of texts.
*/
defined('ABSPATH') || exit;

// WordPress would ask itself over HTTP; the same in this process, once the visitor has the answer, costs nothing.
add_action('shutdown', function () {
    if (wp_installing() || wp_doing_cron() || wp_doing_ajax() || !function_exists('fastcgi_finish_request')
        || $_SERVER['REQUEST_METHOD'] !== 'GET' || !wp_get_ready_cron_jobs()) {
        return;
    }
    if ((float) get_transient('doing_cron') + WP_CRON_LOCK_TIMEOUT > microtime(true)) {
        return;
    }
    require ABSPATH . 'wp-cron.php';
}, PHP_INT_MAX);

// A picture in a text stays when the site gets another name.
add_filter('content_save_pre', function ($text) {
    $path = rtrim((string) parse_url(WP_CONTENT_URL, PHP_URL_PATH), '/') . '/';
    return str_replace(WP_CONTENT_URL . '/', $path, $text);
});

// Updates of the program come with its base.
add_filter('pre_site_transient_update_core', function () {
    return (object) ['updates' => [], 'version_checked' => get_bloginfo('version'), 'last_checked' => time()];
});
