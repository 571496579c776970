
'use strict';
// The data may be hostile. Everything below inserts it as text, never as HTML.
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find('data').textContent);
  const tasks = data.tasks;
  const ROWS = 500; // rows shown at once

  const node = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === 'onclick') made.addEventListener('click', value);
      else if (value !== null) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== ''));
    return made;
  };
  const drawn = (tag, attributes, text = '') => {
    const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  };

  const count = (n) => n.toLocaleString('en-US');
  const plural = (n, word) => `${count(n)} ${word}${n === 1 ? '' : 's'}`;
  const time = (s) => {
    if (s < 59.5) return `${s < 10 && s !== 0 ? s.toFixed(1) : Math.round(s)} s`;
    const [minutes, seconds] = [Math.floor(Math.round(s) / 60), Math.round(s) % 60];
    return minutes < 60 ? `${minutes} min ${seconds} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };
  const dollars = (n) => `$${n.toFixed(4)}`;
  const short = (n) => n < 1e4 ? count(Math.round(n)) : n < 1e6 ? `${+(n / 1e3).toFixed(1)}k` : `${+(n / 1e6).toFixed(1)}M`;

  // --- The list of tasks ---------------------------------------------------------------------

  const columns = [
    { name: 'Task', value: (t) => t.id, kind: 'id' },
    { name: 'Ending', value: (t) => t.ending, kind: 'ending' },
    { name: 'Turns', value: (t) => t.turns, unit: 'turns' },
    { name: 'Tokens', value: (t) => t.tokens, unit: 'tokens' },
    { name: 'Time', value: (t) => t.seconds, show: (t) => time(t.seconds) },
    { name: 'Cost', value: (t) => t.cost, show: (t) => t.cost === null ? '' : dollars(t.cost) },
    { name: 'Lines', value: (t) => t.added + t.removed, kind: 'lines' },
    { name: 'Message', value: (t) => t.message, kind: 'message' },
  ].filter((column) => column.name !== 'Cost' || tasks.some((t) => t.cost !== null));
  const isNumber = (column) => column.kind === undefined || column.kind === 'lines';
  const view = { sort: null, down: false, ending: null, words: [], limit: ROWS };

  const matching = () => {
    const shown = tasks.filter((t) => {
      if (view.ending !== null && t.ending !== view.ending) return false;
      const text = `${t.id}\n${t.ending}\n${t.flaky ? 'flaky' : ''}\n${t.message}`.toLowerCase();
      return view.words.every((word) => text.includes(word));
    });
    if (view.sort === null) return shown;
    const { value } = view.sort;
    const sign = view.down ? -1 : 1;
    // Missing values come last in both directions.
    return shown.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (typeof x === 'string' ? x.localeCompare(y, 'en', { numeric: true }) : x - y);
    });
  };

  const badge = (ending, tone) => node('span', { class: `badge ${tone}` }, ending);
  const linesOf = (t) => [node('span', { class: 'plus' }, `+${count(t.added)}`), ' ', node('span', { class: 'minus' }, `−${count(t.removed)}`)];

  const cell = (t, column) => {
    const ran = t.tone !== 'none';
    switch (column.kind) {
      case 'id': return node('td', { role: 'cell', class: t.id.length < 30 ? 'id short' : 'id' }, node('a', { href: address(t) }, t.id));
      case 'ending':
        return node('td', { role: 'cell', class: 'ending' }, badge(t.ending, t.tone), t.flaky ? ' ' : '', t.flaky ? badge('flaky', 'warn') : '');
      case 'message': return node('td', { role: 'cell', class: 'message' }, t.message);
      case 'lines': return node('td', { role: 'cell', class: 'number' }, ...(ran ? linesOf(t) : []));
      default: {
        const text = column.show ? column.show(t) : count(column.value(t));
        return node('td', { role: 'cell', class: 'number', 'data-unit': ran && column.unit ? column.unit : null }, ran ? text : '');
      }
    }
  };

  const showRows = () => {
    const shown = matching();
    const rows = shown.slice(0, view.limit).map((t) => node('tr', { role: 'row' }, ...columns.map((column) => cell(t, column))));
    find('rows').replaceChildren(...rows);
    const all = shown.length === tasks.length;
    find('shown').textContent = all ? plural(tasks.length, 'task') : `${count(shown.length)} of ${plural(tasks.length, 'task')}`;
    find('more').hidden = shown.length <= view.limit;
    find('more').textContent = `Show all ${count(shown.length)}`;
    find('plots').replaceChildren(...plots(shown));
    for (const [n, head] of [...find('columns').children].entries()) {
      const direction = columns[n] !== view.sort ? 'none' : view.down ? 'descending' : 'ascending';
      head.setAttribute('aria-sort', direction);
    }
    for (const button of find('endings').children) {
      button.setAttribute('aria-pressed', String(view.ending === (button.dataset.ending ?? null)));
    }
  };

  const sortBy = (column) => {
    // The largest numbers come first; a second click reverses the order.
    view.down = view.sort === column ? !view.down : isNumber(column);
    view.sort = column;
    showRows();
  };

  const niceTop = (n) => {
    const power = 10 ** Math.floor(Math.log10(Math.max(n, 1e-9)));
    return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((top) => top >= n * (1 - 1e-9));
  };

  const histogram = (name, shown, value, show, whole) => {
    const BINS = 20, WIDTH = 300, HEIGHT = 70;
    const values = shown.map(value).sort((a, b) => a - b);
    const at = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))];
    // The last bar also counts the few tasks with larger values.
    const top = niceTop(at(0.98));
    const exact = whole && top >= 1 && top <= BINS; // one bar per number
    const bins = exact ? top : BINS;
    const heights = Array.from({ length: bins }, () => [0, 0]);
    for (const t of shown) {
      const n = exact ? value(t) - 1 : Math.floor((value(t) / top) * bins);
      heights[Math.max(0, Math.min(bins - 1, n))][t.tone === 'good' ? 0 : 1] += 1;
    }
    const most = Math.max(...heights.map(([a, b]) => a + b));
    const highest = values[values.length - 1];
    const summary = `median ${show(at(0.5))}, highest ${show(highest)}`;
    const svg = drawn('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': `${name}: ${summary}` });
    const step = WIDTH / bins;
    heights.forEach(([good, other], n) => {
      const from = exact ? n + 1 : (n / bins) * top;
      const to = ((n + 1) / bins) * top;
      const range = n === bins - 1 && highest > top ? `${show(from)} or more` : exact ? show(from) : `${show(from)} – ${show(to)}`;
      const bar = drawn('g', {});
      bar.append(drawn('title', {}, `${range}: ${plural(good + other, 'task')}, ${count(good)} verified`));
      let floor = HEIGHT;
      for (const [part, fill] of [[good, 'fill-good'], [other, 'fill-warn']]) {
        const height = part === 0 ? 0 : Math.max(1, (part / most) * (HEIGHT - 4));
        floor -= height;
        if (height) bar.append(drawn('rect', { x: n * step + 0.5, y: floor, width: step - 1, height, class: fill }));
      }
      svg.append(bar);
    });
    const last = highest > top ? `≥ ${show(exact ? top : top - top / bins)}` : show(top);
    const axis = node('div', { class: 'axis' }, node('span', {}, show(exact ? 1 : 0)), node('span', {}, last));
    return node('figure', {}, node('figcaption', {}, name, node('span', {}, summary)), svg, axis);
  };

  const plots = (shown) => {
    const ran = shown.filter((t) => t.tone !== 'none');
    if (ran.length < 2) return [];
    return [
      histogram('Time', ran, (t) => t.seconds, time, false),
      histogram('Tokens', ran, (t) => t.tokens, short, false),
      histogram('Turns', ran, (t) => t.turns, short, true),
      node('p', { class: 'legend quiet' }, node('span', { class: 'dot fill-good' }), 'verified',
        node('span', { class: 'dot fill-warn' }), 'other endings'),
    ];
  };

  const startList = () => {
    find('list').querySelector('h1').textContent = data.title;
    const sums = data.totals;
    const parts = [plural(sums.attempts, 'attempt'), plural(sums.tokens, 'token'), `${time(sums.seconds)} of work`];
    const of = sums.prices_of ? ` (prices as of ${sums.prices_of})` : '';
    if (sums.cost !== null) parts.push(dollars(sums.cost) + of);
    find('totals').textContent = parts.join(' · ');

    const endings = new Map();
    for (const t of tasks) {
      const known = endings.get(t.ending) ?? { ending: t.ending, tone: t.tone, n: 0 };
      known.n += 1;
      endings.set(t.ending, known);
    }
    const order = ['good', 'warn', 'bad', 'none'];
    const sorted = [...endings.values()].sort((a, b) => order.indexOf(a.tone) - order.indexOf(b.tone) || b.n - a.n);
    const choose = (ending) => () => {
      view.ending = view.ending === ending ? null : ending;
      view.limit = ROWS;
      showRows();
    };
    find('bar').append(...sorted.map(({ tone, n }) => {
      const part = node('span', { class: `fill-${tone}` });
      part.style.flexGrow = n;
      return part;
    }));
    find('endings').append(
      node('button', { type: 'button', onclick: choose(null) }, 'all ', node('b', {}, count(tasks.length))),
      ...sorted.map(({ ending, tone, n }) => node('button', { type: 'button', 'data-ending': ending, onclick: choose(ending) },
        node('span', { class: `dot fill-${tone}` }), ending, node('b', {}, count(n)))));

    find('columns').append(...columns.map((column) => node('th', { role: 'columnheader', scope: 'col', class: isNumber(column) ? 'number' : null },
      node('button', { type: 'button', onclick: () => sortBy(column) }, column.name))));
    find('filter').addEventListener('input', () => {
      view.words = find('filter').value.toLowerCase().split(/\s+/).filter(Boolean);
      view.limit = ROWS;
      showRows();
    });
    find('more').addEventListener('click', () => { view.limit = Infinity; showRows(); });
    showRows();
  };

  // --- One task ------------------------------------------------------------------------------

  const open = { task: null, attempt: null, current: 0, all: false };

  // The URL fragment of a view: #ID, #ID@ATTEMPT or #ID@ATTEMPT/STEP. Ids contain no `@` or `/`.
  const lastOf = (t) => t.attempts[t.attempts.length - 1]?.number;
  const address = (t, attempt = lastOf(t), step = 0) =>
    `#${encodeURIComponent(t.id)}${attempt !== lastOf(t) ? `@${attempt}` : ''}${step ? `/${step}` : ''}`;
  const parsed = () => {
    let text = location.hash.slice(1);
    try { text = decodeURIComponent(text); } catch { /* shown as is */ }
    const [, id, attempt, step] = text.match(/^([^@/]*)(?:@(\d+))?(?:\/(\d+))?$/) ?? [null, text];
    return { task: tasks.find((t) => t.id === id), attempt: Number(attempt ?? NaN), step: Number(step ?? 0) };
  };

  const inflate = async (n) => {
    if (!window.DecompressionStream) throw new Error('This browser cannot decompress trajectories. Use a newer browser.');
    const id = `trajectory-${n}`;
    if (!find(id) && document.readyState === 'loading') {
      await new Promise((ready) => document.addEventListener('DOMContentLoaded', ready, { once: true }));
    }
    const bytes = Uint8Array.from(atob(find(id).textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate-raw'));
    return JSON.parse(await new Response(stream).text());
  };

  const lines = (text) => {
    const classOf = (line) => {
      if (/^(diff |\*\*\* |--- |\+\+\+ )/.test(line)) return 'file';
      if (line.startsWith('@@')) return 'hunk';
      if (line.startsWith('+')) return 'added';
      return line.startsWith('-') ? 'removed' : null;
    };
    return text.split('\n').map((line) => node('span', { class: classOf(line) }, line));
  };

  const FOLDED = new Set(['prompt', 'thinking', 'answer', 'note']);
  const isTold = (step) => step.parts.some((part) => ['call', 'edit', 'refused'].includes(part.kind));
  const NAMES = { call: 'call', edit: 'call', text: 'model', thinking: 'thinking', answer: 'complete answer' };
  const shownPart = (part, told) => {
    const mark = part.ok === undefined ? null : node('span', { class: part.ok ? 'mark-good' : 'mark-bad' }, part.ok ? '✓ ' : '✗ ');
    const took = part.ms ? ` · ${time(part.ms / 1000)}` : '';
    const same = NAMES[part.kind] === undefined || part.kind === 'text' || part.kind === 'thinking' || part.kind === 'answer';
    const title = [mark, same ? '' : `${NAMES[part.kind]} `, node('b', {}, same ? (NAMES[part.kind] ?? part.title) : part.title), took];
    const text = part.text ?? '';
    let body = null;
    if (part.kind === 'diff' || part.kind === 'edit') body = node('pre', { class: 'diff', tabindex: '0' }, ...lines(text));
    else if (['task', 'text', 'end'].includes(part.kind)) body = node('p', { class: 'plain' }, text);
    else if (text) body = node('pre', { tabindex: '0' }, text);
    if (text === '') body = null;
    if (FOLDED.has(part.kind) && body) {
      // If no other part shows what the model answered, the answer is initially unfolded.
      const unfolded = part.kind === 'answer' && !told ? '' : null;
      return node('details', { class: `part ${part.kind}`, open: unfolded }, node('summary', {}, ...title), body);
    }
    // The head of the last step already says how the session ended.
    if (part.kind === 'end') return node('div', { class: 'part end' }, body);
    return node('div', { class: `part ${part.kind}` }, node('div', { class: 'title' }, ...title), body);
  };

  const MAIN = ['call', 'edit', 'end', 'refused', 'text', 'answer', 'task'];
  const headline = (step) => {
    const main = MAIN.map((kind) => step.parts.find((part) => part.kind === kind)).find(Boolean) ?? step.parts[0];
    const told = main === undefined ? '' : ['text', 'task', 'answer'].includes(main.kind) ? main.text.split('\n').find((line) => line.trim() && !line.startsWith('```')) ?? '' : main.title;
    const marks = step.parts.filter((part) => part.ok !== undefined && part !== main).map((part) => {
      const word = part.kind === 'check' ? (part.ok ? ' check passed' : ' check failed') : '';
      return node('span', { class: part.ok ? 'mark-good' : 'mark-bad' }, ` ${part.ok ? '✓' : '✗'}${word}`);
    });
    const own = main?.ok === undefined ? null : node('span', { class: main.ok ? 'mark-good' : 'mark-bad' }, main.ok ? '✓ ' : '✗ ');
    return [own, told, ...marks];
  };

  const stepItem = (step, n, all) => {
    const name = step.turn ? `Turn ${step.turn}` : n === 0 ? 'Start' : n === all - 1 ? 'End' : '…';
    const figures = [step.generated ? plural(step.generated, 'token') : '', time(step.at / 1000)].filter(Boolean).join(' · ');
    const head = node('button', { type: 'button', class: 'head', 'aria-expanded': 'false', onclick: () => {
      // A click on the current step folds or unfolds it.
      if (open.current === n && !open.all) toggle(n, head.getAttribute('aria-expanded') === 'false');
      else go(n, false);
    } },
    node('span', { class: 'name' }, name), node('span', { class: 'what' }, ...headline(step)), node('span', { class: 'when' }, figures));
    return node('li', {}, node('h2', {}, head), node('div', { class: 'body', hidden: '' }));
  };

  const toggle = (n, expanded) => {
    const item = find('steps').children[n];
    if (!item) return;
    const body = item.querySelector('.body');
    // The parts of a step are created when the step is first unfolded.
    if (expanded && !body.hasChildNodes()) {
      const step = open.steps[n];
      body.append(...step.parts.map((part) => shownPart(part, isTold(step))));
    }
    body.hidden = !expanded;
    item.querySelector('.head').setAttribute('aria-expanded', String(expanded));
  };

  const go = (n, scroll = true) => {
    const items = [...find('steps').children];
    if (items.length === 0) return;
    const before = open.current;
    open.current = Math.max(0, Math.min(items.length - 1, n));
    if (!open.all && before !== open.current) toggle(before, false);
    toggle(open.current, true);
    items.forEach((item, at) => item.classList.toggle('current', at === open.current));
    find('position').textContent = `Step ${open.current + 1} of ${items.length}`;
    find('previous').disabled = open.current === 0;
    find('next').disabled = open.current === items.length - 1;
    if (scroll) items[open.current].scrollIntoView({ block: 'start' });
    history.replaceState(null, '', address(open.task, open.attempt, open.current));
  };

  const showTask = async (t, attempt, step) => {
    Object.assign(open, { task: t, attempt: attempt?.number, steps: [], current: 0, all: false });
    const page = find('task');
    page.querySelector('h1').textContent = t.id;
    const figures = [badge(t.ending, t.tone)];
    if (t.flaky) figures.push(badge('flaky', 'warn'));
    if (t.tone !== 'none' || t.turns) {
      for (const text of [plural(t.turns, 'turn'), plural(t.tokens, 'token'), time(t.seconds), t.cost === null ? '' : dollars(t.cost)]) {
        if (text) figures.push(node('span', {}, text));
      }
      figures.push(node('span', {}, ...linesOf(t)));
    }
    find('figures').replaceChildren(...figures);
    find('message').textContent = t.message;
    find('attempts').hidden = t.attempts.length < 2;
    find('attempts').replaceChildren(...t.attempts.map((a) => node('button', {
      type: 'button', 'aria-pressed': String(a === attempt), onclick: () => { location.hash = address(t, a.number); },
    }, node('span', { class: `dot fill-${a.tone}` }), `attempt ${a.number}: ${a.ending}`)));
    find('steps').replaceChildren();
    find('unfold').setAttribute('aria-pressed', 'false');
    const tell = (text) => { find('note').textContent = text; find('note').hidden = text === ''; };
    const trajectory = attempt?.trajectory ?? null;
    find('controls').hidden = trajectory === null;
    if (trajectory === null) return tell(attempt ? attempt.note : 'This task has no finished attempt.');
    tell('');
    try {
      const steps = await inflate(trajectory);
      if (open.task !== t || open.attempt !== attempt.number) return;
      open.steps = steps;
      find('steps').replaceChildren(...steps.map((s, n) => stepItem(s, n, steps.length)));
      go(step, step > 0);
    } catch (error) {
      tell(error.message);
    }
  };

  // --- Navigation ----------------------------------------------------------------------------

  const single = data.kind === 'session';
  let scrolled = 0;
  const route = () => {
    const { task, attempt, step } = single ? { ...parsed(), task: tasks[0] } : parsed();
    if (find('task').hidden && !find('list').hidden) scrolled = window.scrollY;
    find('list').hidden = Boolean(task);
    find('task').hidden = !task;
    document.title = task ? `${task.id} · ${data.title}` : `${data.title} · agent report`;
    if (!task) {
      open.task = null;
      window.scrollTo(0, scrolled);
      return;
    }
    window.scrollTo(0, 0);
    const chosen = task.attempts.find((a) => a.number === attempt) ?? task.attempts[task.attempts.length - 1];
    showTask(task, chosen, step);
  };

  find('previous').addEventListener('click', () => go(open.current - 1));
  find('next').addEventListener('click', () => go(open.current + 1));
  find('unfold').addEventListener('click', () => {
    open.all = !open.all;
    find('unfold').setAttribute('aria-pressed', String(open.all));
    open.steps.forEach((_, n) => toggle(n, open.all || n === open.current));
  });
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input')) return;
    if (!open.task) return;
    if (event.key === 'j') go(open.current + 1);
    else if (event.key === 'k') go(open.current - 1);
    else if (event.key === 'Escape' && !single) location.hash = '';
  });
  window.addEventListener('hashchange', route);
  if (single) find('back').parentElement.hidden = true;
  else startList();
  route();
})();
