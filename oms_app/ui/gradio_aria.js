// Labels that Gradio 6.31 gives to its parts so that screen readers can't use them. Remove when axe-core finds nothing without.
(() => {
  let waits = false;
  const mend = () => {
    waits = false;
    for (const button of document.querySelectorAll('.upload-container[aria-label]')) button.removeAttribute('aria-label');  // differs from its words
    for (const place of document.querySelectorAll('div.empty[aria-label]:not([role])')) place.setAttribute('role', 'img');
  };
  new MutationObserver(() => {
    if (waits) return;
    waits = true;
    setTimeout(mend, 200);
  }).observe(document, {childList: true, subtree: true});
})();
