// What a program in JavaScript does with a cluster, in scenes; one run plays one scene:
//
//     node client.js SCENE '{"protos": "folder with kv/v1", "nodes": {"n1": "host:port", ...}, ...}'
//
// It prints a line of JSON for each step, {"step": ..., ...what came back}, and judges nothing: the Python
// test does. It exits 1 if a step fails that was not meant to.
"use strict";

const { connect, Failure, failureInside } = require("./wire.js");

const LEASE_TRIES_MAX = 20;
const SCAN_KEYS = 40;

/** Prints one step. Bytes become text. */
function say(step, fields) {
  const text = (_, value) => (value?.type === "Buffer" ? Buffer.from(value.data).toString("utf8") : value);
  console.log(JSON.stringify(JSON.parse(JSON.stringify({ step, ...fields }), text)));
}

/** Prints the reply of `promise`, and returns it. */
async function show(step, promise) {
  const reply = await promise;
  say(step, reply);
  return reply;
}

/** Prints the Failure with which `promise` must end; anything else ends the run. */
async function refused(step, promise) {
  try {
    say(step, { unexpected: await promise });
  } catch (error) {
    if (!(error instanceof Failure)) {
      throw error;
    }
    say(step, { error });
  }
}

const bytes = (text) => Buffer.from(text, "utf8");

// Operations of batches and transactions.
const get = (key) => ({ get: { key: bytes(key) } });
const put = (key, value) => ({ put: { key: bytes(key), value: bytes(value) } });
const remove = (key) => ({ delete: { key: bytes(key) } });
const increment = (key, delta) => ({ increment: { key: bytes(key), delta } });
const append = (key, value) => ({ append: { key: bytes(key), value: bytes(value) } });

/** Opens a session in `partition` on a pipeline and returns its id. */
async function openSession(pipeline, partition) {
  const [opened] = pipeline.send({ partition, batch: { operations: [{ open_session: {} }] } });
  return (await opened).results[0].open_session.session;
}

