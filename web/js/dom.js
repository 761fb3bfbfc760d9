// Small helpers for pages without a framework. Text always goes in as text, never as markup.

/** Make an element: `el('button', { class: 'small', onclick }, 'Mute')`. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== 'list') node[name] = value;
    else node.setAttribute(name === 'class' ? 'class' : name, value);
  }
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Bits per second for people. */
export function bitrate(bps) {
  if (!Number.isFinite(bps)) return '–';
  if (bps >= 1e6) return `${(bps / 1e6).toFixed(1)} Mbit/s`;
  return `${Math.round(bps / 1e3)} kbit/s`;
}

export const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;

/** Show a state in a badge. */
export function showState(badge, state, text = state) {
  badge.className = `badge ${state}`;
  badge.textContent = text.replace('_', ' ');
}

/** Show or hide the page's notice. */
export function notice(message) {
  const box = byId('notice');
  box.hidden = !message;
  box.textContent = message ?? '';
}

/** A page needs a room and a token; say how to get one when they are missing. */
export function requireAccess({ room, token }) {
  if (room && token) return true;
  notice('This page needs a room and a token in its address: #room=demo&token=… — make one with: costream token --room demo --identity me --role guest');
  return false;
}
