/**
 * A household's gateway made up of canned answers: behind the fake back end and behind the mock server of the
 * browser tests. It keeps changes in memory, and no more of the rules than the pages need to be shown.
 */

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

const names = ["ada", "grace", "linus", "margaret", "alan", "hedy"];
const moreNames = ["mara", "jonas", "wei", "lena", "oskar", "mei", "paul", "nina", "theo", "yuki"];

export function makeWorld({
  people = 6,
  finished = true,
  separate = true,
  state = "ready",
  gallery = 23,
  waiting = 5,
  hold = null,
  limited = true,
} = {}) {
  const start = Date.now();
  const ago = (milliseconds) => new Date(Date.now() - milliseconds).toISOString();
  const ahead = (milliseconds) => ago(-milliseconds);

  const world = {
    users: Array.from({ length: people }, (_, index) => makePerson(index, ago)),
    invites: [
      {
        id: "i1",
        created_at: ago(2 * hour),
        expires_at: ahead(22 * hour),
        admin: false,
        note: "Aunt Clara",
        url: null,
      },
    ],
    engine: {
      state,
      message:
        state === "crashed"
          ? "The graphics card ran out of memory (CUDA out of memory). Close other programs that use it, or make smaller pictures."
          : "ComfyUI is ready.",
      since: ago(3 * hour),
      progress: state === "starting" ? 0.4 : null,
      retry_in: null,
      version: "0.12.1",
      demo: false,
      place: null,
    },
    whitelist: "# The living room\n192.168.1.0/24\n",
    blacklist: "203.0.113.7 # banned after 25 failed sign-ins\n198.51.100.0/24\n",
    refusedNames: [
      {
        key: "allowed_hosts",
        value: "studio.tail1a2b3c.ts.net",
        address: "100.101.102.104",
        at: ago(2 * hour),
        count: 3,
        public: false,
      },
    ],
    bans: [{ address: "203.0.113.7", reason: "25 failed sign-ins", since: ago(5 * hour), until: null }],
    lockouts: [{ kind: "address", key: "192.168.1.77", failed_attempts: 6, remaining_seconds: 74 }],
    sharing: { enabled: true, port: 8189, name: "comfyui", tls: true, force_https: false },
    config: structuredClone(defaults),
    restart: [],
    finished,
    jobs: new Map(),
    hold,
    queue: makeQueue(waiting, ago),
    notifications: { kind: "none", address: "", failures_only: false },
    finished_jobs: [],
    files: Array.from({ length: gallery }, (_, index) => makeFile(index, ago)),
  };
  world.config.separate_users = separate;
  world.config.sharing.enabled = true;

  const notFound = { status: 404, body: { error: "There is no such thing.", code: "not_found" } };
  const ok = (body) => ({ status: 200, body });
  const done = { status: 204, body: null };

  const sharing = () => {
    const { enabled, port, name, tls } = world.sharing;
    const scheme = tls ? "https" : "http";
    return {
      enabled,
      port,
      name,
      addresses: [
        {
          address: "192.168.1.5",
          interface: "Ethernet",
          kind: "ethernet",
          url: `${scheme}://192.168.1.5:${port}`,
          preferred: true,
        },
        {
          address: "192.168.1.23",
          interface: "Wi-Fi",
          kind: "wifi",
          url: `${scheme}://192.168.1.23:${port}`,
          preferred: false,
        },
        {
          address: "172.17.0.1",
          interface: "docker0",
          kind: "virtual",
          url: `${scheme}://172.17.0.1:${port}`,
          preferred: false,
        },
      ],
      urls: enabled
        ? [
            `${scheme}://${name}.local:${port}`,
            `${scheme}://192.168.1.5:${port}`,
            `${scheme}://192.168.1.23:${port}`,
          ]
        : [],
      mdns: { name: `${name}.local`, state: enabled ? "announced" : "off", fault: null },
      tls: tls
        ? {
            enabled: true,
            forced: world.sharing.force_https,
            made: true,
            sha256: fingerprint,
            expires_at: ahead(300 * day),
          }
        : null,
      fault: null,
    };
  };

  const config = () => ({ config: world.config, restart_required: world.restart });

  const engines = () => ({
    mode: world.config.separate_users ? "separate" : "shared",
    limit: 8,
    engines: world.config.separate_users
      ? world.users.slice(0, 3).map((user, index) => ({
          id: user.id,
          username: user.username,
          state: ["ready", "ready", "starting"][index],
          message: index === 2 ? "Loading custom nodes" : "ComfyUI is ready.",
          since: ago((index + 1) * 37 * minute),
          pid: 4000 + index,
          version: "0.12.1",
          memory_bytes: index === 2 ? null : (index + 1) * 1.7e9,
          gpu_memory_bytes: index === 0 ? 9.4e9 : null,
          jobs: index === 0 ? 1 : 0,
          jobs_waiting: index === 0 ? 3 : 0,
          sockets: index === 2 ? 0 : 1,
          last_used_at: ago(index * 4 * minute),
          sandbox: { state: "confined", detail: "Landlock, ABI 7" },
        }))
      : [
          {
            id: "shared",
            username: null,
            ...world.engine,
            pid: 4000,
            memory_bytes: 2.1e9,
            gpu_memory_bytes: null,
            jobs: 0,
            jobs_waiting: 0,
            sockets: 2,
            last_used_at: ago(minute),
          },
        ],
    waiting: [],
  });

  const statistics = () => ({
    interval_seconds: 2,
    memory_total_bytes: 33.5e9,
    gpu: { name: "NVIDIA GeForce RTX 4070" },
    samples: Array.from({ length: 150 }, (_, index) => {
      const at = Math.floor(Date.now() / 2000) * 2000 - (149 - index) * 2000;
      const phase = at / 37_000;
      const busy = Math.sin(phase) > -0.2 ? 1 : 0.05;
      return {
        at: new Date(at).toISOString(),
        cpu_percent: 18 + 14 * Math.sin(phase * 2.1) * busy + 6 * Math.sin(phase * 9),
        memory_bytes: 6.2e9 + 0.9e9 * Math.sin(phase / 3),
        gpu_percent: Math.max(0, Math.min(100, 88 * busy + 9 * Math.sin(phase * 11))),
        gpu_memory_bytes: 7.4e9 + 1.8e9 * busy + 0.2e9 * Math.sin(phase * 3),
        gpu_memory_total_bytes: 12.9e9,
      };
    }),
  });

  /** Lines appear as time goes by, so that a page has something to follow. */
  const lines = (query, make) => {
    const last = 60 + Math.floor((Date.now() - start) / 3000);
    const after = Number(query.get("after") ?? Math.max(0, last - 500));
    const list = [];
    for (let seq = after + 1; seq <= last; seq += 1)
      list.push({ seq, at: new Date(start - (60 - seq) * 3000).toISOString(), ...make(seq) });
    return { lines: list, next: last };
  };
  const engineLine = (seq) => {
    const text = engineTexts[seq % engineTexts.length];
    return { stream: /error|Traceback/i.test(text) ? "err" : "out", text };
  };
  const ownLine = (seq) => {
    const [level, text] = ownTexts[seq % ownTexts.length];
    return { level, target: "sentinel_gateway", text };
  };

  const line = () => {
    const waiting = world.queue.filter((job) => job.state === "waiting");
    return waiting.map((job, index) => ({
      ...job,
      place: index + 1,
      wait_seconds: index > 6 ? null : 40 + index * 95,
    }));
  };
  const queue = () => ({
    hold: world.hold,
    slots: world.config.gpu_slots,
    running: world.queue.filter((job) => job.state === "running"),
    waiting: line().slice(0, 500),
    waiting_total: line().length,
  });
  const ownQueue = () => {
    const own = line().filter((job) => job.user_id === "u1");
    const place = (job) => (job ? { place: job.place, wait_seconds: job.wait_seconds } : null);
    return {
      hold: world.hold,
      running: world.queue
        .filter((job) => job.state === "running" && job.user_id === "u1")
        .map(({ id, started_at }) => ({ id, started_at })),
      waiting: own.length,
      others_waiting: line().length - own.length,
      next: place(own[0]),
      last: place(own.at(-1)),
      finished: world.finished_jobs,
    };
  };
  const commandJob = (id, command) => {
    const job = world.queue.find((one) => one.id === id);
    if (!job) return notFound;
    const others = world.queue.filter((one) => one !== job);
    if (command === "cancel") world.queue = others;
    else world.queue = command === "first" ? [job, ...others] : [...others, job];
    return done;
  };
  const usageRows = (days) =>
    waiting === 0 ? [] : Array.from({ length: days }, (_, index) => usageDay(world.users, index)).flat();
  const faultOfAddress = (address) => {
    if (!/^https?:\/\/[^\s/]+/.test(address))
      return { status: 400, body: { error: "This is not a web address.", code: "bad_address" } };
    if (/\/\/(?:127\.|192\.168\.|10\.|localhost)/.test(address))
      return { status: 400, body: { error: "Inside the network.", code: "address_not_allowed" } };
    return null;
  };

  const startJob = (kind, body) => {
    const id = `job-${world.jobs.size + 1}`;
    world.jobs.set(id, { kind, body, from: Date.now(), cancelled: false });
    return { status: 202, body: { job: id } };
  };
  const jobNow = (id, job) => {
    const length = job.kind === "install" ? 9000 : 2500;
    const progress = Math.min(1, (Date.now() - job.from) / length);
    const bad = /nothing/.test(job.body.directory);
    const over = progress >= 1;
    const texts = job.kind === "install" ? installTexts : checkTexts;
    const shown = texts.slice(0, Math.max(1, Math.ceil(texts.length * progress)));
    return {
      id,
      kind: job.kind,
      state: job.cancelled ? "cancelled" : over ? (bad ? "failed" : "done") : "running",
      progress,
      step: shown.at(-1),
      message: over && bad ? "There is no ComfyUI in this folder: main.py is missing." : null,
      log: shown,
      result:
        over && !bad
          ? { version: "0.12.1", python: "/home/ada/ComfyUI/venv/bin/python", directory: job.body.directory }
          : null,
    };
  };

  const routes = [
    [
      "GET",
      /^\/me$/,
      () =>
        ok({
          id: "u1",
          username: "ada",
          admin: true,
          via: "session",
          expires_at: ahead(10 * hour),
          can_step_up: true,
          admin_rights: true,
        }),
    ],
    ["GET", /^\/engine$/, () => ok(world.engine)],
    [
      "GET",
      /^\/status$/,
      () =>
        ok({
          engine: world.engine,
          listening: ["https://0.0.0.0:8189"],
          connections: 7,
          signed_in:
            world.engine.state === "stopped"
              ? []
              : world.users.slice(0, 3).map(({ username }, index) => ({
                  username,
                  address: `192.168.1.${20 + index}`,
                  last_used_at: ago(index * 3 * minute + 9000),
                })),
          warnings: world.config.manager_admin_only
            ? []
            : [
                "Every signed-in user may install code through ComfyUI-Manager. Set manager_admin_only to true.",
              ],
        }),
    ],
    [
      "POST",
      /^\/engines?\/(?:[^/]+\/)?(start|stop|restart)$/,
      ([command]) => {
        world.engine = {
          ...world.engine,
          state: command === "stop" ? "stopped" : "ready",
          since: ago(0),
          message: command === "stop" ? "ComfyUI is switched off." : "ComfyUI is ready.",
        };
        return { status: 202, body: null };
      },
    ],
    ["POST", /^\/engine\/free$/, () => done],
    ["GET", /^\/engine\/statistics$/, () => ok(statistics())],
    ["GET", /^\/engines$/, () => ok(engines())],
    ["GET", /^\/engines?\/(?:[^/]+\/)?log$/, (_, query) => ok(lines(query, engineLine))],
    ["GET", /^\/log$/, (_, query) => ok(lines(query, ownLine))],
    [
      "GET",
      /^\/audit$/,
      (_, query) => {
        const before = Number(query.get("before") ?? 241);
        const entries = [];
        for (let id = before - 1; id > Math.max(0, before - 101); id -= 1) entries.push(auditEntry(id, ago));
        return ok({ entries, next: before - 101 > 0 ? entries.at(-1).id : null });
      },
    ],
    [
      "GET",
      /^\/audit\.csv$/,
      () => ({ status: 200, body: "id,at,event,user,address,detail\r\n", contentType: "text/csv" }),
    ],
    ["GET", /^\/queue$/, () => ok(queue())],
    ["GET", /^\/queue\/mine$/, () => ok(ownQueue())],
    [
      "POST",
      /^\/queue\/pause$/,
      (_, __, body) => {
        const { until, until_idle } = body;
        world.hold = { reason: "owner", since: ago(0), until, until_idle };
        if (body.when === "now")
          for (const job of world.queue.filter((one) => one.state === "running"))
            Object.assign(job, { state: "waiting", started_at: null });
        return done;
      },
    ],
    [
      "POST",
      /^\/queue\/resume$/,
      () => {
        world.hold = null;
        const next = world.queue.find((job) => job.state === "waiting");
        if (next && !world.queue.some((job) => job.state === "running"))
          Object.assign(next, { state: "running", started_at: ago(0), attempts: next.attempts + 1 });
        return done;
      },
    ],
    ["POST", /^\/queue\/jobs\/([^/]+)\/(cancel|first|last)$/, ([id, command]) => commandJob(id, command)],
    [
      "GET",
      /^\/usage$/,
      (_, query) =>
        ok({
          days: usageRows(Number(query.get("days") ?? 30)),
          storage: world.users.map(({ id, username, storage_bytes }) => ({
            user_id: id,
            username,
            bytes: storage_bytes,
          })),
        }),
    ],
    [
      "GET",
      /^\/usage\.csv$/,
      () => ({ status: 200, body: "day,user,gpu_seconds,jobs,failed\r\n", contentType: "text/csv" }),
    ],
    [
      "GET",
      /^\/usage\/mine$/,
      (_, query) =>
        ok({
          days: usageRows(Number(query.get("days") ?? 30))
            .filter((row) => row.user_id === "u1")
            .map(({ day, gpu_seconds, jobs, failed, waiting_seconds }) => ({
              day,
              gpu_seconds,
              jobs,
              failed,
              waiting_seconds,
            })),
          limits: limited
            ? { jobs_waiting: 20, gpu_minutes_a_day: 180, longest_job_minutes: 30 }
            : { jobs_waiting: null, gpu_minutes_a_day: null, longest_job_minutes: null },
          used_today_seconds: waiting === 0 ? 0 : 4980,
        }),
    ],
    ["GET", /^\/notifications$/, () => ok(world.notifications)],
    [
      "PUT",
      /^\/notifications$/,
      (_, __, body) => {
        const fault = body.kind === "none" ? null : faultOfAddress(body.address);
        if (fault) return fault;
        world.notifications = body;
        return ok(world.notifications);
      },
    ],
    [
      "POST",
      /^\/notifications\/test$/,
      () =>
        world.notifications.address.includes("broken")
          ? { status: 502, body: { error: "It answered 500.", code: "not_delivered" } }
          : done,
    ],
    ["GET", /^\/users$/, () => ok({ users: world.users })],
    [
      "POST",
      /^\/users$/,
      (_, __, body) => {
        if (world.users.some(({ username }) => username === body.username))
          return { status: 400, body: { error: "This user name is already taken.", code: "username_taken" } };
        const user = {
          ...makePerson(world.users.length, ago),
          username: body.username,
          admin: body.admin ?? false,
          sessions: 0,
          tokens: 0,
          last_seen_at: null,
          storage_bytes: 0,
          disabled: false,
        };
        world.users.push(user);
        return { status: 201, body: user };
      },
    ],
    [
      "PATCH",
      /^\/users\/([^/]+)$/,
      ([id], _, body) => {
        const user = world.users.find((person) => person.id === id);
        if (!user) return notFound;
        const lastAdmin =
          world.users.filter((person) => person.admin && !person.disabled).length === 1 && user.admin;
        if (lastAdmin && (body.admin === false || body.disabled))
          return {
            status: 409,
            body: { error: "There has to be at least one administrator.", code: "last_admin" },
          };
        Object.assign(user, body);
        return ok(user);
      },
    ],
    ["POST", /^\/users\/([^/]+)\/password$/, () => done],
    [
      "DELETE",
      /^\/users\/([^/]+)$/,
      ([id]) => {
        world.users = world.users.filter((person) => person.id !== id);
        return done;
      },
    ],
    [
      "GET",
      /^\/users\/([^/]+)\/sessions$/,
      () =>
        ok({
          sessions: [
            {
              id: "s1",
              created_at: ago(3 * day),
              last_used_at: ago(2 * minute),
              expires_at: ahead(9 * hour),
              address: "192.168.1.21",
              user_agent:
                "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 Version/19.0 Mobile/15E148 Safari/604.1",
              current: false,
            },
            {
              id: "s2",
              created_at: ago(9 * hour),
              last_used_at: ago(4 * hour),
              expires_at: ahead(3 * hour),
              address: "192.168.1.30",
              user_agent:
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/150.0 Safari/537.36",
              current: false,
            },
          ],
          tokens: [
            {
              id: "t1",
              name: "Krita plugin",
              created_at: ago(20 * day),
              expires_at: ahead(70 * day),
              last_used_at: ago(day),
              admin: false,
              current: false,
            },
          ],
        }),
    ],
    ["DELETE", /^\/users\/([^/]+)\/sessions$/, () => done],
    ["GET", /^\/invites$/, () => ok({ invites: world.invites })],
    [
      "POST",
      /^\/invites$/,
      (_, __, body) => {
        const invite = {
          id: `i${world.invites.length + 1}`,
          created_at: ago(0),
          expires_at: ahead(body.expire_hours * hour),
          admin: body.admin ?? false,
          note: body.note ?? "",
          url: null,
        };
        world.invites.push(invite);
        return {
          status: 201,
          body: {
            id: invite.id,
            code: "K7QM-2XPD-9RTW",
            url: `${sharing().urls[0] ?? "http://127.0.0.1:8189"}/join?code=K7QM-2XPD-9RTW`,
            expires_at: invite.expires_at,
          },
        };
      },
    ],
    [
      "DELETE",
      /^\/invites\/([^/]+)$/,
      ([id]) => {
        world.invites = world.invites.filter((invite) => invite.id !== id);
        return done;
      },
    ],
    [
      "GET",
      /^\/access$/,
      () =>
        ok({
          whitelist: { text: world.whitelist, entries: 1, error: null },
          blacklist: { text: world.blacklist, entries: 2, error: null },
          bans: world.bans,
          refused_names: world.refusedNames,
          lockouts: world.lockouts,
          trusted_proxies: world.config.trusted_proxies,
        }),
    ],
    [
      "PUT",
      /^\/access\/(whitelist|blacklist)$/,
      ([list], _, body) => {
        world[list] = body.text;
        return done;
      },
    ],
    [
      "DELETE",
      /^\/access\/lockouts$/,
      () => {
        world.lockouts = [];
        return done;
      },
    ],
    ...["POST", "DELETE"].map((method) => [
      method,
      /^\/access\/refused-names$/,
      (_, __, body) => {
        if (method === "POST") world.config[body.key].push(body.value);
        world.refusedNames = world.refusedNames.filter(({ value }) => value !== body.value);
        return done;
      },
    ]),
    [
      "DELETE",
      /^\/access\/bans$/,
      (_, __, body) => {
        world.bans = world.bans.filter(({ address }) => address !== body.address);
        return done;
      },
    ],
    ["GET", /^\/sharing$/, () => ok(sharing())],
    [
      "PUT",
      /^\/sharing$/,
      (_, __, body) => {
        Object.assign(world.sharing, body);
        return ok(sharing());
      },
    ],
    ["GET", /^\/sharing\/doctor$/, () => ok({ checks: doctorChecks })],
    ["GET", /^\/config$/, () => ok(config())],
    [
      "PUT",
      /^\/config$/,
      (_, __, body) => {
        if (body["sharing.port"] === 80)
          return {
            status: 400,
            body: {
              error: "Some settings are wrong.",
              code: "invalid_config",
              errors: [{ key: "sharing.port", message: "must not be 80" }],
            },
          };
        for (const [path, value] of Object.entries(flatten(body))) {
          put(world.config, path, value);
          const key = configKeys.find((known) => known.path === path);
          if (key?.needs_restart && !world.restart.includes(path)) world.restart.push(path);
        }
        return ok(config());
      },
    ],
    ["GET", /^\/config\/keys$/, () => ok({ keys: configKeys })],
    ["GET", /^\/setup$/, () => ok({ finished: world.finished, has_admin: world.finished, comfyui_dir: "" })],
    ["GET", /^\/setup\/installations$/, () => ok({ installations, gpus: ["nvidia", "amd", "cpu"] })],
    ["POST", /^\/setup\/(check|install)$/, ([kind], _, body) => startJob(kind, body)],
    [
      "GET",
      /^\/setup\/jobs\/([^/]+)$/,
      ([id]) => (world.jobs.has(id) ? ok(jobNow(id, world.jobs.get(id))) : notFound),
    ],
    [
      "DELETE",
      /^\/setup\/jobs\/([^/]+)$/,
      ([id]) => {
        if (world.jobs.has(id)) world.jobs.get(id).cancelled = true;
        return done;
      },
    ],
    [
      "POST",
      /^\/setup\/finish$/,
      (_, __, body) => {
        world.finished = true;
        world.sharing.enabled = body.sharing.enabled;
        world.config.separate_users = body.separate_users;
        return ok({});
      },
    ],
    ["POST", /^\/setup\/admin$/, () => done],
    [
      "GET",
      /^\/gallery$/,
      (_, query) => {
        const kind = query.get("kind");
        const from = Number(query.get("before") ?? 0);
        const limit = Number(query.get("limit") ?? 60);
        const chosen = world.files.filter((file) => !kind || file.kind === kind);
        const items = chosen.slice(from, from + limit);
        return ok({
          items,
          next: from + limit < chosen.length ? String(from + limit) : null,
          total_bytes: world.files.reduce((sum, { bytes }) => sum + bytes, 0),
        });
      },
    ],
    [
      "DELETE",
      /^\/gallery$/,
      (_, __, body) => {
        world.files = world.files.filter(({ path }) => !body.paths.includes(path));
        return done;
      },
    ],
    [
      "GET",
      /^\/gallery\/(?:file|thumbnail)$/,
      (_, query) => ({ status: 200, body: drawing(query.get("path") ?? ""), contentType: "image/svg+xml" }),
    ],
  ];

  return {
    /** What a test changes behind the page's back. */
    world,
    answer(method, target, body = {}) {
      const { pathname, searchParams } = new URL(target, "http://sentinel");
      for (const [ofMethod, pattern, reply] of routes) {
        const match = ofMethod === method ? pattern.exec(pathname) : null;
        if (match) return reply(match.slice(1).map(decodeURIComponent), searchParams, body);
      }
      return notFound;
    },
  };
}

