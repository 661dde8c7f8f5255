// A text of these scripts in the page's language, with its {places} filled. translated_page.py sets omsTexts.
const told = (text, places = {}) =>
  (window.omsTexts?.[text] ?? text).replace(/\{(\w+)\}/g, (place, name) => places[name] ?? place);

// Gradio's settings change the language of its own texts alone: the page opens again with all texts in that language.
new MutationObserver(() => {
  const address = new URL(location), wanted = document.documentElement.lang;
  if (wanted === navigator.language) return;
  address.searchParams.set('lang', wanted);
  location.replace(address);
}).observe(document.documentElement, {attributes: true, attributeFilter: ['lang']});
