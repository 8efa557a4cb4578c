// The paper: strokes by pointer or keyboard, and pictures. What is read of it is the alpha channel; the
// colour is that of the page's text, and follows it from light to dark.

/** Of the pen, as a share of the paper's width. */
const PEN = 0.1;
/** How far an arrow key moves the pen, likewise. */
const STEP = 0.04;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Paper {
  #canvas;
  #context;
  #changed;
  #last = null;
  #pen = { x: 0.5, y: 0.2, isDown: false };

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} changed Called after every change of the ink.
   */
  constructor(canvas, changed) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
    this.#changed = changed;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#draw(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, () => (this.#last = null));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#colour());
  }

  /** Its pixels. */
  get picture() {
    return this.#context.getImageData(0, 0, this.#canvas.width, this.#canvas.height);
  }

  /** Take all ink away. */
  clear() {
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#pen.isDown = false;
    this.#showPen();
    this.#changed();
  }

  /** Put a picture in the place of what is there: dark on bright or bright on dark, its rim is paper. */
  show(image) {
    const { width, height } = this.#canvas;
    const scale = Math.min(width / image.width, height / image.height);
    const [w, h] = [image.width * scale, image.height * scale];
    const [x, y] = [(width - w) / 2, (height - h) / 2].map(Math.round);
    this.#context.clearRect(0, 0, width, height);
    this.#context.drawImage(image, x, y, w, h);
    const part = this.#context.getImageData(x, y, Math.max(1, Math.floor(w)), Math.max(1, Math.floor(h)));
    inkOf(part);
    this.#context.clearRect(0, 0, width, height);
    this.#context.putImageData(part, x, y);
    this.#colour();
    this.#changed();
  }

  #begin(event) {
    if (event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#last = this.#place(event);
    this.#line(this.#last, this.#last);
  }

  #draw(event) {
    if (this.#last === null) return;
    // A quick stroke has more points than there are events.
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length > 0 ? events : [event]) {
      const to = this.#place(one);
      this.#line(this.#last, to);
      this.#last = to;
    }
  }

  #place(event) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return { x: (event.clientX - left) / width, y: (event.clientY - top) / height };
  }

  #key(event) {
    const pen = this.#pen;
    if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else if (event.key === " ") {
      pen.isDown = !pen.isDown;
      if (pen.isDown) this.#line(pen, pen);
    } else if (event.key in ARROWS) {
      const [dx, dy] = ARROWS[event.key];
      const from = { ...pen };
      pen.x = Math.min(1, Math.max(0, pen.x + dx * STEP));
      pen.y = Math.min(1, Math.max(0, pen.y + dy * STEP));
      if (pen.isDown) this.#line(from, pen);
    } else {
      return;
    }
    event.preventDefault();
    this.#showPen();
  }

  #showPen() {
    const { x, y, isDown } = this.#pen;
    const sheet = this.#canvas.parentElement;
    sheet.style.setProperty("--pen-x", `${100 * x}%`);
    sheet.style.setProperty("--pen-y", `${100 * y}%`);
    sheet.classList.toggle("pen-down", isDown);
  }

  get #ink() {
    return getComputedStyle(this.#canvas).color;
  }

  /** Give the ink that is there the colour of today. */
  #colour() {
    const context = this.#context;
    context.globalCompositeOperation = "source-in";
    context.fillStyle = this.#ink;
    context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    context.globalCompositeOperation = "source-over";
  }

  #line(from, to) {
    const { width, height } = this.#canvas;
    const context = this.#context;
    context.strokeStyle = this.#ink;
    context.lineWidth = PEN * width;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x * width, from.y * height);
    // Of a line without length not even the round ends would be drawn.
    context.lineTo(to.x * width + 0.01, to.y * height);
    context.stroke();
    this.#changed();
  }
}

/** Turn a picture into ink: how far a pixel is from the rim's brightness, which is taken for paper. */
function inkOf({ width, height, data }) {
  const brightness = new Float32Array(width * height);
  for (let i = 0; i < brightness.length; i++) {
    const [r, g, b, a] = data.subarray(4 * i, 4 * i + 4);
    // Seen on white paper; the weights are those of ITU-R BT.601.
    brightness[i] = ((0.299 * r + 0.587 * g + 0.114 * b) * a) / 255 + 255 - a;
  }
  const rim = [];
  for (let x = 0; x < width; x++) rim.push(brightness[x], brightness[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) rim.push(brightness[y * width], brightness[y * width + width - 1]);
  const paper = rim.sort((a, b) => a - b)[rim.length >> 1];
  const farthest = brightness.reduce((most, one) => Math.max(most, Math.abs(one - paper)), 1);
  for (let i = 0; i < brightness.length; i++) {
    data.fill(0, 4 * i, 4 * i + 3);
    data[4 * i + 3] = (255 * Math.abs(brightness[i] - paper)) / farthest;
  }
}
