// Labels that Gradio 6.31 gives to its parts so that screen readers can't use them, or in English only. Remove when axe-core finds
// nothing without, and Gradio translates them.
(() => {
  let waits = false;
  const english = [
    [/^number input for (.*)$/, () => told('number input for {name}')], [/^range slider for (.*)$/, () => told('range slider for {name}')],
    [/^(Reset to default value)$/, () => told('Reset to default value')], [/^(Fullscreen)$/, () => told('Full screen')],
    [/^(Gradio footer navigation)$/, () => told('Page settings')],
  ];
  const mend = () => {
    waits = false;
    for (const button of document.querySelectorAll('.upload-container[aria-label]')) button.removeAttribute('aria-label');  // differs from its words
    if (document.documentElement.lang !== 'en') for (const element of document.querySelectorAll('[aria-label]'))
      for (const [form, text] of english) {
        const found = element.ariaLabel.match(form);
        if (!found) continue;
        if (element.title === element.ariaLabel) element.title = text();
        element.ariaLabel = text().replace('{name}', () => found[1]);
      }
    for (const image of document.querySelectorAll('footer button img[alt]:not([alt=""])')) image.alt = '';  // the button's words again
    for (const place of document.querySelectorAll('div.empty[aria-label]:not([role])')) place.setAttribute('role', 'img');
  };
  new MutationObserver(() => {
    if (waits) return;
    waits = true;
    setTimeout(mend, 200);
  }).observe(document, {childList: true, subtree: true});
})();
