// The studio: join with camera and microphone, see the other hosts, run the stage.

import { Api, fragmentParameters, tokenClaims } from './api.js';
import { byId, el, notice, requireAccess, showState } from './dom.js';
import { listDevices, openDevices, watchLevel } from './devices.js';
import { showHealth } from './health.js';
import { People } from './people.js';
import { ProgramPanel } from './program_panel.js';
import { PkPanel } from './pk.js';
import { Publisher } from './publisher.js';
import { Score } from './score.js';
import { Tiles } from './tiles.js';
import { Viewer } from './viewer.js';

const { room, token } = fragmentParameters();
const LOG_LINES = 100;
const PEOPLE_INTERVAL_MS = 3000; // viewers come and go without events: there may be thousands of them

class Studio {
  constructor() {
    this.api = new Api(token);
    this.api.follow();
    this.claims = tokenClaims(token);
    this.path = `/v1/rooms/${encodeURIComponent(room)}`;
    this.tiles = new Tiles(byId('stage'), byId('sounds'), { extra: [byId('self')] });
    this.people = new People(this.api, this.path, this.claims, byId('people'));
    this.muted = { audio: false, video: false };
  }

  async preview() {
    byId('room').textContent = room;
    byId('me').textContent = this.claims.sub ?? '';
    const open = async () => {
      this.stream?.getTracks().forEach((track) => track.stop());
      this.stopLevel?.();
      this.stream = await openDevices(byId('camera').value, byId('microphone').value);
      byId('preview').srcObject = this.stream;
      this.stopLevel = watchLevel(this.stream, byId('level'));
    };
    await open();
    await listDevices(byId('camera'), byId('microphone'), this.stream);
    byId('camera').addEventListener('change', () => open().catch((error) => notice(error.message)));
    byId('microphone').addEventListener('change', () => open().catch((error) => notice(error.message)));
  }

  async join() {
    const layers = Number(byId('layers').value);
    this.publisher = new Publisher(this.api, room, this.stream, { layers, codec: byId('codec').value || null });
    const oneSound = byId('one-sound').checked;
    this.viewer = new Viewer(this.api, room, { videoSlots: 8, audioSlots: oneSound ? 1 : 8, oneSound });
    this.publisher.addEventListener('state', ({ detail }) => {
      showState(byId('state'), detail.state);
      if (detail.state === 'refused') notice(detail.reason);
    });
    this.viewer.addEventListener('tracks', ({ detail }) => this.tiles.setTracks(detail));
    this.viewer.addEventListener('event', ({ detail }) => this.onEvent(detail.type, detail.data));
    this.viewer.addEventListener('slots', ({ detail }) => this.tiles.setSlots(detail));
    this.tiles.watchFrames((index, metadata) => this.viewer.frameShown(index, metadata));
    this.score = new Score(this.api, room, this.claims.role, this.viewer, byId('score'), byId('count'));
    const shown = { panel: byId('program'), button: byId('program-switch'), select: byId('program-layout'), state: byId('program-state') };
    this.program = new ProgramPanel(this.api, this.path, this.claims.role, shown);
    this.pk = new PkPanel(this.api, room, this.claims.role, this.viewer, byId('pk'), { controls: true });
    await this.publisher.start();
    await this.viewer.start();
    byId('selfview').srcObject = this.stream;
    byId('join').hidden = true;
    byId('studio').hidden = false;
    this.tiles.layOut();
    this.refresh();
    this.peopleTimer = setInterval(() => this.refresh(), PEOPLE_INTERVAL_MS);
    this.healthTimer = setInterval(async () => showHealth(byId('health'), await this.publisher.health()), 1000);
    await listDevices(byId('live-camera'), byId('live-microphone'), this.stream);
  }

  onEvent(type, data) {
    if (type === 'slot.bound') return;
    this.log(type, data);
    this.program.onEvent(type);
    if (type === 'speaker.changed') this.tiles.setSpeaker(data.identity);
    if (type === 'room.ended') this.leave('The show has ended.');
    else if (type === 'participant.kicked' && data.identity === this.claims.sub) this.leave('You were removed from the show.');
    else if (type === 'stage.invited' && data.identity === this.claims.sub) this.accept(data.by);
    else this.refresh();
  }

