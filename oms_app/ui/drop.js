// A picture that is dropped anywhere on Create goes to #restore, which reads its settings.
(() => {
  const types = ["image/png", "image/jpeg", "image/webp"];
  const place = event => {
    const create = document.querySelector("#layout");
    if (!create || !create.checkVisibility() || !event.dataTransfer?.types.includes("Files")) return null;
    const own = event.target.closest?.(".block:has(input[type=file])"); // it takes files itself
    return own && !own.matches("#restore") ? null : document.querySelector("#restore input[type=file]");
  };
  document.addEventListener("dragover", event => {
    if (place(event)) event.preventDefault();
  });
  document.addEventListener("drop", event => {
    const input = place(event);
    const file = [...(event.dataTransfer?.files ?? [])].find(one => types.includes(one.type));
    if (!input || !file) return;
    event.preventDefault();
    event.stopPropagation();
    const taken = new DataTransfer();
    taken.items.add(file);
    input.files = taken.files;
    input.dispatchEvent(new Event("change", {bubbles: true}));
  }, true);
})();
