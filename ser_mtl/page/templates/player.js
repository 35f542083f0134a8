// `element` holds the answer. A click on a segment plays it, from its start to its end.
let end = Infinity;
element.addEventListener("click", (event) => {
  const segment = event.target.closest("[data-start]");
  const player = element.querySelector("audio");
  if (!segment || !player) return;
  player.currentTime = Number(segment.dataset.start);
  end = Number(segment.dataset.end);
  player.play();
});
// Events of players do not bubble: they are caught on their way down.
element.addEventListener("pause", () => { end = Infinity; }, true);
element.addEventListener("timeupdate", (event) => {
  const player = event.target;
  const now = player.currentTime;
  const head = element.querySelector(".ser-head");
  head.style.display = "block";
  head.style.left = `${100 * Math.min(1, now / Number(element.querySelector("[data-seconds]").dataset.seconds))}%`;
  for (const button of element.querySelectorAll("button[data-start]")) {
    button.classList.toggle("ser-playing", now >= Number(button.dataset.start) && now < Number(button.dataset.end));
  }
  if (now >= end) player.pause();
}, true);
