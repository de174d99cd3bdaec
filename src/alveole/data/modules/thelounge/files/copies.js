"use strict";
// "save": a consistent copy of each person's conversations beside them. "restore": the copies take their place.
const fs = require("fs");
const path = require("path");
const {DatabaseSync} = require("node:sqlite");

const folder = path.join(process.env.THELOUNGE_HOME || "/data/thelounge", "logs");
const ending = ".sqlite3";
const names = fs.existsSync(folder) ? fs.readdirSync(folder) : [];

if (process.argv[2] === "save") {
    for (const name of names.filter((each) => each.endsWith(ending))) {
        const copy = path.join(folder, name + ".copy");
        fs.rmSync(copy, {force: true});
        const database = new DatabaseSync(path.join(folder, name));
        database.exec("PRAGMA busy_timeout = 10000");
        database.prepare("VACUUM INTO ?").run(copy);
        database.close();
    }
} else {
    for (const name of names.filter((each) => each.endsWith(ending + ".copy"))) {
        const file = path.join(folder, name.slice(0, -".copy".length));
        for (const rest of ["-journal", "-wal", "-shm"]) {
            fs.rmSync(file + rest, {force: true});
        }
        fs.renameSync(path.join(folder, name), file);
    }
}
