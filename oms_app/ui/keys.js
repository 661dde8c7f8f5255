// Ctrl+Enter (Cmd+Enter) generates, Esc stops, in whichever tab is open. Caught on the way down, so that no text field swallows them.
document.addEventListener('keydown', event => {
  const press = id => {
    const button = document.getElementById(id);
    if (!button || button.disabled || !button.offsetParent) return;
    event.preventDefault();
    event.stopPropagation();
    button.click();
  };
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) ['generate', 'explore', 'compare'].forEach(press);
  else if (event.key === 'Escape') ['stop', 'explore-stop', 'compare-stop'].forEach(press);
}, true);
