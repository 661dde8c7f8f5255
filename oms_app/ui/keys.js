// Ctrl+Enter (Cmd+Enter) starts and Esc stops, in whichever tab is open. Caught in the capture phase, before a text field does.
document.addEventListener('keydown', event => {
  const press = selector => {
    const button = [...document.querySelectorAll(selector)].find(one => !one.disabled && one.offsetParent);
    if (!button) return;
    event.preventDefault();
    event.stopPropagation();
    button.click();
  };
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) press('button.oms-start');
  else if (event.key === 'Escape') press('button.oms-stop');
}, true);
