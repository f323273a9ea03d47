// What a reader would object to in a page, told as lists of sentences; see browser.py.

function name(one) {
  const kind = one.getAttribute("class");
  return `<${one.tagName.toLowerCase()}${kind ? `.${kind}` : ""}> ${one.textContent.trim().slice(0, 40)}`;
}

function isSeen(one) {
  const box = one.getBoundingClientRect();
  return box.width > 1.5 && box.height > 1.5 && one.checkVisibility({ visibilityProperty: true });
}

// Elements that hold text of their own.
function texts(root = document.body) {
  const own = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  return [...root.querySelectorAll("*")].filter((one) => own(one) && isSeen(one) && !one.closest(".chart thead"));
}

function sticking_out() {
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth)
    found.push(`the page is ${document.documentElement.scrollWidth} wide in ${innerWidth}`);
  for (const one of document.body.querySelectorAll("*")) {
    if (one.parentElement.closest(".scroll") || !isSeen(one)) continue;
    const box = one.getBoundingClientRect();
    if (box.right > innerWidth + 0.5 || box.left < -0.5) found.push(name(one));
  }
  // Cells of a chart have fixed widths: what does not fit runs into the next cell.
  for (const one of document.querySelectorAll(".chart th, .chart td:not(.plot)"))
    if (isSeen(one) && one.scrollWidth > one.clientWidth + 1) found.push(`in its cell: ${name(one)}`);
  return found;
}

// Text of figures that is cut off by its figure, or runs into other text.
function running_together() {
  const found = [];
  for (const svg of document.querySelectorAll("figure svg, svg.strip")) {
    if (!isSeen(svg)) continue;
    const frame = svg.getBoundingClientRect();
    const isRotated = (one) => /rotate\(-?[1-9]/.test(one.getAttribute("transform") || "");
    const all = [...svg.querySelectorAll("text")].filter(isSeen);
    for (const one of all) {
      const box = one.getBoundingClientRect();
      const isCut = box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
      if (isCut && !svg.matches(".strip")) found.push(`cut off: ${name(one)}`);
    }
    const boxes = all.filter((one) => !isRotated(one)).map((one) => [one, one.getBoundingClientRect()]);
    boxes.forEach(([one, a], at) => {
      for (const [other, b] of boxes.slice(at + 1)) {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 1 && down > 3) found.push(`over each other: ${name(one)} and ${name(other)}`);
      }
    });
  }
  return found;
}

function too_small(least) {
  const size = (one) => {
    const written = parseFloat(getComputedStyle(one).fontSize);
    if (!(one instanceof SVGTextElement)) return written;
    const to = one.getScreenCTM();
    return written * Math.hypot(to.a, to.b);
  };
  return texts().filter((one) => size(one) < least).map((one) => `${size(one).toFixed(1)} px: ${name(one)}`);
}

// WCAG 2.2, relative luminance and contrast ratio.
function luminance([red, green, blue]) {
  const [r, g, b] = [red, green, blue].map((one) => {
    const share = one / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function colour(text) {
  const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
  return { rgb: [red, green, blue], alpha };
}

function too_faint(least) {
  const found = [];
  for (const one of texts()) {
    const look = getComputedStyle(one);
    const ink = colour(one instanceof SVGElement ? look.fill : look.color);
    let behind = one;
    while (behind && colour(getComputedStyle(behind).backgroundColor).alpha < 1) behind = behind.parentElement;
    const paper = behind ? colour(getComputedStyle(behind).backgroundColor) : { rgb: [255, 255, 255] };
    const [high, low] = [luminance(ink.rgb), luminance(paper.rgb)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < least || ink.alpha < 1) found.push(`${ratio.toFixed(2)}: ${name(one)}`);
  }
  return found;
}

// In print nothing can be scrolled or unfolded.
function lost_in_print() {
  const found = [];
  for (const one of document.querySelectorAll("section, figure, table, article, pre"))
    if (!isSeen(one)) found.push(`not there: ${name(one)}`);
  for (const one of document.querySelectorAll(".scroll, pre"))
    if (one.scrollWidth > one.clientWidth + 1) found.push(`wider than the paper: ${name(one)}`);
  return found;
}
