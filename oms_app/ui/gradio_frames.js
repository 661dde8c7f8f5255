// Gradio 6.31 counts the seconds of everything that loads in each frame of the screen, and those of its own "Loading..." for ever,
// which took 5 % of a core. Four times a second is enough for them. Remove when it ends with what is loaded.
(() => {
  const request = requestAnimationFrame.bind(window);
  window.requestAnimationFrame = callback =>
    /performance\.now\(\)-.*\/1e3/.test(callback) ? setTimeout(() => callback(performance.now()), 250) : request(callback);
})();
