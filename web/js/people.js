// Who is in the room, and what this token's holder may do with them.

import { el, notice } from './dom.js';

const MAY_DIRECT = ['owner', 'moderator', 'service'];
const ORDER = { on_air: 0, backstage: 1, audience: 2, away: 3 };

export class People {
  constructor(api, path, claims, list) {
    this.api = api;
    this.path = path;
    this.claims = claims;
    this.list = list;
    this.participants = [];
    this.invitations = [];
  }

  find(identity) {
    return this.participants.find((person) => person.identity === identity);
  }

  async refresh() {
    const [{ participants }, stage] = await Promise.all([this.api.get(`${this.path}/participants`), this.api.get(`${this.path}/stage`)]);
    this.participants = participants.sort((a, b) => (ORDER[a.state] ?? 9) - (ORDER[b.state] ?? 9) || a.identity.localeCompare(b.identity));
    this.invitations = stage.invitations.map((invitation) => invitation.identity);
    const shown = JSON.stringify([this.participants, this.invitations]);
    if (shown === this.shown) return; // rows that stay are not replaced under somebody's finger
    this.shown = shown;
    this.list.replaceChildren(...this.participants.map((person) => this.row(person)));
  }

  row(person) {
    const mine = person.identity === this.claims.sub;
    const who = el('span', { class: 'who' }, `${person.identity}${mine ? ' (you)' : ''} `, el('small', {}, person.role));
    const badge = el('span', { class: `badge ${person.state}` }, person.state.replace('_', ' '));
    const item = el('li', { 'data-identity': person.identity }, who, badge);
    if (MAY_DIRECT.includes(this.claims.role) && !mine) item.append(...this.buttons(person));
    return item;
  }

  buttons(person) {
    const identity = encodeURIComponent(person.identity);
    const seat = `${this.path}/stage/seats/${identity}`;
    const participant = `${this.path}/participants/${identity}`;
    const button = (name, words, action) => {
      const onclick = () => action().catch((error) => notice(error.message));
      return el('button', { class: 'small', 'data-action': name, onclick }, words);
    };
    const buttons = [];
    if (person.state === 'on_air') buttons.push(button('backstage', 'Backstage', () => this.api.json('PUT', seat, { state: 'backstage' })));
    else if (person.state === 'backstage') buttons.push(button('on-air', 'On air', () => this.api.json('PUT', seat, { state: 'on_air' })));
    else if (this.invitations.includes(person.identity)) buttons.push(el('small', {}, 'invited'));
    else buttons.push(button('invite', 'Invite', () => this.api.json('POST', `${this.path}/stage/invitations`, { identity: person.identity })));
    if (person.state === 'on_air' || person.state === 'backstage') {
      const muted = person.muted.audio;
      buttons.push(button('mute', muted ? 'Unmute' : 'Mute', () => this.api.json('PATCH', participant, { muted: { audio: !muted } })));
    }
    if (person.role !== 'owner') buttons.push(button('kick', 'Kick', () => this.api.json('DELETE', participant)));
    return buttons;
  }
}