function makePerson(index, ago) {
  const username = names[index] ?? `${moreNames[index % moreNames.length]}_${index}`;
  return {
    id: `u${index + 1}`,
    username,
    admin: index < 2,
    disabled: index === 4,
    created_at: ago((index + 3) * 9 * day),
    last_seen_at: index === 5 ? null : ago(index * index * 3 * hour + 2 * minute),
    sessions: index === 5 || index === 4 ? 0 : 1 + (index % 3),
    tokens: index % 4 === 2 ? 1 : 0,
    storage_bytes: index === 5 ? 0 : Math.round((7.3e9 / (index + 1)) * 10) / 10,
  };
}

function makeQueue(waiting, ago) {
  if (waiting === 0) return [];
  const job = (id, person, submitted, more = {}) => ({
    id: `00000000-0000-4000-8000-${String(id).padStart(12, "0")}`,
    user_id: `u${person + 1}`,
    username: names[person],
    state: "waiting",
    submitted_at: ago(submitted),
    started_at: null,
    place: null,
    wait_seconds: null,
    attempts: 0,
    ...more,
  });
  const owners = [2, 0, 1, 0, 3];
  return [
    job(1, 1, 6 * minute, { state: "running", started_at: ago(42_000), attempts: 2 }),
    ...Array.from({ length: waiting }, (_, index) =>
      job(index + 2, owners[index % owners.length], (5 * minute) / (index + 1) + 9000, {
        attempts: index === 2 ? 1 : 0,
      }),
    ),
  ];
}

