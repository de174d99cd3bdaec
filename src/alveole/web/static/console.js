// A terminal (xterm.js) over the WebSocket of alveole/api/exec.py: the first byte of each frame says what it is.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const [STDIN, STDOUT, , CONTROL] = [0, 1, 2, 3];
  // Its limit of input that the program has not taken yet, so that a paste of a book cannot wedge both sides.
  const MOST_UNTAKEN = 65536;
  const box = document.getElementById("console");
  const said = document.getElementById("console-said");
  const again = document.getElementById("console-again");
  const end = document.getElementById("console-end");

  // The page's policy lets in style elements with its nonce only, and no style attributes but those that the
  // CSSOM sets; xterm.js knows of neither.
  const make = document.createElement.bind(document);
  document.createElement = (name, options) => {
    const made = make(name, options);
    if (String(name).toLowerCase() === "style") made.nonce = box.dataset.nonce;
    return made;
  };
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function setAttribute(name, value) {
    if (name === "style") this.style.cssText = value;
    else set.call(this, name, value);
  };

  const dark = { background: "#14181b", foreground: "#e6eaec", cursor: "#e0a11b" };
  const terminal = new window.Terminal({
    cursorBlink: false, screenReaderMode: true, scrollback: 5000, fontSize: 14, theme: dark, minimumContrastRatio: 4.5,
    fontFamily: 'ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace',
  });
  const fit = new window.FitAddon.FitAddon();
  terminal.loadAddon(fit);
  terminal.open(box);
  fit.fit();
  const encoder = new TextEncoder();
  let socket = null;
  let waiting = [];
  let untaken = 0;

  const frame = (kind, bytes) => {
    const whole = new Uint8Array(bytes.length + 1);
    whole[0] = kind;
    whole.set(bytes, 1);
    return whole;
  };
  const order = (what) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(frame(CONTROL, encoder.encode(JSON.stringify(what))));
  };
  const pass = () => {
    while (waiting.length && untaken < MOST_UNTAKEN && socket?.readyState === WebSocket.OPEN) {
      const piece = waiting[0].subarray(0, 16384);
      if (piece.length === waiting[0].length) waiting.shift();
      else waiting[0] = waiting[0].subarray(piece.length);
      untaken += piece.length;
      socket.send(frame(STDIN, piece));
    }
  };
  const heard = (message) => {
    if (message.started) {
      order({ resize: [terminal.rows, terminal.cols] });
    } else if (message.taken !== undefined) {
      untaken -= message.taken;
      pass();
    } else if (message.exit !== undefined) {
      said.textContent = box.dataset.ended;
    } else if (message.problem) {
      said.textContent = (message.problem.problems || []).map((each) => each.message).join("; ") || box.dataset.cut;
    }
  };

  function open() {
    waiting = [];
    untaken = 0;
    said.textContent = "";
    again.hidden = true;
    end.hidden = false;
    const scheme = window.location.protocol === "https:" ? "wss" : "ws";
    // The token goes as a word among the protocols: an address would be written into logs.
    const words = [box.dataset.protocol, `csrf.${document.body.dataset.csrf}`];
    const mine = new WebSocket(`${scheme}://${window.location.host}${box.dataset.socket}`, words);
    socket = mine;
    mine.binaryType = "arraybuffer";
    mine.addEventListener("message", (event) => {
      const bytes = new Uint8Array(event.data);
      if (bytes[0] === CONTROL) heard(JSON.parse(new TextDecoder().decode(bytes.subarray(1))));
      else if (bytes[0] >= STDOUT) terminal.write(bytes.subarray(1));
    });
    mine.addEventListener("close", () => {
      if (mine !== socket) return;
      if (!said.textContent) said.textContent = box.dataset.cut;
      again.hidden = false;
      end.hidden = true;
    });
    terminal.focus();
  }

  terminal.onData((text) => { waiting.push(encoder.encode(text)); pass(); });
  terminal.onResize(() => order({ resize: [terminal.rows, terminal.cols] }));
  terminal.attachCustomKeyEventHandler((event) => {
    // Without a way out the keyboard would be caught in here (WCAG 2.1.2).
    if (event.key === "F6" && event.shiftKey) {
      if (event.type === "keydown") (end.hidden ? again : end).focus();
      event.preventDefault();
      return false;
    }
    return true;
  });
  window.addEventListener("resize", () => fit.fit());
  again.addEventListener("click", () => { terminal.reset(); open(); });
  end.addEventListener("click", () => {
    said.textContent = box.dataset.ended;
    socket?.close();
  });
  open();
});
