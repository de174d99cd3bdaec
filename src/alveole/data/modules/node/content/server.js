// What a site of the module node answers until it gets content of its own.
const http = require("http");

const body = "<!doctype html><title>It works</title><h1>It works</h1><p>alveole site update NAME --from DIR\n";
const server = http.createServer((request, response) => {
  response.writeHead(200, { "Content-Type": "text/html; charset=utf-8", "Content-Length": Buffer.byteLength(body) });
  response.end(request.method === "HEAD" ? undefined : body);
});
server.listen(Number(process.env.PORT));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
