// A number that was typed outside its slider's range is set to the nearest end by Gradio 6.31, without a word: this says so.
(() => {
  const name = input => (input.ariaLabel ?? '').replace('number input for ', '')
    || input.closest('label')?.querySelector('[data-testid=block-info]')?.textContent.trim() || 'This';
  const said = input => {
    const {value, min, max, step} = input, number = Number(value);
    if (value === '') return min && `${name(input)} was empty: ${min} is set.`;
    if (min && max && (number < min || number > max))
      return `${name(input)} goes from ${min} to ${max}: ${value} became ${number < min ? min : max}.`;
    return step === '1' && !Number.isInteger(number) && `${name(input)} takes whole numbers: ${value} is rounded.`;
  };
  const clear = event => event.target.closest?.('.block')?.querySelector('.oms-range')?.remove();
  const tell = event => {
    if (!event.target.matches?.('input[type=number]')) return;
    const text = said(event.target);
    if (!text) return;
    clear(event);
    const line = document.createElement('p');
    line.className = 'oms-range';
    line.role = 'alert';
    line.textContent = text;
    event.target.closest('.block').append(line);
  };
  document.addEventListener('input', clear, true);
  document.addEventListener('blur', tell, true);  // before Gradio sees it
})();
