"use strict";
// Starts The Lounge with the configuration of the site, and keeps the first account as it was asked for.
const crypto = require("crypto");
const fs = require("fs");
const path = require("path");

const home = process.env.THELOUNGE_HOME;
const program = "/site/current/node_modules/thelounge";
const bcrypt = require("/site/current/node_modules/bcryptjs");

function write(file, text) {
    fs.writeFileSync(file + ".new", text, {mode: 0o600});
    fs.renameSync(file + ".new", file);
}

function link(file, target) {
    fs.rmSync(file, {force: true});
    fs.symlinkSync(target, file);
}

function keepAccount(wanted) {
    const users = path.join(home, "users");
    // What was asked for last, so that a password changed in The Lounge itself stays.
    const marker = path.join(home, "asked.json");
    const file = path.join(users, wanted.name + ".json");
    fs.mkdirSync(users, {recursive: true, mode: 0o700});
    const asked = fs.existsSync(marker) ? JSON.parse(fs.readFileSync(marker, "utf-8")) : {};
    const there = fs.existsSync(file);
    if (there && asked.name === wanted.name && bcrypt.compareSync(wanted.password, asked.hash)) {
        return;
    }
    const hash = bcrypt.hashSync(wanted.password, 11);
    const user = there
        ? JSON.parse(fs.readFileSync(file, "utf-8"))
        : {
              log: true,
              networks: [
                  {
                      // Conversations are kept under it; one that is not written down is another at each start.
                      uuid: crypto.randomUUID(),
                      name: wanted.network,
                      host: "127.0.0.1",
                      port: 6667,
                      tls: false,
                      rejectUnauthorized: false,
                      nick: wanted.name,
                      username: wanted.name,
                      realname: wanted.name,
                      channels: wanted.channels.map((name) => ({name: "#" + name})),
                  },
              ],
          };
    user.password = hash;
    write(file, JSON.stringify(user, null, "\t"));
    write(marker, JSON.stringify({name: wanted.name, hash}));
}

fs.rmSync("/run/alveole/web.sock", {force: true});
link(path.join(home, "config.js"), "/config/thelounge/config.js");
if (fs.existsSync("/config/thelounge/account.json")) {
    keepAccount(JSON.parse(fs.readFileSync("/config/thelounge/account.json", "utf-8")));
}

// It would ask api.github.com for news of itself; without a way out of the site that ends the whole program
// (an uncaught error of its library got 11).
const news = require(path.join(program, "dist/server/plugins/changelog")).default;
news.checkForUpdates = () => {};
news.fetch = () =>
    Promise.resolve({
        current: {prerelease: false, version: "v" + require(path.join(program, "package.json")).version, url: ""},
        expiresAt: -1,
    });
require(path.join(program, "index.js"));
