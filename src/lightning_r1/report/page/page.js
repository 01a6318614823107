// What the data has a place for is drawn.
const DATA = JSON.parse(document.getElementById("data").textContent);
if (DATA.charts) drawCharts(DATA.charts);
const browserPlace = document.getElementById("browser");
if (browserPlace) new Browser(browserPlace, DATA.completions, DATA.tags);
const promptsPlace = document.getElementById("prompts");
if (promptsPlace) new Prompts(promptsPlace, DATA.prompts, DATA.tags);

// a link to a node opens it
const openLinked = () => {
  const linked = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (linked && linked.tagName === "DETAILS") { linked.open = true; linked.scrollIntoView(); }
};
addEventListener("hashchange", openLinked);
openLinked();

// a window that is narrower than the graph begins with its first node
const graphPlace = document.querySelector(".graph");
const firstNode = graphPlace && graphPlace.querySelector("a");
if (firstNode) {
  const box = firstNode.getBoundingClientRect(), frame = graphPlace.getBoundingClientRect();
  graphPlace.scrollLeft = (box.left + box.right) / 2 - (frame.left + frame.right) / 2;
}
