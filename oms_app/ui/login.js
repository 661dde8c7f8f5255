// The form to log in, to which Gradio 6.31 gives no title, landmark and first heading, and which shows nothing when the server wants the
// visitor to wait after wrong passwords: it says for how long. Remove when Gradio's form does that.
(() => {
  document.title = 'OMS Studio';
  const form = () => document.querySelector('input[type=password]')?.closest('.wrap:has(h2)');
  new MutationObserver((_, observer) => {
    if (!form()) return;
    form().role = 'main';
    form().querySelector('h2').ariaLevel = 1;
    observer.disconnect();
  }).observe(document, {childList: true, subtree: true});

  let line, timer;
  const say = text => {
    if (!line) {
      line = document.createElement('p');
      line.className = 'oms-wait';
      line.role = 'alert';
      form().querySelector('h2').after(line);
    }
    line.textContent = text;
  };
  const send = window.fetch;
  window.fetch = async (...request) => {
    const answer = await send(...request);
    clearTimeout(timer);
    if (answer.status === 429) {
      const wait = Number(answer.headers.get('retry-after'));
      timer = setTimeout(() => say(told('You can try again now.')), wait * 1000);
      say(wait < 100 ? told('Too many wrong passwords: try again in {n} s.', {n: wait})
        : told('Too many wrong passwords: try again in {n} min.', {n: Math.ceil(wait / 60)}));
    } else line?.replaceChildren();
    return answer;
  };
})();
