// When the pictures of a fragment happened. hls.js counts from a fragment's first sample, which may be sound from before
// its first picture; a playlist's date is that picture's.

const VIDEO_TRACK = 1; // of the relay's fragments: relay/egress/mp4.py
const VIDEO_RATE = 90_000;
const KEPT = 16; // segments: more than are between what is loaded and what is shown

/** The decoding time in seconds of the first picture in a movie fragment (ISO/IEC 14496-12); null when it has none. */
export function firstPicture(buffer) {
  const view = new DataView(buffer);
  for (const moof of boxes(view, 0, view.byteLength, 'moof'))
    for (const traf of boxes(view, ...moof, 'traf')) {
      const [[head, headEnd] = [0, 0]] = boxes(view, ...traf, 'tfhd');
      const [[time, timeEnd] = [0, 0]] = boxes(view, ...traf, 'tfdt');
      if (headEnd - head < 8 || timeEnd - time < 8 || view.getUint32(head + 4) !== VIDEO_TRACK) continue;
      const long = view.getUint8(time) === 1;
      if (long && timeEnd - time < 12) continue;
      return (long ? Number(view.getBigUint64(time + 4)) : view.getUint32(time + 4)) / VIDEO_RATE;
    }
  return null;
}

/** The bodies [begin, end] of the boxes of one kind between two places. What is malformed has none. */
function boxes(view, begin, end, kind) {
  const found = [];
  for (let at = begin; at + 8 <= end; ) {
    const size = view.getUint32(at);
    if (size < 8 || at + size > end) break;
    const name = String.fromCharCode(...[4, 5, 6, 7].map((offset) => view.getUint8(at + offset)));
    if (name === kind) found.push([at + 8, at + size]);
    at += size;
  }
  return found;
}

/** Places in the stream (`metadata.mediaTime`) to milliseconds since the epoch. */
export class PictureClock {
  constructor() {
    this.offsets = new Map(); // by discontinuity: what the player takes off decoding times, in seconds
    this.lines = [];
  }

  /** hls.js found where a stretch of the stream begins. */
  began({ frag, initPTS, timescale }) {
    this.offsets.set(frag.cc, initPTS / timescale);
  }

  /** hls.js has a segment, or one of its parts; only its beginning has a date. */
  loaded({ frag, part, payload }) {
    if (!(payload instanceof ArrayBuffer) || (part && part.index) || !frag.programDateTime) return;
    const decoded = firstPicture(payload);
    if (decoded === null || this.lines.some((line) => line.decoded === decoded && line.cc === frag.cc)) return;
    this.lines.push({ cc: frag.cc, decoded, date: frag.programDateTime });
    if (this.lines.length > KEPT) this.lines.shift();
  }

  /** The moment of a frame; null when it is not known. */
  momentOf(mediaTime) {
    const placed = this.lines.filter((line) => this.offsets.has(line.cc)).map((line) => ({ ...line, media: line.decoded - this.offsets.get(line.cc) }));
    const line = placed.findLast(({ media }) => media <= mediaTime + 0.001) ?? placed[0];
    return line ? line.date + (mediaTime - line.media) * 1000 : null;
  }
}
