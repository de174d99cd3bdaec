"""What a site of the module python answers until it gets content of its own."""


def app(environ, start_response):
    body = b"<!doctype html><title>It works</title><h1>It works</h1><p>alveole site update NAME --from DIR\n"
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
