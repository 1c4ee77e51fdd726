"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // An element with properties and children; strings become text, never markup.
  const make = (name, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // ------------------------------------------------------------------------------------------------- theme
  const root = document.documentElement;
  const remembered = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("onnxgain-theme", value);
      return localStorage.getItem("onnxgain-theme");
    } catch {
      return null; // files may have no storage
    }
  };
  if (remembered()) root.dataset.theme = remembered();
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    remembered(root.dataset.theme);
  });

  // --------------------------------------------------------------------------------- state in the address
  // Behind "#/", so that a link shows what its sender saw: sorting, filters, selections. "#name" leads to a place.
  const state = new URLSearchParams(location.hash.startsWith("#/") ? location.hash.slice(2) : "");
  const keep = (key, value) => {
    if (value === "" || value === null) state.delete(key);
    else state.set(key, value);
    try {
      history.replaceState(null, "", `#/${state}`);
    } catch {
      // where a page has no address of its own
    }
  };

  // ------------------------------------------------------------------------------------- tables of models
  const sortRows = (table, column, descending) => {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const key = (row) => row.cells[column].dataset.value;
    const numeric = heads[column].classList.contains("number");
    const compare = (a, b) => (numeric ? Number(a) - Number(b) : collator.compare(a, b));
    const rows = [...body.rows];
    const valued = rows.filter((row) => key(row) !== undefined);
    valued.sort((a, b) => (descending ? -1 : 1) * compare(key(a), key(b)));
    // What has no value comes last, whatever the direction.
    body.append(...valued, ...rows.filter((row) => key(row) === undefined));
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };

  for (const listing of all(".listing")) {
    const table = listing.querySelector("table");
    const heads = [...table.tHead.rows[0].cells];
    const sorter = listing.querySelector("select[data-sort]");
    const number = listing.dataset.group;
    const sort = (column, descending) => {
      sortRows(table, column, descending);
      sorter.value = `${column} ${descending ? 1 : 0}`;
      keep(`sort${number}`, sorter.value.replace(" ", "."));
    };
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
      for (const descending of [0, 1]) {
        const label = `${head.dataset.label} ${descending ? "↓" : "↑"}`;
        sorter.append(make("option", { value: `${column} ${descending}` }, label));
      }
    });
    const first = heads.findIndex((head) => head.dataset.label === "#");
    sorter.value = `${first} 0`;
    heads[first].setAttribute("aria-sort", "ascending");
    sorter.addEventListener("change", () => {
      const [column, descending] = sorter.value.split(" ").map(Number);
      sort(column, descending === 1);
    });

    const rows = all("tbody tr", table);
    const count = listing.querySelector(".count");
    const search = listing.querySelector("input[type=search]");
    const differing = listing.querySelector("input[data-differing]");
    const showDiffering = () => {
      const shown = rows.filter((row) => !row.hidden);
      heads.forEach((head, column) => {
        const fixed = ["choose", "rank", "shot", "name", "main"].some((name) =>
          head.classList.contains(name) || rows[0].cells[column].classList.contains(name));
        const values = new Set(shown.map((row) => row.cells[column].dataset.value));
        const hidden = Boolean(differing?.checked) && !fixed && shown.length > 1 && values.size < 2;
        for (const cell of [head, ...rows.map((row) => row.cells[column])]) cell.hidden = hidden;
      });
    };
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) row.hidden = !words.every((word) => row.dataset.words.includes(word));
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = words.length ? `${shown} of ${rows.length}` : "";
      showDiffering();
    };
    search.addEventListener("input", () => {
      filter();
      keep(`filter${number}`, search.value);
      redraw(number);
    });
    differing?.addEventListener("change", () => {
      showDiffering();
      keep(`differing${number}`, differing.checked ? "1" : "");
    });

    const gallery = listing.querySelector("button[data-gallery]");
    const showGallery = (shown) => {
      listing.classList.toggle("gallery", shown);
      gallery.setAttribute("aria-pressed", String(shown));
    };
    gallery?.addEventListener("click", () => {
      showGallery(!listing.classList.contains("gallery"));
      keep(`gallery${number}`, listing.classList.contains("gallery") ? "1" : "");
    });
    listing.addEventListener("click", (event) => {
      const opener = event.target.closest(".open");
      if (opener) showModel(opener.closest("tr"));
    });
    const boxes = all(".choose input", table);
    listing.addEventListener("change", (event) => {
      if (!event.target.closest(".choose")) return;
      keep(`chosen${number}`, boxes.map((box, i) => (box.checked ? i : -1)).filter((i) => i >= 0).join(".") || "none");
      drawProfiles(number);
    });

    if (state.has(`chosen${number}`)) {
      const chosen = state.get(`chosen${number}`).split(".");
      boxes.forEach((box, i) => { box.checked = chosen.includes(String(i)); });
    }
    if (state.has(`sort${number}`)) {
      const [column, descending] = state.get(`sort${number}`).split(".").map(Number);
      if (heads[column]) sort(column, descending === 1);
    }
    if (gallery && state.has(`gallery${number}`)) showGallery(true);
    if (differing) differing.checked = state.has(`differing${number}`);
    search.value = state.get(`filter${number}`) ?? "";
    if (search.value || differing?.checked) filter();
  }
  for (const choice of all("select[data-channel-of]")) {
    const key = `channel${choice.dataset.channelOf}`;
    if ([...choice.options].some((option) => option.value === state.get(key))) choice.value = state.get(key);
    choice.addEventListener("change", () => {
      keep(key, choice.value);
      drawProfiles(choice.dataset.channelOf);
    });
  }

  const modelOf = (row) => {
    const [group, place] = row.dataset.model.split(".").map(Number);
    return data.groups[group].models[place];
  };

  // ------------------------------------------------------------------------------------ details of a model
  const dialog = document.getElementById("detail");
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  const showPicture = (source, caption, scale, low, high) =>
    make("figure", {},
      make("img", { src: source, alt: caption }),
      make("span", { className: `scale ${scale}` }),
      make("figcaption", {},
        make("span", { className: "ends" }, make("span", {}, low), make("span", {}, high)),
        caption));

  const showModel = (row) => {
    const model = modelOf(row);
    const close = make("button", { type: "button", className: "close", ariaLabel: "close" }, "✕");
    close.addEventListener("click", () => dialog.close());
    const pictures = make("div", { className: "pictures" });
    const shots = all(".shot img", row).map((image) => image.src);
    if (shots.length) {
      const inline = (png) => `data:image/png;base64,${png}`;
      const [limit, low, high] = model.limits;
      const channels = [[model.first, ...shots], ...model.others.map(([name, d, r]) => [name, inline(d), inline(r)])];
      const order = data.groups[row.dataset.model.split(".")[0]].channels;
      channels.sort((a, b) => order.indexOf(a[0]) - order.indexOf(b[0]));
      for (const [name, derivative] of channels) {
        pictures.append(showPicture(derivative, `derivative, ${name}, per 8-bit level`, "bluered", `−${limit.slice(1)}`, `+${limit.slice(1)}`));
      }
      for (const [name, , response] of channels) {
        pictures.append(showPicture(response, `frequency response, ${name}, ±1/2 cycle/pixel`, "viridis", `${low} dB`, `${high} dB`));
      }
      pictures.style.gridTemplateColumns = `repeat(${channels.length > 1 ? channels.length : 2}, minmax(0, 320px))`;
    }
    const parts = model.details.flatMap(([heading, rows]) => [
      make("h3", {}, heading),
      make("dl", {}, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    ]);
    dialog.replaceChildren(close, make("h2", {}, model.label), pictures, ...parts);
    dialog.showModal();
    dialog.scrollTop = 0;
  };

  // ------------------------------------------------------------------------------------------------ charts
  const AXIS = 64; // beside each panel

  // The definition laid out for a width: as many panels beside each other as are wide enough to read.
  const laidOut = (spec, width) => {
    const fitted = structuredClone(spec);
    const panels = fitted.concat;
    const columns = Math.max(1, Math.min(panels.length, Math.floor(width / (190 + AXIS))));
    fitted.columns = Math.ceil(panels.length / Math.ceil(panels.length / columns));
    fitted.spacing.column = AXIS;
    const room = Math.floor((width - 16) / fitted.columns) - AXIS;
    for (const panel of panels) {
      panel.width = panels.length === 1 ? room : Math.min(room, panels.length === 2 ? 640 : 420);
      panel.height = panels.length === 1 ? Math.min(320, panel.width) : Math.min(Math.max(panel.width * 0.85, 190), 300);
    }
    return fitted;
  };

  const drawn = new Map(); // figure -> the width it was drawn for
  const draw = async (figure, again = false) => {
    const width = Math.floor(figure.clientWidth);
    if (!width || figure.closest("details:not([open])") || (!again && drawn.get(figure) === width)) return;
    drawn.set(figure, width);
    const spec = figure.dataset.profiles === undefined ? chartOf(figure) : profilesOf(figure, width);
    if (!spec.data.values.length) {
      figure.replaceChildren(make("p", { className: "note" }, "Nothing is selected."));
      figure.classList.add("drawn");
      return;
    }
    const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: data.style, tooltip: { theme: "custom" } };
    const result = await window.vegaEmbed(figure, laidOut(spec, width), options);
    figure.classList.add("drawn");
    result.view.addEventListener("click", (event, item) => {
      const rank = item?.datum?.rank;
      const row = rank && figure.closest("section").querySelector(`tr[data-model$=".${rank - 1}"]`);
      if (row) showModel(row);
    });
  };

  // The chart with what the filters leave.
  const chartOf = (figure) => {
    const spec = data.charts[figure.dataset.chart];
    const shown = (selector) => all(`${selector} tbody tr`).filter((row) => !row.hidden);
    if (figure.dataset.group !== undefined) {
      const ranks = new Set(shown(`.listing[data-group="${figure.dataset.group}"]`).map((row) => row.querySelector(".rank").dataset.value));
      return { ...spec, data: { ...spec.data, values: spec.data.values.filter((value) => ranks.has(String(value.rank))) } };
    }
    if (figure.dataset.rows !== undefined) {
      const rows = new Set(shown(".listing").map((row) => row.dataset.row));
      return { ...spec, data: { ...spec.data, values: spec.data.values.filter((value) => value.row === undefined || rows.has(value.row)) } };
    }
    return spec;
  };

  const profilesOf = (figure, width) => {
    const group = figure.dataset.profiles;
    const channel = document.querySelector(`select[data-channel-of="${group}"]`).value;
    const spec = structuredClone(data.profiles);
    const rows = all(`.listing[data-group="${group}"] tbody tr`).filter((row) => row.querySelector("input").checked && !row.hidden);
    for (const layer of spec.concat[0].layer) layer.encoding.color.legend.columns = Math.max(1, Math.floor(width / 260));
    const ranked = rows.map((row) => [row.querySelector(".rank").dataset.value, modelOf(row)]);
    spec.data.values = ranked.flatMap(([rank, model]) =>
      model.frequency.map((frequency, i) => ({ model: `${rank}  ${model.label}`, frequency, gain: model.profile[channel]?.[i] ?? null })));
    return spec;
  };
  const drawProfiles = (group) => {
    const figure = document.querySelector(`figure[data-profiles="${group}"]`);
    if (figure) draw(figure, true);
  };

  // Draw again what depends on the rows of a table, once nobody types any more.
  let waiting;
  const redraw = (group) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const figures = all(`figure[data-group="${group}"], figure[data-rows], figure[data-profiles="${group}"]`);
      for (const figure of figures) if (drawn.has(figure)) draw(figure, true);
    }, 150);
  };

  // Charts are drawn when they come near the window, and the rest when there is time, so that printing has them.
  addEventListener("DOMContentLoaded", () => {
    const figures = all("figure.chart");
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
    }, { rootMargin: "400px" });
    const sizes = new ResizeObserver((entries) => {
      for (const entry of entries) {
        clearTimeout(entry.target.waiting);
        if (drawn.has(entry.target)) entry.target.waiting = setTimeout(() => draw(entry.target), 150);
      }
    });
    // A page that is never idle has its charts too.
    const later = (work) => (window.requestIdleCallback ? requestIdleCallback(work, { timeout: 500 }) : setTimeout(work, 50));
    const next = (rest) => {
      if (rest.length) later(() => draw(rest[0]).then(() => next(rest.slice(1))));
    };
    for (const figure of figures) {
      seen.observe(figure);
      sizes.observe(figure);
      figure.closest("details")?.addEventListener("toggle", () => draw(figure));
    }
    addEventListener("load", () => next(figures));
  });
})();