/** What everybody did on a day, the same each time it is asked. */
function usageDay(users, daysAgo) {
  const day = new Date(Date.now() - daysAgo * 24 * hour);
  const twoDigits = (value) => String(value).padStart(2, "0");
  const text = `${day.getFullYear()}-${twoDigits(day.getMonth() + 1)}-${twoDigits(day.getDate())}`;
  const isWeekend = day.getDay() % 6 === 0;
  return users.slice(0, 8).flatMap(({ id, username }, index) => {
    const chance = Math.abs(Math.sin(daysAgo * 12.9 + index * 78.2) * 43_758.5) % 1;
    if (chance < 0.25 + index * 0.07) return [];
    const jobs = Math.ceil(chance * (isWeekend ? 60 : 26));
    return [
      {
        day: text,
        user_id: id,
        username,
        gpu_seconds: Math.round(jobs * (55 + 40 * chance)),
        jobs,
        failed: chance > 0.85 ? 2 : 0,
        waiting_seconds: Math.round(jobs * chance * 80),
      },
    ];
  });
}

function makeFile(index, ago) {
  const kind = index % 9 === 4 ? "video" : index % 13 === 11 ? "audio" : "image";
  const extension = { image: "png", video: "mp4", audio: "flac" }[kind];
  const name = `ComfyUI_${String(100_000 - index).slice(1)}_.${extension}`;
  const folder = index % 5 === 0 ? "portraits" : "";
  const path = folder ? `${folder}/${name}` : name;
  const query = `path=${encodeURIComponent(path)}`;
  return {
    path,
    name,
    folder,
    kind,
    bytes: 1_400_000 + index * 31_000,
    modified_at: ago(index * 47 * minute),
    view: `/sentinel/api/gallery/file?${query}`,
    thumbnail: kind === "audio" ? null : `/sentinel/api/gallery/thumbnail?${query}`,
  };
}

