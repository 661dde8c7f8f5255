// A click on a known word writes it where the cursor was last: in the prompt, or in an OMS prompt.
const TEXTS = ':is(#prompt, #oms-prompt, #oms-slide) :is(textarea, input)';
let last = null;
document.addEventListener('focusin', event => { if (event.target.matches(TEXTS)) last = event.target; });
element.addEventListener('click', event => {
  const word = event.target.closest('button')?.textContent;
  if (!word) return;
  const field = last?.offsetParent ? last : document.querySelector('#prompt textarea');
  const at = field.selectionEnd, before = field.value.slice(0, at), after = field.value.slice(at);
  field.setRangeText(`${/^$|\s$/.test(before) ? '' : ' '}${word}${/^$|^[\s,]/.test(after) ? '' : ' '}`, at, at, 'end');
  field.dispatchEvent(new Event('input', {bubbles: true}));
});
document.addEventListener('pointerdown', event => {
  if (!element.contains(event.target) && !event.target.matches(TEXTS)) element.querySelector('details')?.removeAttribute('open');
});
