// A number that is typed outside its slider's range reaches the server only as the nearest end, and a line says so. Gradio 6.31
// sends it as it is typed, which the server refuses, and changes it without a word when its field is left.
(() => {
  const isNumber = element => element.matches?.('input[type=number]');
  const isOut = ({value, min, max}) => min !== '' && max !== '' && (value === '' || Number(value) < min || Number(value) > max);
  const name = input => input.closest('.block')?.querySelector('[data-testid=block-info]')?.textContent.trim() || told('This field');
  const clear = input => input.closest('.block')?.querySelector('.oms-range')?.remove();
  const say = (input, text) => {
    clear(input);
    const line = document.createElement('p');
    line.className = 'oms-range';
    line.role = 'alert';
    line.textContent = text;
    input.closest('.block').append(line);
  };
  document.addEventListener('input', event => {
    if (!event.target.closest) return;
    clear(event.target);
    if (isNumber(event.target) && isOut(event.target)) event.stopImmediatePropagation();
  }, true);
  document.addEventListener('blur', event => {
    const input = event.target;
    if (!isNumber(input)) return;
    const {value, min, max, step} = input;
    if (isOut(input)) {
      const last = input.closest('.block').querySelector('input[type=range]')?.value ?? min;
      input.value = value === '' ? last : Number(value) < min ? min : max;
      input.dispatchEvent(new Event('input', {bubbles: true}));
      say(input, value === '' ? told('{name} was empty: {last} is kept.', {name: name(input), last})
        : told('{name} goes from {min} to {max}: {value} became {now}.', {name: name(input), min, max, value, now: input.value}));
    } else if (step === '1' && value !== '' && !Number.isInteger(Number(value)))
      say(input, told('{name} takes whole numbers: {value} is rounded.', {name: name(input), value}));
  }, true);
})();