const scenes = {
  /** A key lives its life through three nodes. */
  async life({ n1, n2, n3 }) {
    const key = bytes("interop/life");
    await show("put", n1.call("Put", { key, value: bytes("one") }));
    await show("get", n2.call("Get", { key }));
    await show("get-and-put", n3.call("Put", { key, value: bytes("two"), return_previous: true }));
    await show("delete", n1.call("Delete", { key, return_previous: true }));
    await show("get of nothing", n2.call("Get", { key }));
    await show("delete of nothing", n3.call("Delete", { key, return_previous: true }));
  },

  /** Each read level through each node, after a write that all replicas have. */
  async levels(nodes) {
    const key = bytes("interop/levels");
    const { evidence } = await show(
      "put",
      nodes.n1.call("Put", { key, value: bytes("v"), write_level: "WRITE_LEVEL_ALL" }),
    );
    const after = [{ partition: evidence.partition, index: evidence.index }];
    const asked = [
      ["DEFAULT", "READ_LEVEL_UNSPECIFIED", {}],
      ["LINEARIZABLE", "READ_LEVEL_LINEARIZABLE", {}],
      ["LINEARIZABLE here", "READ_LEVEL_LINEARIZABLE", { preference: "REPLICA_PREFERENCE_LOCAL" }],
      ["SESSION", "READ_LEVEL_SESSION", { after }],
      ["BOUNDED", "READ_LEVEL_BOUNDED", { max_age_ms: 2000 }],
      ["STALE", "READ_LEVEL_STALE", {}],
      ["QUORUM", "READ_LEVEL_QUORUM", {}],
      ["QUORUM of 1", "READ_LEVEL_QUORUM", { replicas: 1 }],
      ["ALL", "READ_LEVEL_ALL", {}],
    ];
    for (const [id, node] of Object.entries(nodes)) {
      for (const [name, level, read] of asked) {
        await show(`${name} at ${id}`, node.call("Get", { key, level, read }));
      }
      for (const wanted of Object.keys(nodes)) {
        const read = { node: wanted, after };
        await show(
          `SESSION at ${id} from ${wanted}`,
          node.call("Get", { key, level: "READ_LEVEL_SESSION", read }),
        );
      }
    }
  },

  /** A read from the lease: at first the leader may have to confirm, which it says. */
  async lease({ n1 }) {
    const key = bytes("interop/lease");
    await n1.call("Put", { key, value: bytes("v") });
    for (let tries = 1; tries <= LEASE_TRIES_MAX; tries += 1) {
      const reply = await n1.call("Get", { key, level: "READ_LEVEL_LEASE" });
      if (reply.evidence.level === "READ_LEVEL_LEASE" || tries === LEASE_TRIES_MAX) {
        say("lease", reply);
        break;
      }
    }
  },

  /** One batch of reads over several partitions, at two levels. */
  async batch({ n2 }) {
    const keys = Array.from({ length: 20 }, (_, number) => `interop/batch/${number}`);
    await show(
      "write",
      n2.call("Batch", { operations: keys.map((key) => put(key, key)), write_level: "WRITE_LEVEL_ALL" }),
    );
    const operations = keys.map(get);
    await show("read", n2.call("Batch", { operations }));
    await show(
      "bounded",
      n2.call("Batch", { operations, level: "READ_LEVEL_BOUNDED", read: { max_age_ms: 2000 } }),
    );
    await show(
      "mixed",
      n2.call("Batch", { operations: [increment(keys[0], 1), append(keys[1], "!"), remove(keys[2])] }),
    );
  },

  /** Each condition of a write, holding and failing. */
  async conditions({ n1 }) {
    const key = bytes("interop/conditions");
    const write = (value, condition) => n1.call("Put", { key, value: bytes(value), condition });
    await refused("present fails", write("0", { present: true }));
    const { revision } = await show("absent holds", write("1", { absent: true }));
    await refused("absent fails", write("2", { absent: true }));
    await show("revision holds", write("3", { revision }));
    await refused("revision fails", write("4", { revision }));
    await show("value holds", write("5", { value: bytes("3") }));
    await refused("value fails", write("6", { value: bytes("3") }));
    await refused("delete fails", n1.call("Delete", { key, condition: { value: bytes("3") } }));
    await show("delete holds", n1.call("Delete", { key, condition: { value: bytes("5") } }));
  },

  /** Counters up to their last number, and appending. */
  async arithmetic({ n1, n2 }) {
    const key = bytes("interop/counter");
    const max = "9223372036854775807";
    const [counter, list] = [{ key }, { key: bytes("interop/list") }];
    await show("from nothing", n1.call("Increment", { ...counter, delta: -5 }));
    await show("on", n2.call("Increment", { ...counter, delta: "12" }));
    await show("as text", n1.call("Get", { key }));
    await n1.call("Put", { key, value: bytes(max) });
    await refused("overflow", n2.call("Increment", { ...counter, delta: 1 }));
    await show("back", n2.call("Increment", { ...counter, delta: "-9223372036854775808" }));
    await show("append to nothing", n1.call("Append", { ...list, value: bytes("ab") }));
    await show("append", n2.call("Append", { ...list, value: bytes("cd") }));
    await show("list", n1.call("Get", list));
    await refused("not an integer", n1.call("Increment", { ...list, delta: 1 }));
    await refused(
      "condition",
      n1.call("Append", { ...list, value: bytes("x"), condition: { value: bytes("ab") } }),
    );
  },

  /** Scans over all partitions, in key order. */
  async scan({ n1, n3 }) {
    const name = (number) => `interop/scan/${String(number).padStart(2, "0")}`;
    const operations = Array.from({ length: SCAN_KEYS }, (_, number) => put(name(number), `v${number}`));
    await show("put", n1.call("Batch", { operations, write_level: "WRITE_LEVEL_ALL" }));
    const prefix = bytes("interop/scan/");
    await show(
      "all",
      n3.scan({ prefix }).then((pages) => ({ pages })),
    );
    const range = { start: bytes(name(10)), end: bytes(name(20)), limit: 5, keys_only: true };
    await show(
      "part",
      n3.scan(range).then((pages) => ({ pages })),
    );
    for (const [level, read] of [
      ["READ_LEVEL_LEASE", {}],
      ["READ_LEVEL_SESSION", {}],
      ["READ_LEVEL_BOUNDED", { max_age_ms: 2000 }],
      ["READ_LEVEL_STALE", {}],
    ]) {
      await show(
        level,
        n3.scan({ prefix, level, read }).then((pages) => ({ pages })),
      );
    }
    await refused("quorum", n3.scan({ prefix, level: "READ_LEVEL_QUORUM" }));
    await refused("all replicas", n3.scan({ prefix, level: "READ_LEVEL_ALL" }));
  },

  /** Transactions: then, else, nested, and one that fails whole. */
  async txn({ n1, n2, n3 }) {
    const [from, to, log] = ["from", "to", "log"].map((name) => `{interop-txn}/${name}`);
    const absent = { key: bytes(from), exists: false };
    await show(
      "then",
      n1.call("Txn", { compare: [absent], then_operations: [put(from, "90"), put(to, "10")] }),
    );
    await show(
      "else",
      n2.call("Txn", {
        compare: [absent],
        then_operations: [remove(from)],
        else_operations: [get(from), get(to)],
      }),
    );
    const enough = { key: bytes(from), comparator: "COMPARATOR_GREATER", version: 0 };
    const nested = {
      compare: [{ key: bytes(log), comparator: "COMPARATOR_EQUAL", exists: true }],
      then_operations: [remove(log)],
      else_operations: [append(log, "moved;")],
    };
    await show(
      "nested",
      n3.call("Txn", {
        compare: [enough],
        then_operations: [increment(from, -20), increment(to, 20), { txn: nested }, get(from)],
      }),
    );
    await refused("fails whole", n1.call("Txn", { then_operations: [put(from, "0"), increment(log, 1)] }));
    await show("unchanged", n2.call("Get", { key: bytes(from) }));
    const deeper = { txn: { then_operations: [{ txn: { then_operations: [get(from)] } }] } };
    await refused("too deep", n1.call("Txn", { then_operations: [deeper] }));
    await refused(
      "two partitions",
      n1.call("Txn", { then_operations: Array.from({ length: 20 }, (_, n) => put(`interop-x${n}`, "1")) }),
    );
  },

  /** Bad input of each kind. */
  async refused({ n1 }) {
    const key = bytes("interop/refused");
    const read = (level, options, ...timeout) => n1.call("Get", { key, level, read: options }, ...timeout);
    await refused("empty key", n1.call("Get", {}));
    await refused("long key", n1.call("Put", { key: Buffer.alloc(481, "k"), value: bytes("v") }));
    await refused("large value", n1.call("Put", { key, value: Buffer.alloc((1 << 20) + 1, "v") }));
    await refused("unknown level", read(99, {}));
    await refused("bounded by nothing", read("READ_LEVEL_BOUNDED", {}));
    await refused("more replicas than there are", read("READ_LEVEL_QUORUM", { replicas: 4 }));
    await refused("unknown write level", n1.call("Put", { key, value: bytes("v"), write_level: 99 }));
    const future = { after: await beyond(n1, key) };
    await refused("session from the future", read("READ_LEVEL_SESSION", future, 2000));
    await refused("not a token", n1.call("Outcome", { token: "w1-" }));
    await refused("no operations", n1.call("Batch", {}));
    await refused(
      "unknown session",
      n1.call("Put", { key, value: bytes("v"), request_id: { session: 987654321, sequence: 1 } }),
    );
    const inside = await n1.call("Batch", { operations: [get("interop/refused"), { get: {} }] });
    say("inside a batch", { error: failureInside(inside.results[1].error) });
  },

  /** Many batches on one stream, several in a message, one of them repeated and one misdirected. */
  async pipeline({ n2 }) {
    const key = "interop/pipeline";
    const { evidence } = await n2.call("Get", { key: bytes(key) });
    const { partition } = evidence;
    const pipeline = n2.pipeline();
    const session = await openSession(pipeline, partition);
    const request = (sequence) => ({
      partition,
      batch: { operations: [increment(key, 1)], request_id: { session, sequence } },
    });
    const first = pipeline.send(request(1), request(2), request(3));
    const second = pipeline.send(request(4), {
      batch: { operations: [get("interop/elsewhere"), get(key)] },
      timeout_ms: 5000,
    });
    const replies = await Promise.all([...first, ...second]);
    replies.forEach((reply, place) => say(`reply ${place + 1}`, reply));
    await Promise.all(pipeline.send(request(2)).map((again) => show("repeated", again)));
    const wrong = { ...request(5), partition: (partition % 4) + 1 };
    await Promise.all(pipeline.send(wrong).map((answer) => refused("misdirected", answer)));
    await Promise.all(
      pipeline
        .send({ batch: { operations: [get(key)], trace: true } })
        .map((answer) => show("traced", answer)),
    );
    pipeline.close();
  },

  /** The same request sent to each node, as after lost replies, by the calls that take one. */
  async again(nodes) {
    const [counter, list] = ["{interop-again}/counter", "{interop-again}/list"];
    const { evidence } = await nodes.n1.call("Get", { key: bytes(counter) });
    const pipeline = nodes.n1.pipeline();
    const session = await openSession(pipeline, evidence.partition);
    pipeline.close();
    const numbered = (sequence, acknowledged) => ({ request_id: { session, sequence, acknowledged } });
    for (const [id, node] of Object.entries(nodes)) {
      await show(
        `increment at ${id}`,
        node.call("Increment", { key: bytes(counter), delta: 5, ...numbered(1, 0) }),
      );
    }
    for (const [id, node] of Object.entries(nodes)) {
      const request = { then_operations: [append(list, "x"), increment(counter, 1)], ...numbered(2, 1) };
      await show(`txn at ${id}`, node.call("Txn", request));
    }
    await refused(
      "acknowledged before",
      nodes.n2.call("Increment", { key: bytes(counter), delta: 5, ...numbered(1, 0) }),
    );
    await show("read", nodes.n3.call("Batch", { operations: [get(counter), get(list)] }));
  },

  /** The outcome of a request that was applied, and of one that was not and now never will be. */
  async outcome({ n1, n3 }) {
    const key = "interop/outcome";
    const { evidence } = await n1.call("Get", { key: bytes(key) });
    const { partition } = evidence;
    const pipeline = n1.pipeline();
    const session = await openSession(pipeline, partition);
    const send = (sequence) =>
      pipeline.send({
        partition,
        batch: { operations: [increment(key, 1)], request_id: { session, sequence } },
      })[0];
    const token = (sequence) =>
      `w1-${partition}-${BigInt(session).toString(16)}-${sequence.toString(16)}-0-0`;
    await show("applied", send(1));
    await show("outcome of the applied", n3.call("Outcome", { token: token(1) }));
    await show("outcome of one never sent", n3.call("Outcome", { token: token(2) }));
    await refused("sent too late", send(2));
    await show("asked again", n1.call("Outcome", { token: token(2) }));
    await show("value", n3.call("Get", { key: bytes(key) }));
    pipeline.close();
  },

  /** Writes while the replicas of `key` cannot answer: the caller is left with a token. */
  async lose(nodes, { key, through, timeout_ms }) {
    const node = nodes[through];
    const pipeline = node.pipeline();
    const [piped] = pipeline.send({ batch: { operations: [increment(`${key}/piped`, 1)] }, timeout_ms });
    const called = node.call("Increment", { key: bytes(`${key}/called`), delta: 1 }, timeout_ms);
    await Promise.all([refused("piped", piped), refused("called", called)]);
    pipeline.close();
  },

  /** Another process asks what became of them. */
  async ask({ n1, n2 }, { key, tokens }) {
    for (const [name, token] of Object.entries(tokens)) {
      await show(`outcome of ${name}`, n1.call("Outcome", { token }));
      await show(`value of ${name}`, n2.call("Get", { key: bytes(`${key}/${name}`) }));
    }
  },

  /** A write at level ALL while a replica is away. */
  async all(nodes, { key, through }) {
    const request = {
      key: bytes(key),
      value: bytes("all"),
      write_level: "WRITE_LEVEL_ALL",
      all_timeout_ms: 300,
    };
    await refused("all", nodes[through].call("Put", request));
    await show("value", nodes[through].call("Get", { key: bytes(key) }));
  },

  /** Who leads for a key; after this each node has its own session in that partition. */
  async where(nodes, { key }) {
    for (const [id, node] of Object.entries(nodes)) {
      await show(id, node.call("Put", { key: bytes(key), value: bytes(id) }));
    }
  },

  /** The map and the state of each node. */
  async cluster(nodes) {
    for (const [id, node] of Object.entries(nodes)) {
      await show(`map of ${id}`, node.ask("GetMap"));
      await show(`status of ${id}`, node.ask("GetStatus"));
    }
  },
};

/** Returns, for the partition of `key`, an index that its log has not reached and will not in this scene. */
async function beyond(node, key) {
  const { evidence } = await node.call("Get", { key });
  return [{ partition: evidence.partition, index: Number(evidence.index) + 1_000_000 }];
}

async function main([scene, text]) {
  const options = JSON.parse(text);
  const nodes = connect(options.protos, options.nodes);
  try {
    await scenes[scene](nodes, options);
  } finally {
    Object.values(nodes).forEach((node) => node.close());
  }
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
