"use strict";
// Each slider shows another picture in each image that names it; without this script the first ones stay.
const pictures = JSON.parse(document.getElementById("pictures").textContent);
for (const slider of document.querySelectorAll("input[data-slider]")) {
  const set = pictures[slider.dataset.slider];
  const told = document.getElementById(slider.dataset.slider + "-told");
  const show = () => {
    const at = Number(slider.value);
    told.textContent = set.captions[at];
    for (const image of document.querySelectorAll(`img[data-slider="${slider.dataset.slider}"]`)) {
      const own = set.images[image.dataset.picture];
      image.src = own[Math.min(at, own.length - 1)];
    }
  };
  slider.addEventListener("input", show);
  show();
}
