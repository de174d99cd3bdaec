# What a site of the module ruby answers until it gets content of its own.
page = "<!doctype html><title>It works</title><h1>It works</h1><p>alveole site update NAME --from DIR\n"
run ->(env) { [200, { "Content-Type" => "text/html; charset=utf-8", "Content-Length" => page.bytesize.to_s }, [page]] }
