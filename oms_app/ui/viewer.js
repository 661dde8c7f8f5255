// The pictures of the panels one over the other, with a divider or as their difference. Zoom and pan hold for the panels too.
// element: the viewer. What it shows follows the panels, and the draft over them.
const all = element.closest('#pictures'), frame = element.querySelector('.oms-view-frame');
const divider = element.querySelector('input'), percent = element.querySelector('output');
const raw = element.querySelector('.oms-view-raw img'), oms = element.querySelector('.oms-view-oms img');
const difference = element.querySelector('[data-do=difference]');
const MOST = 16;  // times as large as fits
let scale = 1, x = 0, y = 0;  // 1: it fits. x, y: moved by so many of the picture's widths and heights

const show = (mine, source) => {
  const address = source?.getAttribute('src') || '';
  if (mine.getAttribute('src') !== address) address ? mine.setAttribute('src', address) : mine.removeAttribute('src');
  mine.parentElement.hidden = !address;
};
const follow = () => {
  show(raw, all.querySelector('#raw-image img'));
  const draft = all.classList.contains('oms-draft') && all.querySelector('#draft img');
  show(oms, draft || all.querySelector('#oms-image img'));
  const both = !raw.parentElement.hidden && !oms.parentElement.hidden;
  if (both === !difference.disabled) return;
  frame.classList.toggle('oms-both', both);
  difference.disabled = !both;
  if (!both && frame.classList.contains('oms-difference')) actions.difference(difference);
};
new MutationObserver(follow).observe(
  all, {subtree: true, childList: true, attributes: true, attributeFilter: ['src', 'class']});

const seen = () => oms.parentElement.hidden ? raw : oms;
const onePixel = () => seen().naturalWidth / devicePixelRatio / seen().offsetWidth || 1;  // the scale of 1:1
const apply = () => {
  const limit = Math.max(0, (scale - 1) / 2);
  x = Math.max(-limit, Math.min(limit, x));
  y = Math.max(-limit, Math.min(limit, y));
  for (const [name, value] of [['--scale', scale], ['--x', x], ['--y', y]]) all.style.setProperty(name, value);
  all.classList.toggle('oms-zoomed', scale > 1);
  percent.value = `${Math.round(100 * scale / onePixel())} %`;
};
const zoom = (to, event) => {  // the place under the pointer stays, else the middle
  const box = frame.getBoundingClientRect();
  const dx = event ? (event.clientX - box.x - box.width / 2) / seen().offsetWidth : 0;
  const dy = event ? (event.clientY - box.y - box.height / 2) / seen().offsetHeight : 0;
  to = Math.max(Math.min(1, onePixel()), Math.min(MOST, to));
  x = dx - (dx - x) * to / scale;
  y = dy - (dy - y) * to / scale;
  scale = to;
  apply();
};
const actions = {
  in: () => zoom(scale * 1.5), out: () => zoom(scale / 1.5), fit: () => zoom(1), one: () => zoom(onePixel()),
  full: () => document.fullscreenElement ? document.exitFullscreen()
    : element.querySelector('.oms-viewer').requestFullscreen(),
  difference: button => {
    const on = frame.classList.toggle('oms-difference');
    button.setAttribute('aria-pressed', on);
  },
};
element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) actions[button.dataset.do](button);
});
for (const image of [raw, oms]) image.addEventListener('load', apply);
new ResizeObserver(apply).observe(frame);

const divide = value => {
  divider.value = value;
  frame.style.setProperty('--divider', `${divider.value}%`);
};
divider.addEventListener('input', () => divide(divider.value));
element.addEventListener('keydown', event => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const act = {'+': 'in', '=': 'in', '-': 'out', '0': 'fit', '1': 'one'}[event.key];
  const move = event.shiftKey && {ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
  if (act) actions[act]();
  else if (move) { x += move[0] * .1; y += move[1] * .1; apply(); }
  else return;
  event.preventDefault();
});

// A pointer drags the divider, or the picture if it is zoomed; two fingers zoom.
const pointers = new Map();
let drag = null, spread = 0;
const place = event => {
  const box = frame.getBoundingClientRect();
  return 100 * (event.clientX - box.x) / box.width;
};
const apart = () => {
  const [one, two] = pointers.values();
  return Math.hypot(one.clientX - two.clientX, one.clientY - two.clientY);
};
frame.addEventListener('pointerdown', event => {
  if (event.button) return;
  pointers.set(event.pointerId, event);
  frame.setPointerCapture(event.pointerId);
  const near = Math.abs(place(event) - divider.value) * frame.clientWidth / 100 < 24;
  const divided = frame.matches('.oms-both:not(.oms-difference)');
  drag = pointers.size > 1 ? 'zoom' : divided && (near || scale <= 1) ? 'divider' : 'picture';
  if (drag === 'zoom') spread = apart();
  divider.focus({preventScroll: true});
});
frame.addEventListener('pointermove', event => {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  pointers.set(event.pointerId, event);
  if (drag === 'divider') divide(place(event));
  else if (drag === 'picture') {
    x += (event.clientX - last.clientX) / seen().offsetWidth;
    y += (event.clientY - last.clientY) / seen().offsetHeight;
    apply();
  } else if (pointers.size > 1) {
    const now = apart();
    zoom(scale * now / spread, event);
    spread = now;
  }
});
for (const end of ['pointerup', 'pointercancel']) frame.addEventListener(end, event => pointers.delete(event.pointerId));
frame.addEventListener('wheel', event => {
  if (!event.ctrlKey && !event.metaKey) return;  // the page scrolls
  event.preventDefault();
  zoom(scale * Math.exp(-event.deltaY / 300), event);
}, {passive: false});
frame.addEventListener('dblclick', event => scale === 1 ? zoom(3, event) : actions.fit());
follow();
