// The stage as tiles: one per video slot that shows somebody, plus an audio element per audio slot.

import { el } from './dom.js';

const PICTURE_LIMIT_MS = 3000;

const makeVideo = () => el('video', { autoplay: true, playsInline: true, muted: true });

export class Tiles {
  /** `grid` takes the tiles; `sounds` takes the audio elements; `extra` are tiles that are always there (self view). */
  constructor(grid, sounds, { extra = [] } = {}) {
    this.grid = grid;
    this.sounds = sounds;
    this.extra = extra;
    this.tiles = [];
    this.speaker = null;
  }

  /** New session, new tracks. A tile's old picture stays until the new one has a frame, so it never blinks out. */
  setTracks(tracks) {
    const videos = tracks.filter((track) => track.kind === 'video');
    videos.forEach((track, index) => {
      this.tiles[index] ??= this.makeTile(index);
      this.play(this.tiles[index], new MediaStream([track]));
    });
    const audios = tracks.filter((track) => track.kind === 'audio');
    audios.forEach((track, index) => {
      const audio = this.sounds.children[index] ?? this.sounds.appendChild(el('audio', { autoplay: true }));
      audio.srcObject = new MediaStream([track]);
      audio.play().catch(() => {});
    });
  }

  play(tile, stream) {
    const before = tile.video;
    if (!before.srcObject) {
      before.srcObject = stream;
      return;
    }
    const next = makeVideo();
    next.srcObject = stream;
    tile.video = next;
    before.before(next); // below the old one until it has a picture
    const swap = () => before.remove();
    next.requestVideoFrameCallback(swap);
    setTimeout(swap, PICTURE_LIMIT_MS);
  }

  makeTile(index) {
    const video = makeVideo();
    const name = el('span', { class: 'name' });
    const facts = el('span', { class: 'facts', hidden: true });
    const root = el('div', { class: 'tile', hidden: true, 'data-slot': String(index) }, video, name, facts);
    this.grid.append(root);
    return { root, video, name, facts, identity: null };
  }

  /** Show who plays where. `slots` are the session's, in m-line order. */
  setSlots(slots) {
    const videoSlots = slots.filter((slot) => slot.kind === 'video');
    videoSlots.forEach((slot, index) => {
      const tile = this.tiles[index];
      if (!tile) return;
      tile.identity = slot.publication ? slot.identity : null;
      tile.name.textContent = slot.identity ?? '';
      tile.root.hidden = !slot.publication;
    });
    this.layOut();
  }

  setSpeaker(identity) {
    this.speaker = identity;
    this.layOut();
  }

  setFacts(index, text) {
    const tile = this.tiles[index];
    if (!tile) return;
    tile.facts.hidden = !text;
    tile.facts.textContent = text ?? '';
  }

  get shown() {
    return this.tiles.filter((tile) => !tile.root.hidden).length + this.extra.length;
  }

  layOut() {
    for (const tile of this.tiles) tile.root.classList.toggle('speaking', tile.identity !== null && tile.identity === this.speaker);
    this.grid.style.setProperty('--columns', String(Math.max(1, Math.ceil(Math.sqrt(this.shown)))));
    this.grid.dispatchEvent(new Event('laidout'));
  }
}
