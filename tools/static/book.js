// A page opened from disk may not read its neighbors, so the search there lists titles without the lines around a hit.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// Marks the figures wider than kdutils.plot draws them, whose labels a phone would shrink too far (see book.css).
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll(".cell_output img")) {
    const mark = () => image.toggleAttribute("data-wide", image.naturalWidth > 900);
    if (image.complete) mark();
    else image.addEventListener("load", mark);
  }
});