/** A picture of its own for each name: hills under a sky. */
function drawing(path) {
  let seed = 7;
  for (const letter of path) seed = (seed * 31 + letter.charCodeAt(0)) % 100_003;
  const hue = seed % 360;
  const wide = seed % 3 === 0;
  const [width, height] = wide ? [640, 400] : seed % 3 === 1 ? [400, 600] : [512, 512];
  const hill = (level, light) =>
    `<path fill="hsl(${(hue + level * 22) % 360} 45% ${light}%)" d="M0 ${height * (0.45 + level * 0.14)}Q${width * 0.3} ${height * (0.3 + level * 0.13)} ${width * 0.55} ${height * (0.5 + level * 0.12)}T${width} ${height * (0.42 + level * 0.16)}V${height}H0z"/>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}"><defs><linearGradient id="s" x2="0" y2="1"><stop stop-color="hsl(${hue} 70% 62%)"/><stop offset="1" stop-color="hsl(${(hue + 50) % 360} 80% 84%)"/></linearGradient></defs><rect width="${width}" height="${height}" fill="url(#s)"/><circle cx="${width * (0.2 + (seed % 60) / 100)}" cy="${height * 0.27}" r="${width * 0.09}" fill="#fff6df"/>${hill(0, 56)}${hill(1, 42)}${hill(2, 29)}</svg>`;
}

