// Ctrl+Enter (Cmd+Enter) starts and Esc stops, in whichever tab is open. Caught in the capture phase, before a text field does.
document.addEventListener('keydown', event => {
  const press = selector => {
    const button = [...document.querySelectorAll(selector)].find(one => !one.disabled && one.offsetParent);
    if (!button) return;
    event.preventDefault();
    event.stopPropagation();
    const field = event.target;
    if (!field.matches('input[type=number]')) return button.click();
    field.blur();  // a slider's number counts, and is checked, when its field is left
    setTimeout(() => { field.focus(); button.click(); });
  };
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) press('button.oms-start');
  else if (event.key === 'Escape') press('button.oms-stop');
}, true);

// Groups by the arrow keys, and one stop of Tab each: looks, pictures in a row, and radio groups, of which Gradio 6.31 gives
// every button another name, so that the browser doesn't take them for a group.
const GROUPS = '.oms-looks, .oms-recent, .oms-examples, .oms-view-bar, #vocabulary, #sweep .oms-grid, fieldset:has(input[type=radio])';
const members = element => {
  if (!element?.matches?.('button, input[type=radio]')) return [];
  return [...element.closest(GROUPS)?.querySelectorAll(element.matches('button') ? 'button:enabled' : 'input[type=radio]') ?? []];
};
document.addEventListener('keydown', event => {
  const group = members(event.target);
  if (!group.length || event.altKey || event.ctrlKey || event.metaKey) return;
  const move = !event.shiftKey && {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (move) {
    const next = group[(group.indexOf(event.target) + move + group.length) % group.length];
    event.preventDefault();
    next.focus();
    if (next.matches('input')) next.click();
  } else if (event.key === 'Tab') {
    for (const other of group) if (other !== event.target) other.tabIndex = -1;
    setTimeout(() => group.forEach(one => one.removeAttribute('tabindex')));
  }
}, true);
document.addEventListener('focusin', event => {
  const group = members(event.target);
  if (!group.length || group.includes(event.relatedTarget) || !event.target.matches(':focus-visible')) return;
  group.find(one => one.checked || one.ariaCurrent === 'true')?.focus();
  if (group.at(-1) === event.target && !event.target.matches('input')) group[0].focus();  // by Shift+Tab
});
