// A line plot over the last minutes on a canvas: as much as a dashboard needs, and no library to fetch.

const SERIES_COLOURS = ['#4da3ff', '#3fbf7f', '#f0b429', '#ff6b6b', '#b58cff'];

export class Plot {
  /** `format` turns a value into text; `seconds` is how far back the plot looks. */
  constructor(root, title, { format = (value) => value.toFixed(0), seconds = 120, names = [''] } = {}) {
    this.format = format;
    this.seconds = seconds;
    this.names = names;
    this.points = [];
    this.now = document.createElement('span');
    this.now.className = 'now';
    const heading = document.createElement('h2');
    heading.append(title, this.now);
    this.canvas = document.createElement('canvas');
    const panel = document.createElement('section');
    panel.className = 'panel plot';
    panel.append(heading, this.canvas);
    root.append(panel);
  }

  /** Add one value per series, measured now. */
  add(...values) {
    const time = performance.now() / 1000;
    this.points.push({ time, values });
    while (this.points[0].time < time - this.seconds) this.points.shift();
    this.now.textContent = values.map((value, index) => `${this.names[index] ?? ''} ${this.format(value)}`.trim()).join(' · ');
    this.draw(time);
  }

  draw(time) {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    const context = canvas.getContext('2d');
    context.scale(scale, scale);
    const [width, height, left, bottom] = [canvas.clientWidth, canvas.clientHeight, 72, 16];
    const top = Math.max(1e-9, ...this.points.flatMap((point) => point.values)) * 1.15;
    const x = (t) => left + ((width - left - 4) * (t - time + this.seconds)) / this.seconds;
    const y = (value) => 6 + (height - bottom - 6) * (1 - value / top);
    context.font = '11px system-ui, sans-serif';
    context.fillStyle = '#93a0b4';
    context.strokeStyle = '#2c3543';
    for (const share of [0, 0.5, 1]) {
      const value = (top / 1.15) * share;
      context.beginPath();
      context.moveTo(left, y(value));
      context.lineTo(width - 4, y(value));
      context.stroke();
      context.textAlign = 'right';
      context.fillText(this.format(value), left - 6, y(value) + 4);
    }
    context.textAlign = 'left';
    context.fillText(`${this.seconds} s ago`, left, height - 3);
    context.textAlign = 'right';
    context.fillText('now', width - 4, height - 3);
    context.lineWidth = 1.6;
    this.names.forEach((_, series) => {
      context.strokeStyle = SERIES_COLOURS[series % SERIES_COLOURS.length];
      context.beginPath();
      for (const { time: t, values } of this.points) context.lineTo(x(t), y(values[series] ?? 0));
      context.stroke();
    });
  }
}