function auditEntry(id, ago) {
  const [event, user, detail] = auditEvents[id % auditEvents.length];
  return {
    id,
    at: ago((241 - id) * 23 * minute),
    event,
    user,
    address: user === "this machine" ? null : `192.168.1.${20 + (id % 9)}`,
    detail,
  };
}

function flatten(value, prefix = "") {
  const flat = {};
  for (const [key, inner] of Object.entries(value)) {
    const path = prefix ? `${prefix}.${key}` : key;
    if (typeof inner === "object" && inner !== null && !Array.isArray(inner))
      Object.assign(flat, flatten(inner, path));
    else flat[path] = inner;
  }
  return flat;
}

function put(target, path, value) {
  const parts = path.split(".");
  const last = parts.pop();
  let place = target;
  for (const part of parts) place = place[part] ??= {};
  place[last] = value;
}

const fingerprint =
  "3F:9A:1C:77:0E:52:B8:44:D1:6B:90:2E:5D:A7:18:C3:F0:64:8B:29:E5:71:0D:BC:36:9F:42:A8:57:1E:C9:83";

const engineTexts = [
  "got prompt",
  "model weight dtype torch.float16, manual cast: None",
  "Requested to load SDXLClipModel",
  "loaded completely 9.5367431640625e+25 1560.802734375 True",
  "Requested to load SDXL",
  "100%|██████████| 20/20 [00:06<00:00,  3.21it/s]",
  "Prompt executed in 8.62 seconds",
  "Error while loading custom node: No module named 'insightface'",
];