  async refresh() {
    if (this.refreshing) {
      this.again = true;
      return;
    }
    this.refreshing = true;
    await this.people.refresh().catch((error) => notice(error.message));
    this.refreshing = false;
    const own = this.people.find(this.claims.sub);
    this.onAir = own?.state === 'on_air';
    showState(byId('place'), own?.state ?? 'audience');
    byId('place').hidden = false;
    byId('on-air').textContent = this.onAir ? 'Go backstage' : 'Go on air';
    byId('on-air').classList.toggle('primary', !this.onAir);
    if (this.again) {
      this.again = false;
      this.refresh();
    }
  }

  async accept(by) {
    if (!confirm(`${by} invites you on air. Go on air now?`)) return;
    await this.api.json('POST', `${this.path}/stage/invitations/${encodeURIComponent(this.claims.sub)}/accept`).catch((error) => notice(error.message));
  }

  async toggleSeat() {
    const state = this.onAir ? 'backstage' : 'on_air';
    await this.api.json('PUT', `${this.path}/stage/seats/${encodeURIComponent(this.claims.sub)}`, { state });
  }

  async toggleMute(kind, button, words) {
    this.muted[kind] = !this.muted[kind];
    for (const track of this.stream.getTracks()) if (track.kind === kind) track.enabled = !this.muted[kind];
    button.textContent = this.muted[kind] ? words[1] : words[0];
    button.classList.toggle('off', this.muted[kind]);
    await this.api.json('PATCH', `${this.path}/participants/${encodeURIComponent(this.claims.sub)}`, { muted: { [kind]: this.muted[kind] } });
  }

  async changeDevice(kind, deviceId) {
    const constraint = { deviceId: { exact: deviceId } };
    const fresh = await navigator.mediaDevices.getUserMedia(kind === 'video' ? { video: constraint } : { audio: constraint });
    const [track] = fresh.getTracks();
    track.enabled = !this.muted[kind];
    await this.publisher.replace(kind, track);
    byId('selfview').srcObject = this.stream;
  }

  log(type, data) {
    const words = [data.identity, data.publication, data.state].filter(Boolean).join(' ');
    byId('log').prepend(el('li', {}, `${new Date().toLocaleTimeString()} ${type} ${words}`));
    while (byId('log').children.length > LOG_LINES) byId('log').lastChild.remove();
  }

  async leave(message = null) {
    clearInterval(this.healthTimer);
    clearInterval(this.peopleTimer);
    this.stopLevel?.();
    await Promise.all([this.publisher?.stop(), this.viewer?.stop()]);
    this.stream?.getTracks().forEach((track) => track.stop());
    byId('studio').hidden = true;
    notice(message ?? 'You left the studio. Reload the page to come back.');
  }
}

async function start() {
  const studio = new Studio();
  window.costream = studio;
  const guard = (action) => (event) => {
    event?.preventDefault();
    Promise.resolve(action()).catch((error) => notice(error.message));
  };
  byId('join').addEventListener('submit', guard(() => studio.join()));
  byId('mute-audio').addEventListener('click', guard(() => studio.toggleMute('audio', byId('mute-audio'), ['Mute microphone', 'Unmute microphone'])));
  byId('mute-video').addEventListener('click', guard(() => studio.toggleMute('video', byId('mute-video'), ['Stop camera', 'Start camera'])));
  byId('live-camera').addEventListener('change', guard(() => studio.changeDevice('video', byId('live-camera').value)));
  byId('live-microphone').addEventListener('change', guard(() => studio.changeDevice('audio', byId('live-microphone').value)));
  byId('on-air').addEventListener('click', guard(() => studio.toggleSeat()));
  byId('leave').addEventListener('click', guard(() => studio.leave()));
  addEventListener('pagehide', () => studio.leave());
  await studio.preview().catch((error) => notice(`No camera or microphone: ${error.message}`));
}

if (requireAccess({ room, token })) start();
else byId('join').hidden = true;
