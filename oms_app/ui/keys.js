// Ctrl+Enter (Cmd+Enter) generates, Esc stops. Caught on the way down, so that no text field swallows them.
document.addEventListener('keydown', event => {
  const press = id => {
    const button = document.getElementById(id);
    if (!button || button.disabled) return;
    event.preventDefault();
    event.stopPropagation();
    button.click();
  };
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) press('generate');
  else if (event.key === 'Escape') press('stop');
}, true);