const ownTexts = [
  ["INFO", "ComfyUI is ready on port 40213"],
  ["INFO", "grace signed in from 192.168.1.21"],
  ["WARNING", "192.168.1.77 is locked out for 90 seconds after 6 failed sign-ins"],
  ["INFO", "settings changed: comfyui.idle_stop_minutes"],
  ["ERROR", "the certificate file cannot be read: permission denied"],
];

const auditEvents = [
  ["signed_in", "grace", null],
  ["config_changed", "ada", "comfyui.idle_stop_minutes"],
  ["sign_in_failed", "linus", null],
  ["engine_command", "this machine", "restart"],
  ["refused", "linus", "POST /manager/queue/install"],
  ["locked_out", null, "192.168.1.77 for 60 seconds"],
  ["account_changed", "ada", "alan: disabled"],
  ["token_made", "linus", "Krita plugin"],
  ["logged_out", "margaret", null],
];

const installations = [
  {
    kind: "git",
    directory: "/home/ada/ComfyUI",
    python: "/home/ada/ComfyUI/venv/bin/python",
    version: "0.12.1",
  },
  {
    kind: "stability_matrix",
    directory: "/home/ada/StabilityMatrix/Packages/ComfyUI",
    python: null,
    version: "0.3.64",
  },
];

const checkTexts = [
  "Looking for ComfyUI in the folder",
  "Starting it with its Python",
  "Loading custom nodes",
  "ComfyUI answers",
  "Stopping it again",
];
const installTexts = [
  "Making a Python environment",
  "Installing comfy-cli",
  "Downloading ComfyUI",
  "Downloading PyTorch (2.6 GB)",
  "Installing PyTorch",
  "Installing ComfyUI's packages",
  "Starting it once to check",
];

