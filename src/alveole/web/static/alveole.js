// What the pages do beyond forms and htmx: asking before what cannot be undone, sending files with progress,
// following logs. Without this script everything but the progress and the live log works all the same.
"use strict";
(() => {
  const csrf = () => document.body.dataset.csrf || "";
  const find = (selector, root = document) => root.querySelector(selector);

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-confirm]");
    if (button && !window.confirm(button.dataset.confirm)) {
      event.preventDefault();
      event.stopPropagation();
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) navigator.clipboard?.writeText(find(copy.dataset.copy).textContent.trim());
  }, true);

  // A slow answer must not be asked for twice.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.matches("[data-once]")) {
      const button = event.submitter;
      window.setTimeout(() => { if (button) button.disabled = true; });
    }
  });

  // --- an archive of files, made here (POSIX.1-1988 ustar) --------------------------------------
  const encoder = new TextEncoder();
  const octal = (value, size) => value.toString(8).padStart(size - 1, "0");

  function split(path) {
    const bytes = encoder.encode(path);
    if (bytes.length <= 100) return [path, ""];
    for (let at = path.indexOf("/"); at !== -1; at = path.indexOf("/", at + 1)) {
      const prefix = path.slice(0, at), name = path.slice(at + 1);
      if (encoder.encode(prefix).length <= 155 && encoder.encode(name).length <= 100) return [name, prefix];
    }
    throw new Error(path);
  }

  function header(path, size) {
    const block = new Uint8Array(512);
    const put = (text, at) => block.set(encoder.encode(text), at);
    const [name, prefix] = split(path);
    put(name, 0);
    put(octal(0o644, 8), 100);
    put(octal(0, 8), 108);
    put(octal(0, 8), 116);
    put(octal(size, 12), 124);
    put(octal(Math.floor(Date.now() / 1000), 12), 136);
    put("        ", 148);
    put("0", 156);
    put("ustar\u000000", 257);
    put(prefix, 345);
    put(octal(block.reduce((sum, byte) => sum + byte, 0), 7) + "\u0000 ", 148);
    return block;
  }

  const ARCHIVE = /\.(tar|tgz|tar\.(gz|xz|bz2|zst)|zip)$/i;
  const archived = (name) => ARCHIVE.test(name);

  // "keep": as they are, below the folder they are sent to; else what they hold becomes the site's content.
  function packed(files, keep) {
    if (!keep && files.length === 1 && archived(files[0].path)) return files[0].file;
    const tops = new Set(files.map((each) => each.path.split("/")[0]));
    // A folder is sent for what is in it, as an archive of it would be.
    const strip = !keep && tops.size === 1 && files.every((each) => each.path.includes("/"));
    const parts = [];
    for (const { path, file } of files) {
      parts.push(header(strip ? path.slice(path.indexOf("/") + 1) : path, file.size), file);
      if (file.size % 512) parts.push(new Uint8Array(512 - (file.size % 512)));
    }
    parts.push(new Uint8Array(1024));
    return new Blob(parts);
  }

  async function walk(entry, found, base = "") {
    if (entry.isFile) {
      found.push({ path: base + entry.name, file: await new Promise((done, no) => entry.file(done, no)) });
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      for (;;) {
        const batch = await new Promise((done, no) => reader.readEntries(done, no));
        if (!batch.length) break;
        for (const each of batch) await walk(each, found, base + entry.name + "/");
      }
    }
  }

  async function dropped(transfer) {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const found = [];
    for (const entry of entries) await walk(entry, found);
    return found;
  }

  function send(form, files) {
    const bar = find("progress", form), say = find("[data-say]", form), choose = find("[data-chosen]", form);
    const field = find("input[name=upload]", form);
    let body;
    try {
      body = packed(files, form.dataset.pack === "keep");
    } catch (error) {
      say.textContent = `${form.dataset.tooLong} ${error.message}`;
      return;
    }
    const buttons = form.querySelectorAll("button[type=submit], button:not([type])");
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/uploads");
    request.setRequestHeader("X-CSRF-Token", csrf());
    request.setRequestHeader("Content-Type", "application/octet-stream");
    bar.hidden = false;
    buttons.forEach((button) => { button.disabled = true; });
    choose.textContent = files.length === 1 ? files[0].path : `${files[0].path} + ${files.length - 1}`;
    const called = form.dataset.version && files.length === 1 && archived(files[0].path) ? find("[name=version]", form) : null;
    if (called && !called.value) {
      // As the incoming folder reads it: shop-2.6.tar.gz is 2.6.
      const plain = files[0].path.split("/").pop().replace(ARCHIVE, "");
      called.value = plain.replace(new RegExp(`^${form.dataset.version}[-_]`), "");
    }
    let told = 0;
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable) return;
      bar.max = event.total;
      bar.value = event.loaded;
      const percent = Math.floor((100 * event.loaded) / event.total);
      // A screen reader hears every tenth, not every packet.
      if (percent >= told + 10 || percent === 100) {
        told = percent;
        say.textContent = `${percent} %`;
      }
    });
    const end = (text) => {
      buttons.forEach((button) => { button.disabled = false; });
      say.textContent = text;
    };
    request.addEventListener("error", () => end(form.dataset.cut));
    request.addEventListener("load", () => {
      let answer = {};
      try { answer = JSON.parse(request.responseText); } catch { /* told below */ }
      if (request.status !== 201) {
        bar.hidden = true;
        end((answer.problems || [{ message: request.statusText }]).map((each) => each.message).join("; "));
        return;
      }
      field.value = answer.id;
      end(form.dataset.sent);
      const file = find("input[type=file]", form);
      // The bytes are there: the form must not send them again.
      if (file) file.value = "";
      if (form.dataset.auto !== undefined) form.requestSubmit();
    });
    request.send(body);
  }

  function uploads(root) {
    root.querySelectorAll("form[data-upload]:not([data-ready])").forEach((form) => {
      form.dataset.ready = "";
      const drop = find(".drop", form);
      form.querySelectorAll("input[type=file]").forEach((input) => input.addEventListener("change", () => {
        const files = [...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
        if (files.length) send(form, files);
      }));
      if (!drop) return;
      ["dragenter", "dragover"].forEach((name) => drop.addEventListener(name, (event) => {
        event.preventDefault();
        drop.classList.add("over");
      }));
      ["dragleave", "drop"].forEach((name) => drop.addEventListener(name, () => drop.classList.remove("over")));
      drop.addEventListener("drop", async (event) => {
        event.preventDefault();
        const files = await dropped(event.dataTransfer);
        if (files.length) send(form, files);
      });
    });
    root.querySelectorAll("[data-needs-script]").forEach((each) => { each.hidden = false; });
  }

  // --- passkeys (WebAuthn level 3: its JSON forms) -------------------------------------------------
  const ask = async (path, body) => {
    const headers = { "X-CSRF-Token": csrf(), "Content-Type": "application/json" };
    const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body || {}) });
    if (!answer.ok) throw new Error(answer.statusText);
    return answer.status === 204 ? {} : answer.json();
  };

  async function passkey(button) {
    const say = find("#passkey-said");
    const kind = window.PublicKeyCredential;
    try {
      if (button.dataset.passkey === "get") {
        const publicKey = kind.parseRequestOptionsFromJSON(await ask("/v1/session/passkey-options"));
        const found = await navigator.credentials.get({ publicKey });
        await ask("/v1/session/passkey", { credential: found.toJSON() });
      } else {
        const publicKey = kind.parseCreationOptionsFromJSON(await ask("/v1/factors/passkey-options"));
        const made = await navigator.credentials.create({ publicKey });
        await ask("/v1/factors/passkey", { credential: made.toJSON(), name: "" });
      }
      window.location.assign("/account");
    } catch {
      say.textContent = button.dataset.failed;
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-passkey]");
    if (button) passkey(button);
  });

  // --- a log that goes on -------------------------------------------------------------------------
  const LINES = 5000;

  async function follow(box) {
    const say = find("#log-state"), wanted = find("#log-filter"), stop = find("#log-live");
    // As the search of the whole log: every word, in any order.
    const words = () => wanted.value.toLowerCase().replaceAll('"', " ").split(/\s+/);
    const fits = (text) => words().every((word) => text.toLowerCase().includes(word));
    const abort = new AbortController();
    const filter = () => { for (const line of box.children) line.hidden = !fits(line.textContent); };
    wanted.addEventListener("input", filter);
    filter();
    box.scrollTop = box.scrollHeight;
    stop.addEventListener("change", () => { if (!stop.checked) abort.abort(); else window.location.reload(); });
    window.addEventListener("pagehide", () => abort.abort());
    const again = () => {
      say.textContent = say.dataset.ended;
      // A proxy ends what is silent for long.
      if (!abort.signal.aborted) window.setTimeout(listen, 2000);
    };
    async function read() {
      const answer = await fetch(box.dataset.follow, { signal: abort.signal });
      if (!answer.ok) throw new Error(answer.statusText);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      say.textContent = say.dataset.live;
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        const near = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
        for (const line of lines.filter(Boolean)) {
          const { at, text, source, level } = JSON.parse(line);
          const row = document.createElement("div"), when = document.createElement("time");
          row.dataset.level = level;
          when.textContent = at.slice(11, 19);
          row.append(when, (box.dataset.labelled ? " " + source + " " : " ") + text);
          row.hidden = !fits(row.textContent);
          box.append(row);
        }
        while (box.children.length > LINES) box.firstChild.remove();
        if (near) box.scrollTop = box.scrollHeight;
      }
    }
    const listen = () => read().then(again, again);
    listen();
  }

  const start = (root) => {
    uploads(root);
    const box = find("pre[data-follow]", root);
    if (box) follow(box);
    find("#problems", root)?.focus();
  };
  document.addEventListener("DOMContentLoaded", () => start(document));
  document.addEventListener("htmx:load", (event) => uploads(event.target));
})();
