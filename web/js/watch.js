// The watch page: whoever is on air, in as many tiles as there are hosts; with `#mode=program` the mixed picture and sound.

import { Api, fragmentParameters, tokenClaims } from './api.js';
import { bitrate, byId, notice, requireAccess, showState } from './dom.js';
import { PkPanel } from './pk.js';
import { Score } from './score.js';
import { Tiles } from './tiles.js';
import { Viewer } from './viewer.js';

const { room, token, slots = '4', delay = '0', mode = 'slots' } = fragmentParameters();

async function startProgram() {
  const { Program } = await import('./program.js');
  const program = new Program();
  window.costream = program;
  await program.start(onEvent);
}

function start() {
  const api = new Api(token);
  api.follow();
  const me = tokenClaims(token).sub;
  const tiles = new Tiles(byId('stage'), byId('sounds'));
  const program = mode === 'program';
  const count = program ? 1 : Number(slots);
  const viewer = new Viewer(api, room, { videoSlots: count, audioSlots: count, delayMs: Number(delay), program });
  if (program) byId('empty').firstElementChild.textContent = 'The program is not on air yet. It appears as soon as it is.';
  tiles.watchFrames((index, metadata) => viewer.frameShown(index, metadata));
  const score = new Score(api, room, tokenClaims(token).role, viewer, byId('score'), byId('count'));
  const pk = new PkPanel(api, room, tokenClaims(token).role, viewer, byId('pk'));
  window.costream = { viewer, tiles, score, pk };
  byId('room').textContent = room;

  viewer.addEventListener('tracks', ({ detail }) => tiles.setTracks(detail));
  viewer.addEventListener('slots', ({ detail }) => tiles.setSlots(detail));
  viewer.addEventListener('state', ({ detail }) => {
    showState(byId('state'), detail.state);
    if (detail.state === 'refused') notice(detail.reason);
  });
  byId('stage').addEventListener('laidout', () => (byId('empty').hidden = tiles.shown > 0));

  sound(byId('sounds'));
  facts(viewer, tiles);
  viewer.addEventListener('event', ({ detail }) => onEvent(detail, api, me, tiles, viewer));
  viewer.start().then(() => notice(null)).catch((error) => {
    notice(error.message);
    if (![401, 403].includes(error.status)) viewer.recover();
  });
  addEventListener('pagehide', () => viewer.stop());
}

function sound(sounds) {
  const button = byId('sound');
  const setMuted = (muted) => {
    for (const audio of sounds.children) {
      audio.muted = muted;
      if (!muted) audio.play().catch(() => {});
    }
    button.textContent = muted ? 'Turn sound on' : 'Turn sound off';
    button.classList.toggle('primary', muted);
  };
  new MutationObserver(() => setMuted(button.classList.contains('primary'))).observe(sounds, { childList: true });
  button.addEventListener('click', () => setMuted(!button.classList.contains('primary')));
}

function facts(viewer, tiles) {
  let shown = false;
  byId('facts').addEventListener('click', () => {
    shown = !shown;
    if (!shown) tiles.tiles.forEach((_, index) => tiles.setFacts(index, null));
  });
  setInterval(async () => {
    if (!shown) return;
    const videos = [...(await viewer.health())].filter(([, health]) => health.kind === 'video').sort(([a], [b]) => a - b);
    videos.forEach(([, health], index) =>
      tiles.setFacts(index, `${health.width}×${health.height} · ${Math.round(health.fps)}/s · ${bitrate(health.bps)} · ${health.freezes} freezes`));
  }, 1000);
}

function onEvent({ type, data }, api, me, tiles, viewer) {
  if (type === 'speaker.changed') tiles?.setSpeaker(data.identity);
  if (type === 'stage.invited' && data.identity === me) invite(api, me, data.by, viewer);
  if (type === 'room.ended') {
    viewer.stop();
    notice('The show has ended.');
  }
  if (type === 'participant.kicked' && data.identity === me) {
    viewer.stop();
    notice('You were removed from the show.');
  }
}

/** `viewer` may know a way on stage without leaving the page. */
function invite(api, me, by, viewer) {
  const path = `/v1/rooms/${encodeURIComponent(room)}`;
  const box = byId('invitation');
  byId('inviter').textContent = by;
  box.hidden = false;
  const answer = (word) => api.json('POST', `${path}/stage/invitations/${encodeURIComponent(me)}/${word}`);
  byId('decline').onclick = () => answer('decline').catch((error) => notice(error.message)).finally(() => (box.hidden = true));
  byId('accept').onclick = async () => {
    try {
      const { token: guestToken } = await answer('accept');
      box.hidden = true;
      if (viewer.goOnStage) await viewer.goOnStage(guestToken);
      else location.href = `studio.html#${new URLSearchParams({ room, token: guestToken })}`;
    } catch (error) {
      notice(error.message);
      box.hidden = true;
    }
  };
}

// Elements with a silent stream would hold back the page's load event for ever, so they are made after it.
if (requireAccess({ room, token })) addEventListener('load', mode === 'hls' ? startProgram : start, { once: true });