const doctorChecks = [
  {
    id: "listening",
    state: "ok",
    title: "Sentinel listens on port 8189",
    detail: "On all addresses of this machine.",
    hint: null,
  },
  {
    id: "lan_address",
    state: "ok",
    title: "This machine has an address in the LAN",
    detail: "192.168.1.5 by cable, 192.168.1.23 by Wi-Fi.",
    hint: null,
  },
  {
    id: "self_connection",
    state: "ok",
    title: "The address answers from this machine",
    detail: "https://192.168.1.5:8189",
    hint: null,
  },
  {
    id: "firewall",
    state: "warning",
    title: "A firewall may be in the way",
    detail: "ufw is active and has no rule for port 8189.",
    hint: "sudo ufw allow 8189/tcp",
  },
  {
    id: "allow_list",
    state: "ok",
    title: "The allow list lets your LAN in",
    detail: "192.168.1.0/24",
    hint: null,
  },
  {
    id: "mdns",
    state: "ok",
    title: "comfyui.local is announced",
    detail: "Some Android devices do not know such names; use the number address there.",
    hint: null,
  },
  {
    id: "vpn",
    state: "unknown",
    title: "A VPN is connected",
    detail: "Devices on the VPN may get a different address.",
    hint: null,
  },
];

const key = (path, kind, meaning, value, needs_restart = false, more = {}) => ({
  path,
  kind,
  min: null,
  max: null,
  choices: null,
  meaning,
  default: value,
  needs_restart,
  ...more,
});

