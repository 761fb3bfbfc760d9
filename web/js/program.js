// The watch page's `#mode=hls`: the program by HLS, for those whose network has no UDP, and for very many. Who is invited
// to the stage and accepts goes on watching, by slots from the moment that the program shows, and then joins.

import { Api, fragmentParameters, tokenClaims } from './api.js';
import { openDevices } from './devices.js';
import { byId, el, notice, showState } from './dom.js';
import { Handover } from './handover.js';
import { HlsPlayer } from './hls.js';
import { Publisher } from './publisher.js';
import { Tiles } from './tiles.js';
import { Viewer } from './viewer.js';

export class Program {
  constructor() {
    const { room, token, slots = '4', source = 'program' } = fragmentParameters();
    Object.assign(this, { room, slots: Number(slots), api: new Api(token), me: tokenClaims(token).sub });
    this.path = `/v1/rooms/${encodeURIComponent(room)}`;
    this.video = el('video', { playsInline: true, muted: true, autoplay: true });
    this.tile = el('div', { class: 'tile' }, this.video);
    this.player = new HlsPlayer(this.api, room, this.video, source);
    this.muted = true;
  }

  async start(onEvent) {
    byId('stage').classList.add('stack');
    byId('stage').append(this.tile);
    byId('empty').hidden = true;
    byId('facts').hidden = true;
    byId('room').textContent = this.room;
    this.player.addEventListener('state', ({ detail }) => {
      if (this.viewer) return;
      showState(byId('state'), detail.state);
      notice(detail.state === 'waiting' ? `The program is not on air yet (${detail.reason}).` : null);
    });
    byId('sound').addEventListener('click', () => this.setMuted(!this.muted));
    this.stopEvents = this.api.events(`${this.path}/events`, (type, { data }) => onEvent({ type, data }, this.api, this.me, this.tiles, this));
    addEventListener('pagehide', () => this.stop());
    await this.player.start();
  }

  setMuted(muted) {
    this.muted = muted;
    this.video.muted = muted;
    for (const audio of byId('sounds').children) {
      audio.muted = muted;
      if (!muted) audio.play().catch(() => {});
    }
    byId('sound').textContent = muted ? 'Turn sound on' : 'Turn sound off';
    byId('sound').classList.toggle('primary', muted);
  }

  /** An invitation was accepted: go on by slots, with the guest's `token`, and then on stage. */
  async goOnStage(token) {
    const api = new Api(token);
    api.follow();
    const { sync_id: syncId } = await api.get(this.path); // of the acceptance, a moment ago: the relay's clock
    await this.handOver(api, Number(BigInt(syncId) >> 16n));
    await this.publish(api);
  }

  async handOver(api, serverNow) {
    const over = el('div', { class: 'stage over' });
    byId('stage').append(over);
    const makeViewer = (delayMs) => {
      this.tiles = new Tiles(over, byId('sounds'));
      this.viewer = new Viewer(api, this.room, { videoSlots: this.slots, audioSlots: this.slots, delayMs });
      this.tiles.watchFrames((index, metadata) => this.viewer.frameShown(index, metadata));
      this.viewer.addEventListener('tracks', ({ detail }) => this.tiles.setTracks(detail));
      this.viewer.addEventListener('slots', ({ detail }) => this.tiles.setSlots(detail));
      this.viewer.addEventListener('state', ({ detail }) => showState(byId('state'), detail.state));
      return this.viewer;
    };
    this.handover = new Handover(this.player, makeViewer, { over, sounds: byId('sounds'), muted: () => this.muted });
    await this.handover.run(serverNow);
    this.tile.remove();
  }

  async publish(api) {
    const stream = await openDevices();
    this.publisher = new Publisher(api, this.room, stream);
    await this.publisher.start();
    const leave = el('button', { class: 'danger', onclick: () => this.leaveStage() }, 'Leave the stage');
    byId('sound').before(leave);
    this.leave = leave;
  }

  async leaveStage() {
    this.leave.remove();
    await this.publisher.stop();
    this.publisher.stream.getTracks().forEach((track) => track.stop());
  }

  stop() {
    this.stopEvents?.();
    this.player.stop();
    this.publisher?.stop();
    this.viewer?.stop();
  }
}
