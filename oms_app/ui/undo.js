// Undo, Redo and Reset of the fields of Create. Values of all fields are kept in the order of CreateValues.
const settingsHistory = {
  past: [], now: null, future: [], timer: null,
  // A click may change many fields, one after the other: what they hold once they rest is one step.
  record(values) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const text = JSON.stringify(values);
      if (text === this.now) return;
      if (this.now !== null) this.past.push(this.now);
      this.now = text;
      this.future = [];
      if (this.past.length > 100) this.past.shift();
    }, 300);
  },
  move(values, from, to) {
    clearTimeout(this.timer);
    const text = JSON.stringify(values);
    if (text !== this.now && this.now !== null && from === this.past) from.push(this.now);  // not yet recorded
    if (!from.length) return values;
    to.push(text);
    this.now = from.pop();
    return JSON.parse(this.now);
  },
  undo(values) { return this.move(values, this.past, this.future); },
  redo(values) { return this.move(values, this.future, this.past); },
};
document.addEventListener('keydown', event => {
  if (event.key.toLowerCase() !== 'z' || !(event.ctrlKey || event.metaKey)) return;
  if (event.target.matches('textarea, input:not([type=range], [type=radio], [type=checkbox])')) return;  // they have their own
  const button = document.querySelector(event.shiftKey ? '#redo' : '#undo');
  if (!button?.offsetParent) return;
  event.preventDefault();
  button.click();
});