const configKeys = [
  key(
    "secret_key_env",
    "name",
    "Environment variable with the signing key; unset: a key is made and kept.",
    "SECRET_KEY",
    true,
  ),
  key("users_db", "name", "Account file.", "users_db.json", true),
  key("access_token_expiration_hours", "integer", "How long a sign-in lasts, in hours.", 12, false, {
    min: 1,
    max: 87600,
  }),
  key(
    "max_access_token_expiration_hours",
    "integer",
    "Longest life of an API token, in hours.",
    8760,
    false,
    { min: 1, max: 87600 },
  ),
  key("log", "name", "Log file, in the folder logs unless absolute.", "sentinel.log", true),
  key("log_levels", "choices", "Levels that are written to the log; ERROR always is.", ["INFO"], true, {
    choices: ["DEBUG", "INFO", "WARNING", "ERROR"],
  }),
  key(
    "whitelist",
    "name",
    "Allow list: if it has entries, only these addresses get in.",
    "whitelist.txt",
    true,
  ),
  key("blacklist", "name", "Deny list: these addresses never get in.", "blacklist.txt", true),
  key(
    "blacklist_after_attempts",
    "integer",
    "Failed sign-ins until an address is put on the deny list; 0: never.",
    0,
    false,
    { min: 0, max: 1000000 },
  ),
  key("free_memory_on_logout", "boolean", "Unload models and free memory when somebody logs out.", false),
  key("force_https", "boolean", "Encrypt, and send plain HTTP to HTTPS.", false, true),
  key("separate_users", "boolean", "A ComfyUI of his own for each user.", false),
  key("manager_admin_only", "boolean", "Only admins may use ComfyUI-Manager, which installs code.", false),
  key("comfyui.dir", "text", 'ComfyUI\'s folder, "demo", or empty to look for it.', "", true),
  key("comfyui.python", "text", "Python that starts ComfyUI, or empty to look for it.", "", true),
  key("comfyui.args", "texts", "Further arguments for ComfyUI.", [], true),
  key("comfyui.attach", "url", "Address of a ComfyUI that somebody else runs, or empty.", "", true),
  key("comfyui.autostart", "boolean", "Start ComfyUI together with Sentinel.", true),
  key(
    "comfyui.idle_stop_minutes",
    "integer",
    "Stop a user's own ComfyUI after so many idle minutes; 0: never.",
    30,
    false,
    { min: 0, max: 100000 },
  ),
  key("comfyui.max_engines", "integer", "How many ComfyUIs may run at once.", 8, false, {
    min: 1,
    max: 1000,
  }),
  key(
    "comfyui.start_wait_seconds",
    "integer",
    "How long programs wait for a ComfyUI that starts.",
    60,
    false,
    { min: 0, max: 3600 },
  ),
  key("comfyui.restart", "boolean", "Start ComfyUI again after a crash.", true, true),
  key("sharing.enabled", "boolean", "Reachable from the LAN, not from this machine alone.", false),
  key("sharing.port", "integer", "Port; 0: any free one.", 8189, false, { min: 0, max: 65535 }),
  key("sharing.name", "host_label", 'Name in the LAN, without ".local".', "comfyui"),
  key(
    "sharing.base_path",
    "base_path",
    "Path below which a reverse proxy shows Sentinel, such as /comfyui; empty: none.",
    "",
  ),
  key("sharing.tls.enabled", "boolean", "Answer HTTPS; force_https implies it.", false),
  key("sharing.tls.certificate", "text", "Certificate file (PEM), or empty to make one.", "", true),
  key("sharing.tls.key", "text", "Key file of the certificate (PEM).", "", true),
  key("trusted_proxies", "networks", "Reverse proxies whose X-Forwarded headers are believed.", []),
  key("allowed_hosts", "host_names", "Further host names by which this machine may be called.", []),
  key("nodes.deny", "texts", "Nodes that users may not run.", ["SaveImageDataSetToFolder"]),
  key("nodes.deny_admins", "boolean", "Whether these nodes are refused to admins as well.", false),
  key("gpu_slots", "integer", "Jobs on the GPU at once.", 1, false, { min: 1, max: 64 }),
  key("gpus", "texts", "CUDA device numbers.", [], true),
  key("queue.weight_users", "integer", "Share of the GPU.", 1, false, { min: 1, max: 100 }),
  key("queue.jobs_waiting_users", "integer", "Jobs that may wait; 0: any number.", 0, false, {
    min: 0,
    max: 100000,
  }),
  key("queue.gpu_minutes_a_day_users", "integer", "GPU minutes a day; 0: any number.", 0, false, {
    min: 0,
    max: 1440,
  }),
  key("queue.longest_job_minutes_users", "integer", "Longest job; 0: any length.", 0, false, {
    min: 0,
    max: 10080,
  }),
  key("queue.weight_admins", "integer", "Share of the GPU.", 1, false, { min: 1, max: 100 }),
  key("queue.jobs_waiting_admins", "integer", "Jobs that may wait; 0: any number.", 0, false, {
    min: 0,
    max: 100000,
  }),
  key("queue.gpu_minutes_a_day_admins", "integer", "GPU minutes a day; 0: any number.", 0, false, {
    min: 0,
    max: 1440,
  }),
  key("queue.longest_job_minutes_admins", "integer", "Longest job; 0: any length.", 0, false, {
    min: 0,
    max: 10080,
  }),
  key("queue.model_batch_seconds", "integer", "Small batching by model.", 5, false, { min: 0, max: 600 }),
  key("queue.interrupt_grace_seconds", "integer", "Patience with jobs that do not stop.", 60, false, {
    min: 0,
    max: 3600,
  }),
  key("queue.history_days", "integer", "Finished jobs are kept for so many days.", 30, false, {
    min: 0,
    max: 3650,
  }),
  key("queue.quiet_hours", "texts", "No job begins in these hours.", []),
  key("queue.yield_to_programs", "boolean", "Wait while another program uses the GPU.", false),
  key("queue.notify_hosts", "host_names", "Hosts allowed besides public addresses.", []),
  key("sandbox", "choice", "Confinement of ComfyUI by the operating system.", "auto", true, {
    choices: ["auto", "require", "off"],
  }),
  key("sandbox_allow_read", "texts", "Further folders that ComfyUI may read.", [], true),
  key("sandbox_allow_write", "texts", "Further folders that ComfyUI may write to.", [], true),
];

const defaults = {};
for (const { path, default: value } of configKeys) put(defaults, path, value);
