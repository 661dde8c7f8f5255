// Pictures in frames are never enlarged more than twice: style.css needs to know their size.
document.addEventListener('load', event => {
  const image = event.target;
  if (!image.matches?.('.image-frame img, #draft img, .oms-live img, .oms-view-frame img')) return;
  if (!image.closest('.oms-live')) image.style.setProperty('--natural', `${image.naturalWidth}px`);  // previews are smaller than the picture
  image.style.setProperty('--aspect', image.naturalWidth / image.naturalHeight);
}, true);
