// The twin of costream/painting.py for browsers: the same 20 x 4 mark, painted on a canvas and read from a video.
globalThis.painting = (() => {
  const COLUMNS = 20, ROWS = 4, STRIP_HEIGHT = 16 / 45, MIN_CONTRAST = 48;

  function crc16(bytes) {
    let crc = 0xffff;
    for (const byte of bytes) {
      crc ^= byte << 8;
      for (let i = 0; i < 8; i++) crc = (crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1) & 0xffff;
    }
    return crc;
  }

  function cells({ publisher, counter, clockMs = 0 }) {
    const number = (value, size) =>
      Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** (size - 1 - i)) % 256);
    const body = [...number(publisher, 2), ...number(counter, 3), ...number(clockMs, 3)];
    const bytes = [...body, ...number(crc16(body), 2)];
    return bytes.flatMap((byte) => [7, 6, 5, 4, 3, 2, 1, 0].map((bit) => (byte >> bit) & 1));
  }

  // Paints the mark and, below it, a bar that moves and the numbers in words.
  function paint(context, width, height, painted) {
    const bits = cells(painted);
    const x = (column) => Math.round((column * width) / COLUMNS);
    const y = (row) => Math.round((row * height * STRIP_HEIGHT) / ROWS);
    bits.forEach((bit, i) => {
      const column = i % COLUMNS, row = Math.floor(i / COLUMNS);
      context.fillStyle = bit ? "#fff" : "#000";
      context.fillRect(x(column), y(row), x(column + 1) - x(column), y(row + 1) - y(row));
    });
    const top = y(ROWS);
    context.fillStyle = `hsl(${(painted.publisher * 137.5) % 360} 60% 35%)`;
    context.fillRect(0, top, width, height - top);
    context.fillStyle = "#fff";
    context.fillRect((painted.counter * 4) % width, top + (height - top) * 0.8, width / 40, height);
    context.font = `${Math.max(8, Math.round(height / 8))}px monospace`;
    context.fillText(`#${painted.publisher} ${painted.counter}`, width / 20, top + height / 5);
  }

  // pixels: RGBA bytes, as getImageData gives them. Returns {publisher, counter, clockMs} or null.
  function read(pixels, width, height) {
    const cellW = width / COLUMNS, cellH = (height * STRIP_HEIGHT) / ROWS;
    if (cellW < 2 || cellH < 2) return null;
    const middle = (start, size) => {
      const first = Math.floor(start + size / 4);
      return [first, Math.max(first + 1, Math.round(start + (size * 3) / 4))];
    };
    const means = [];
    for (let row = 0; row < ROWS; row++) {
      const [y0, y1] = middle(row * cellH, cellH);
      for (let column = 0; column < COLUMNS; column++) {
        const [x0, x1] = middle(column * cellW, cellW);
        let sum = 0;
        for (let y = y0; y < y1; y++)
          for (let x = x0; x < x1; x++) {
            const at = (y * width + x) * 4;
            sum += pixels[at] + pixels[at + 1] + pixels[at + 2];
          }
        means.push(sum / (3 * (y1 - y0) * (x1 - x0)));
      }
    }
    const low = Math.min(...means), high = Math.max(...means);
    if (!(high - low >= MIN_CONTRAST)) return null;
    const bytes = [];
    for (let i = 0; i < 80; i += 8)
      bytes.push(means.slice(i, i + 8).reduce((byte, mean) => byte * 2 + (mean > (low + high) / 2 ? 1 : 0), 0));
    const number = (from, to) => bytes.slice(from, to).reduce((value, byte) => value * 256 + byte, 0);
    if (crc16(bytes.slice(0, 8)) !== number(8, 10)) return null;
    return { publisher: number(0, 2), counter: number(2, 5), clockMs: number(5, 8) };
  }

  // Reads what a <video> shows now, through a canvas of the video's own size (or as wide as `maxWidth`).
  function readVideo(video, canvas, maxWidth = 320) {
    if (!video.videoWidth) return null;
    const scale = Math.min(1, maxWidth / video.videoWidth);
    const width = (canvas.width = Math.round(video.videoWidth * scale));
    const height = (canvas.height = Math.round(video.videoHeight * scale));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(video, 0, 0, width, height);
    return read(context.getImageData(0, 0, width, height).data, width, height);
  }

  return { crc16, cells, paint, read, readVideo };
})();
