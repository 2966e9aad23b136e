// A page opened from disk may not read its neighbors, so the search there lists titles without the lines around a hit.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// Marks the figures whose labels a phone would shrink too far (book.css lets them scroll instead).
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll(".cell_output img")) {
    const mark = () => image.toggleAttribute("data-wide", image.naturalWidth > 700);
    image.complete ? mark() : image.addEventListener("load", mark);
  }
});
