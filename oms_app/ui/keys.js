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

// Radio groups by the arrow keys, and one stop of Tab each: Gradio 6.31 gives every button of a group another name, so that
// the browser doesn't take them for a group.
const radios = button => [...button.closest('fieldset').querySelectorAll('input[type=radio]')];
const isRadio = element => element?.matches?.('fieldset input[type=radio]');
document.addEventListener('keydown', event => {
  if (!isRadio(event.target) || event.altKey || event.ctrlKey || event.metaKey) return;
  const group = radios(event.target), move = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
  if (move) {
    const next = group[(group.indexOf(event.target) + move + group.length) % group.length];
    event.preventDefault();
    next.focus();
    next.click();
  } else if (event.key === 'Tab') {
    for (const other of group) if (other !== event.target) other.tabIndex = -1;
    setTimeout(() => group.forEach(one => one.removeAttribute('tabindex')));
  }
}, true);
document.addEventListener('focusin', event => {
  if (!isRadio(event.target) || radios(event.target).includes(event.relatedTarget)) return;
  if (event.target.matches(':focus-visible')) radios(event.target).find(one => one.checked)?.focus();
});
