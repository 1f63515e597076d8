// The protocol in JavaScript: stubs from the .proto files as they are, errors from the status of a call.
//
// Nothing here knows what the tests do; what they do is in client.js.
"use strict";

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");
const protobuf = require("protobufjs");

const CALL_TIMEOUT_MS = 10_000;
const ERROR_DOMAIN = "ringkv";
const ERROR_INFO_URL = "type.googleapis.com/google.rpc.ErrorInfo";

// What google/rpc/status.proto and error_details.proto say of these messages, so that no further file is needed.
const STATUS = protobuf.parse(
  `syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }`,
  { keepCase: true },
).root;

const LOADING = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };

/** An error of ringkv: `reason`, `definite`, `metadata`, `message`, and `code`, the name of the gRPC status. */
class Failure extends Error {
  constructor({ reason, definite, metadata, message, code }) {
    super(message);
    Object.assign(this, { reason, definite, metadata, code });
  }

  toJSON() {
    const { reason, definite, metadata, message, code } = this;
    return { reason, definite, metadata, message, code };
  }
}

/** Returns the Failure for a call that grpc-js ended with `error`; one without our ErrorInfo is passed on as it is. */
function failureOf(error) {
  const info = errorInfo(error.metadata?.get("grpc-status-details-bin")[0]);
  if (info === undefined) {
    return error;
  }
  const { definite, ...metadata } = info.metadata;
  return new Failure({
    reason: info.reason,
    definite: definite === "true",
    metadata,
    message: error.details,
    code: grpc.status[error.code],
  });
}

function errorInfo(bytes) {
  if (bytes === undefined) {
    return undefined;
  }
  const status = STATUS.lookupType("Status").decode(bytes);
  for (const detail of status.details) {
    if (detail.type_url === ERROR_INFO_URL) {
      const info = STATUS.lookupType("ErrorInfo").decode(detail.value);
      if (info.domain === ERROR_DOMAIN) {
        return info;
      }
    }
  }
  return undefined;
}

/** Returns the Failure for a `kv.v1.Error` inside a reply. */
function failureInside({ reason, definite, message, details }) {
  const metadata = Object.fromEntries(details.map(({ key, value }) => [key, value]));
  return new Failure({ reason, definite, metadata, message, code: null });
}

/** One node: every unary method of both services as a function from request to promise, scan, and pipelines. */
class Node {
  constructor(api, address) {
    const credentials = grpc.credentials.createInsecure();
    this.kv = new api.KVService(address, credentials);
    this.cluster = new api.ClusterService(address, credentials);
  }

  /** Calls a unary method of KVService; rejects with a Failure. */
  call(method, request, timeoutMs = CALL_TIMEOUT_MS) {
    return unary(this.kv, method, request, timeoutMs);
  }

  /** Calls a unary method of ClusterService; rejects with a Failure. */
  ask(method, request = {}) {
    return unary(this.cluster, method, request, CALL_TIMEOUT_MS);
  }

  /** Returns all pages of a scan; rejects with a Failure. */
  async scan(request) {
    const pages = [];
    try {
      for await (const page of this.kv.Scan(request, { deadline: Date.now() + CALL_TIMEOUT_MS })) {
        pages.push(page);
      }
    } catch (error) {
      throw failureOf(error);
    }
    return pages;
  }

  pipeline() {
    return new Pipeline(this.kv.Pipeline({ deadline: Date.now() + CALL_TIMEOUT_MS }));
  }

  close() {
    this.kv.close();
    this.cluster.close();
  }
}

function unary(stub, method, request, timeoutMs) {
  return new Promise((resolve, reject) => {
    stub[method](request, { deadline: Date.now() + timeoutMs }, (error, reply) =>
      error ? reject(failureOf(error)) : resolve(reply),
    );
  });
}

/** One stream with many batches in flight; replies find their batch by its id. */
class Pipeline {
  constructor(stream) {
    this.waiting = new Map();
    this.lastId = 0;
    this.stream = stream;
    stream.on("data", ({ replies }) => replies.forEach((reply) => this.settle(reply)));
    stream.on("error", (error) => this.fail(failureOf(error)));
    stream.on("end", () => this.fail(new Error("the stream ended")));
  }

  /** Sends `batches` in ONE message and returns one promise of a BatchResponse for each. */
  send(...batches) {
    const numbered = batches.map((batch) => ({ id: ++this.lastId, ...batch }));
    const answers = numbered.map(
      ({ id }) => new Promise((resolve, reject) => this.waiting.set(String(id), { resolve, reject })),
    );
    this.stream.write({ batches: numbered });
    return answers;
  }

  settle({ id, batch, error }) {
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (batch) {
      resolve(batch);
    } else {
      reject(failureInside(error));
    }
  }

  fail(error) {
    this.waiting.forEach(({ reject }) => reject(error));
    this.waiting.clear();
  }

  close() {
    this.stream.end();
  }
}

/** Returns the nodes at `addresses` ({n1: "host:port"}), with stubs made from the files in `protos`/kv/v1. */
function connect(protos, addresses) {
  const files = ["kv.proto", "cluster.proto"].map((name) => path.join("kv", "v1", name));
  const definition = protoLoader.loadSync(files, { ...LOADING, includeDirs: [protos] });
  const api = grpc.loadPackageDefinition(definition).kv.v1;
  const named = Object.entries(addresses).map(([id, address]) => [id, new Node(api, address)]);
  return Object.fromEntries(named);
}

module.exports = { connect, Failure, failureInside };
